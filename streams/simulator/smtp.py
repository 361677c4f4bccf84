"""The same demand through the product: events on Kafka, DECIDE, DELIVER, and providers that are SMTP servers.

Everything is on the deployment's scaled clock.
"""

import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from confluent_kafka import Producer

import infra
from infra.embedded import KafkaServer
from schemas import codec, topics
from schemas.lanes import Lane
from schemas.profile import HOUR_MS
from schemas.replies import Replies
from schemas.settings import Settings
from sinks.vault import Contact
from sinks.vault.sqlite import SqliteVault
from streams import cluster, control
from streams.engine.control import Clock
from streams.engine.kafka import Client, KafkaUnavailable, read_all
from streams.replay import load, workers
from streams.replay.workers import Workers
from streams.simulator import ours, servers
from streams.simulator.audited import Audited
from streams.simulator.demand import Demand, Outcome
from streams.simulator.parameters import Parameters
from streams.simulator.people import recipient_id
from streams.simulator.provider import MailboxProvider
from streams.simulator.run import lane_of
from streams.simulator.servers import Mailboxes, Said
from streams.simulator.upstream import Around, Upstream

SPEED: Final = 144.0  # what waits for its expiry after two days has ended after half an hour
_LIST: Final = 50_000  # recipients, of whom parameters.toml says what a provider takes at first
_LEAD_MS: Final = 3000  # in which the worker learns that the clock is about to run
_PATIENCE_S: Final = 90.0
_ASK_S: Final = 1.0
_OTHERS: Final = "offer"
_URGENT: Final = "receipt"
_CAMPAIGNS: Final = ((_OTHERS, "cart", "mail"), (_URGENT, "purchase", "transactional"))
_TEMPLATE: Final = "win_back"
_CONTACT: Final = """\
default_zone = "UTC"
profiling = "opt_out"

[purpose.mail]
consent = "opt_in"

[purpose.transactional]
consent = "not_needed"
suppressed_by = ["bounced"]
"""
By = dict[str, Outcome]


@dataclass(frozen=True)
class Plan:
    """What is sent: under which assumptions, for how many days, to how many, by which seed, how fast."""

    parameters: Parameters
    days: int
    recipients: int
    seed: int
    speed: float = SPEED

    @classmethod
    def of(cls, days: int, recipients: int, seed: int, speed: float = SPEED) -> "Plan":
        """Assume that providers take at first as much less as there are fewer recipients, or all would go."""
        parameters = Parameters.assumed()
        for provider in parameters.provider:
            parameters = parameters.scaled(provider, "first_hourly", recipients / _LIST)
        return cls(parameters, days, recipients, seed, speed)

    def undisturbed(self, expiry_h: float | None = None) -> "Plan":
        """The same without what the pure model does not have; perhaps with another expiry."""
        parameters = self.parameters
        for name in ("slow", "half_open"):
            parameters = parameters.scaled("server", name, 0)
        if expiry_h is not None:
            parameters = parameters.scaled("sender", "expiry_h", expiry_h / parameters.sender.expiry_h.value)
        return replace(self, parameters=parameters)

    def demand(self, provider: str) -> Demand:
        """What a provider's recipients are to get."""
        return Demand.of(self.parameters, provider, self.days, self.recipients, self.seed)

    def mailbox(self, provider: str) -> MailboxProvider:
        """The provider, as it is at the beginning."""
        return MailboxProvider(provider, self.parameters.provider[provider], self.days + 2, self.seed)

    def lane(self, provider: str) -> Lane:
        """The lane to it."""
        return lane_of(self.parameters, provider, self.days, self.recipients)


def virtual(plan: Plan, replies: Replies) -> By:
    """What the pure model makes of it."""
    return {
        provider: ours.send(plan.demand(provider), plan.mailbox(provider), plan.lane(provider), replies)
        for provider in plan.parameters.provider
    }


def real(plan: Plan, rules: Path, settings: Settings, tell: Callable[[float], None]) -> By:
    """What Kafka, DECIDE, DELIVER and SMTP make of it, in a fresh state folder.

    DELIVER goes by the `replies.toml` of the policy folder `rules`. `tell` hears how much has passed.

    Raises
    ------
    WorkerDied
        A worker has ended.
    KafkaUnavailable
        Kafka did not answer, or some messages had no outcome when all should have ended.
    """
    time_of, demand = _Time(plan), {name: plan.demand(name) for name in plan.parameters.provider}
    boxes = _Boxes({name: plan.mailbox(name) for name in demand})
    said: deque[Said] = deque()
    mailboxes = Mailboxes(boxes.by_name, plan.parameters.server, time_of.now, said.append, plan.seed)
    with ExitStack() as ending:
        kafka = KafkaServer(settings.state_dir, settings.cache_dir / "jars")
        ending.callback(kafka.down)
        kafka.up()
        client = cluster.connect(settings)
        cluster.create_topics(client, settings)
        control.set_clock(client, time_of.clock, "simulate", "stands at the beginning")
        port = ending.enter_context(servers.running(mailboxes))
        environment = workers.apart(settings) | {
            "OPPORTUNE_RELAY": f"{servers.HOST}:{port}",
            "OPPORTUNE_RELAY_TLS": "none",
            "OPPORTUNE_POLICY_DIR": str(_policy(plan, rules, settings)),
        }
        _fill_vault(demand, settings)
        roles = {"deliver": 1, "decide": 1}
        running = ending.enter_context(workers.running(settings, roles, environment))
        producer = load.producer(client)
        upstream = Upstream(demand, plan.parameters.recipient, plan.seed, producer)
        upstream.register()
        _probe(demand, producer)

        def audited() -> Audited:
            return Audited(_audit(client, settings))

        def began() -> bool:
            so_far = audited()
            return so_far.consents >= len(upstream.recipients) and so_far.probes >= len(demand)

        _await(running, began, "did not begin")
        time_of.begin()
        control.set_clock(client, time_of.clock, "simulate", "the days begin")

        def passes(part: float) -> None:
            boxes.note(time_of.now())
            tell(part)

        upstream.run(Around(time_of.now, said, running.check, passes))
        messages = {name: len(each.released) for name, each in demand.items()}
        _await(running, lambda: audited().ended(sum(messages.values())), "did not end all messages")
        upstream.hear(said)
        found = audited().count(messages, _URGENT)
    for provider, outcome in found.items():
        outcome.inbox = upstream.inbox[provider]
        outcome.reputation = boxes.reputation[provider]
        outcome.reputation_at_end = boxes.by_name[provider].reputation
    return found


