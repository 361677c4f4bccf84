"""A worker: one process of a role, from settings to a running Faust app."""

import os
import socket
from pathlib import Path
from typing import Any

import structlog

import infra
from schemas import policy, topics
from schemas.policy import Policy
from schemas.profile import ROW
from schemas.settings import Settings
from streams import cluster, events, logs
from streams.agents.decide import APP, Decider
from streams.engine import app as engine
from streams.engine.kafka import Client
from streams.engine.line import Spec
from streams.engine.store import SlabStore

_log = structlog.get_logger()


def load_policy(settings: Settings) -> Policy:
    """Load the deployment's policy, or the packaged one. Raises PolicyError."""
    return policy.load(settings.policy_dir or Path(infra.__file__).parent / "policy")


def decide_spec(settings: Settings, client: Client) -> Spec:
    """Everything that makes a DECIDE line. Raises PolicyError."""
    handler = Decider(load_policy(settings), settings.partitions)
    return Spec(
        APP,
        client,
        tuple(topic.name for topic in topics.SOURCES),
        topics.PROFILES.name,
        topics.JOURNAL.name,
        True,
        handler,
        settings.cut_records,
        lambda: SlabStore(ROW),
    )


def run_decide(settings: Settings) -> None:
    """Run DECIDE until it is told to stop; does not return."""
    logs.configure(settings.log_level)
    structlog.contextvars.bind_contextvars(role="decide")
    client = cluster.connect(settings)
    spec = decide_spec(settings, client)
    cluster.create_topics(client, settings)
    web_port = settings.web_port or _free_port()
    datadir = settings.state_dir / "workers" / (settings.worker_id or str(os.getpid()))
    datadir.mkdir(parents=True, exist_ok=True)
    app = engine.build(spec, settings, web_port, datadir)
    _log.info(
        events.WORKER_STARTED, policy=spec.handler.policy, web_port=web_port, worker_id=settings.worker_id
    )
    worker: Any = app.Worker(
        loglevel=settings.log_level, quiet=True, redirect_stdouts=False, override_logging=False
    )
    worker.execute_from_commandline()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
