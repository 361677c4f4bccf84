"""A worker: one process of a role, from settings to a running Faust app."""

import gc
import os
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import mode.loop
import structlog

from models.order import Ranks
from schemas import dispatch, policy_files, topics
from schemas.policy import Policy, meant
from schemas.profile import LAYOUTS, ROW
from schemas.scopes import Scopes
from schemas.settings import Settings
from sinks.vault.sqlite import SqliteVault
from streams import cluster, events, logs, mail, serving
from streams.agents import decide, deliver
from streams.agents.decide import Decider
from streams.agents.deliver import Deliverer
from streams.agents.dispatches import DispatchStore, is_live
from streams.engine import app as engine
from streams.engine.consumer import CutTransport
from streams.engine.control import Control
from streams.engine.kafka import Client
from streams.engine.line import Spec
from streams.engine.rocks_tables import RocksPlace, RocksTables
from streams.engine.snapshots import FileSnapshots, Place
from streams.engine.store import SlabStore
from streams.policy import load_policy, policy_folder
from streams.rendering import Renderer, load_templates
from streams.sender import Sender
from streams.web import listen

_log = structlog.get_logger()
_SWITCH_S: Final = 0.0005


def decide_spec(settings: Settings, client: Client) -> Spec:
    """Everything that makes a DECIDE line. Raises PolicyError, or KeyRefused where `model_trust` is wrong."""
    if settings.model_trust:
        serving.trusted_keys(settings)  # now, and not at the first promotion
    handler = Decider(load_policy(settings), settings.partitions, lambda: serving.trusted_keys(settings))
    return Spec(
        decide.APP,
        client,
        tuple(topic.name for topic in topics.SOURCES),
        topics.PROFILES.name,
        topics.JOURNAL.name,
        True,
        handler,
        settings.cut_records,
        int(settings.target_latency) / 1000,
        lambda: SlabStore(ROW),
        snapshots=FileSnapshots(_snapshots(settings, client)),
        layouts=LAYOUTS,
    )


def _snapshots(settings: Settings, client: Client) -> Place:
    return Place(
        client,
        decide.APP,
        topics.PROFILES.name,
        topics.JOURNAL.name,
        LAYOUTS,
        settings.state_dir / "snapshots" / decide.APP,
        settings.snapshot_every,
        settings.replay_days,
        topics.TOMBSTONES_KEPT_MS // 2,
    )


def deliver_spec(settings: Settings, client: Client) -> Spec:
    """Everything that makes a DELIVER line.

    Raises
    ------
    PolicyError
        A policy file or a template is wrong or missing.
    KeyFileRefused
        The key that signs mail is missing, too open, or will not do.
    VaultError
        The contact vault cannot be opened.
    NoSandbox
        No relay is set, and no sandbox runs on this machine.
    NoRelay
        What is set of the relay, or of the webhook, cannot be.
    """
    folder, policy = policy_folder(settings), load_policy(settings)
    lanes, replies = policy_files.load_lanes(folder), policy_files.load_replies(folder)
    _check_identities(policy, settings)
    signers = mail.signers(settings)
    vault = SqliteVault(settings.vault_path, settings.vault_key_path)
    renderer = Renderer(vault, load_templates(folder, policy), settings.identities, signers)
    return Spec(
        deliver.APP,
        client,
        tuple(topic.name for topic in topics.DISPATCH_SOURCES),
        topics.DISPATCHES.name,
        topics.DELIVER_JOURNAL.name,
        False,
        Deliverer(policy, lanes, replies),
        min(settings.cut_records, deliver.MOST_AT_ONCE),
        int(settings.target_latency) / 1000,
        DispatchStore,
        Sender(
            lanes, replies, Ranks.of(policy), Scopes.of(policy.campaigns), renderer, mail.transports(settings)
        ),
        snapshots=RocksTables(_dispatches(settings, client), DispatchStore),
        layouts=dispatch.LAYOUTS,
    )


def _check_identities(policy: Policy, settings: Settings) -> None:
    """Raise `NoRelay` where settings and campaigns, or lanes.toml, do not know the same identities."""
    known = policy.routes.identities
    for name in settings.identity:
        if name not in known:
            raise mail.NoRelay(
                f"identity {name} is set, and lanes.toml has none of this name{meant(name, known)}: add it "
                "to identities there, or take it out"
            )
    for campaign in policy.campaigns:
        if campaign.identity not in settings.identities:
            raise mail.NoRelay(
                f"campaign {campaign.name} is sent by {campaign.identity}, whom the settings lack: add "
                f"[identity.{campaign.identity}] with its mail_from"
            )


def _dispatches(settings: Settings, client: Client) -> RocksPlace:
    return RocksPlace(
        client,
        topics.DISPATCHES.name,
        dispatch.LAYOUTS,
        is_live,
        settings.state_dir / "tables" / deliver.APP,
        topics.TOMBSTONES_KEPT_MS // 2,
    )


def run_decide(settings: Settings) -> None:
    """Run DECIDE until it is told to stop; does not return."""
    _run("decide", decide_spec, settings)


def run_deliver(settings: Settings) -> None:
    """Run DELIVER until it is told to stop; does not return."""
    # libuv looks up names in a small pool that the whole process shares: a relay whose name server is silent
    # would hold up the others.
    os.environ.setdefault("UV_THREADPOOL_SIZE", "32")
    mode.loop.use("uvloop")  # a message is a dozen writes and replies
    _run("deliver", deliver_spec, settings)


def _run(role: str, spec_of: Callable[[Settings, Client], Spec], settings: Settings) -> None:
    logs.configure(settings.log_level)
    structlog.contextvars.bind_contextvars(role=role)
    client = cluster.connect(settings)
    spec = spec_of(settings, client)
    cluster.create_topics(client, settings)
    web = listen(settings)
    name = settings.worker_id or str(os.getpid())
    datadir = settings.state_dir / "workers" / role / name
    datadir.mkdir(parents=True, exist_ok=True)
    app = engine.build(spec, settings, web, datadir)
    if isinstance(spec.snapshots, FileSnapshots):
        spec.snapshots.tell = cast(CutTransport, app.transport).metrics.snapshot
    _log.info(
        events.WORKER_STARTED,
        policy=spec.handler.policy(Control()),
        web_port=web.getsockname()[1],
        worker_id=settings.worker_id,
    )
    _hold_up_little()
    worker: Any = app.Worker(
        loglevel=settings.log_level, quiet=True, redirect_stdouts=False, override_logging=False
    )
    worker.execute_from_commandline()


def _hold_up_little() -> None:
    """Keep the interpreter from making records wait."""
    # What the imports have made lives as long as the worker: looking through it for garbage takes 0.1 s.
    gc.collect()
    gc.freeze()
    # A commit wants the interpreter for a moment, at its begin and at its end, while the next cuts compute.
    sys.setswitchinterval(_SWITCH_S)