class _Time:
    """The deployment's clock: it stands at the beginning until the days begin."""

    def __init__(self, plan: Plan) -> None:
        self._speed = plan.speed
        self.clock = Clock("scaled", ours.EPOCH, 0, 0.0)

    def begin(self) -> None:
        """Let it run, in a moment."""
        self.clock = Clock("scaled", ours.EPOCH, time.time_ns() // 1_000_000 + _LEAD_MS, self._speed)

    def now(self) -> float:
        """Milliseconds since the beginning."""
        shown = self.clock.now(time.time_ns() // 1_000_000) or 0
        return float(max(0, shown - ours.EPOCH))


class _Boxes:
    """The providers, and their view of us at the end of each hour."""

    def __init__(self, by_name: dict[str, MailboxProvider]) -> None:
        self.by_name = by_name
        self.reputation: dict[str, list[float]] = {name: [] for name in by_name}

    def note(self, now: float) -> None:
        """Take down the hours that have passed."""
        for name, box in self.by_name.items():
            while len(self.reputation[name]) < now // HOUR_MS:
                self.reputation[name].append(box.reputation)


def _probe(demand: Mapping[str, Demand], producer: Producer) -> None:
    """Write a command to each lane that is only taken down, by which the lane's owner shows itself."""
    for provider in demand:
        decision = uuid.uuid5(uuid.NAMESPACE_DNS, provider)
        command = {
            "dispatch_id": str(uuid.uuid5(decision, "mail")),
            "decision_id": str(decision),
            "recipient_id": recipient_id(provider, 0),
            "campaign": _OTHERS,
            "template": _TEMPLATE,
            "purpose": "mail",
            "channel": "mail",
            "lane": provider,
            **dict.fromkeys(("due_at", "released_at", "expires_at"), ours.EPOCH),
            "history": True,
        }
        producer.produce(topics.COMMANDS.name, codec.encode(topics.COMMANDS.name, command), provider.encode())
    producer.flush()


def _policy(plan: Plan, rules: Path, settings: Settings) -> Path:
    """The packaged policy, but for the rules for replies, lanes, and two campaigns that send at once."""
    folder = settings.state_dir / "policy"
    shutil.copytree(Path(infra.__file__).parent / "policy", folder)
    lanes = ['[default]\nrate = "1/hr"\n']
    for provider in plan.parameters.provider:
        lane = plan.lane(provider)
        warm_up = "" if lane.warm_up is None else f"warm_up = {{ first_day = {lane.warm_up.first_day} }}\n"
        lanes.append(
            f'[lane.{provider}]\nrate = "{lane.rate * 3600:.6f}/hr"\nreserve = {lane.reserve}\n'
            f'expiry = "{lane.expiry}"\n{warm_up}'
        )
    (folder / "lanes.toml").write_text("\n".join(lanes))
    (folder / "contact.toml").write_text(_CONTACT)
    (folder / "replies.toml").unlink()
    if (rules / "replies.toml").exists():
        shutil.copy(rules / "replies.toml", folder)
    shutil.rmtree(folder / "campaigns")
    (folder / "campaigns").mkdir()
    expiry = f"{plan.parameters.sender.expiry_h.value:g} h"
    for number, (name, event, purpose) in enumerate(_CAMPAIGNS):
        (folder / "campaigns" / f"{name}.toml").write_text(
            f'number = {number}\nname = "{name}"\nversion = 1\ndoc = "Asked for by one event."\n'
            f'trigger.event = "{event}"\npurpose = "{purpose}"\nchannel = "mail"\ntiming = "at_once"\n'
            f'template = "{_TEMPLATE}"\ncooldown = "1 ms"\nexpiry = "{expiry}"\n'
        )
    return folder.absolute()


def _fill_vault(demand: Mapping[str, Demand], settings: Settings) -> None:
    vault = SqliteVault.create(settings.vault_path, settings.vault_key_path)
    for provider, each in demand.items():
        vault.put_many(
            Contact(recipient_id(provider, number), servers.address(provider, number))
            for number in np.unique(each.recipient).tolist()
        )
    vault.close()


def _audit(client: Client, settings: Settings) -> list[dict[str, Any]]:
    """Every audit record."""
    consumer = client.reader()
    try:
        return [
            codec.decode(topics.AUDIT.name, record.value or b"")
            for partition in range(settings.partitions)
            for record in read_all(consumer, topics.AUDIT.name, partition)
        ]
    finally:
        consumer.close()


def _await(running: Workers, done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not done():
        running.check()
        if time.monotonic() > deadline:
            raise KafkaUnavailable(f"the workers {what} within {_PATIENCE_S:g} s; see their logs")
        time.sleep(_ASK_S)
