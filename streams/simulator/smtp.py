"""The same demand through the product: commands on Kafka, DELIVER, and providers that are SMTP servers.

DECIDE is played here as far as DELIVER can tell: commands are released when they are due, and a recipient who
does not exist gets no more of them. Everything is on the deployment's scaled clock.
"""

import heapq
import shutil
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
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
from streams.simulator.demand import Demand, Outcome
from streams.simulator.parameters import Parameters
from streams.simulator.people import Act, People
from streams.simulator.provider import MailboxProvider
from streams.simulator.run import lane_of
from streams.simulator.servers import Mailboxes, Said

SPEED: Final = 432.0  # what waits for its expiry after two days has ended after ten minutes
_LIST: Final = 50_000  # recipients, of whom parameters.toml says what a provider takes at first
_LEAD_MS: Final = 3000  # in which the worker learns that the clock is about to run
_PATIENCE_S: Final = 90.0
_ASK_S: Final = 1.0
_POLL_S: Final = 0.02
_ENDS: Final = {  # what is not known to have been taken counts as not taken in time
    "delivered": "accepted",
    "bounced": "bounced",
    "recalled": "bounced",
    "expired": "expired",
    "unknown": "expired",
}
_OTHERS: Final = "win_back"
_URGENT: Final = "receipt"
_URGENT_CAMPAIGN: Final = f"""\
number = 9
name = "{_URGENT}"
version = 1
doc = "What a recipient is owed."
trigger.event = "purchase"
purpose = "transactional"
channel = "mail"
template = "{_OTHERS}"
cooldown = "1 min"
expiry = "30 days"
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


def real(plan: Plan, settings: Settings, tell: Callable[[float], None]) -> By:
    """What Kafka, DELIVER and SMTP make of it, in a fresh state folder; `tell` hears how much has passed.

    Raises
    ------
    WorkerDied
        The worker has ended.
    KafkaUnavailable
        Kafka did not answer, or some messages had no outcome when all should have ended.
    """
    time_of, boxes = _Time(plan), {name: plan.mailbox(name) for name in plan.parameters.provider}
    said: deque[Said] = deque()
    mailboxes = Mailboxes(boxes, plan.parameters.server, time_of.now, said.append, plan.seed)
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
            "OPPORTUNE_POLICY_DIR": str(_policy(plan, settings)),
        }
        _fill_vault(plan, settings)
        running = ending.enter_context(workers.running(settings, {"deliver": 1}, environment))
        feed = _Feed(plan, load.producer(client))
        feed.probe()
        _await(running, lambda: len(_outcomes(client, settings)) == len(boxes), "did not begin")
        time_of.begin()
        control.set_clock(client, time_of.clock, "simulate", "the days begin")
        feed.run(time_of.now, said, running, tell)
        _await(running, lambda: feed.ended(_outcomes(client, settings)), "did not end all messages")
        found = feed.counted(_outcomes(client, settings))
    for provider, outcome in found.items():
        outcome.reputation_at_end = boxes[provider].reputation
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


class _Feed:
    """DECIDE's part: it releases commands, and recalls those whose recipients turn out not to exist."""

    def __init__(self, plan: Plan, producer: Producer) -> None:
        self._producer = producer
        self._demand = {provider: plan.demand(provider) for provider in plan.parameters.provider}
        self._order = sorted(
            (released, provider, which)
            for provider, demand in self._demand.items()
            for which, released in enumerate(demand.released.tolist())
        )
        self._until = max(float(demand.expires.max(initial=0)) for demand in self._demand.values())
        self._released: dict[str, dict[str, Any]] = {}  # commands by dispatch
        self._to: defaultdict[str, list[str]] = defaultdict(list)  # dispatches by recipient
        self._gone: set[str] = set()
        self._people, self._acts = People(plan.parameters.recipient, plan.seed), list[Act]()
        self._found = {name: Outcome(len(demand.released)) for name, demand in self._demand.items()}

    def probe(self) -> None:
        """Write a command to each lane that is only taken down, by which the lane's owner shows itself."""
        for provider in self._demand:
            self._write(topics.COMMANDS.name, self._command(provider, 0, history=True))
        self._producer.flush()

    def run(
        self, now: Callable[[], float], said: deque[Said], running: Workers, tell: Callable[[float], None]
    ) -> None:
        """Release everything when it is due, and wait until the last has expired."""
        place = 0
        while (at := now()) < self._until:
            while place < len(self._order) and self._order[place][0] <= at:
                self._release(*self._order[place][1:])
                place += 1
            self._hear_all(said)
            while self._acts and self._acts[0].at <= at:
                self._act(heapq.heappop(self._acts))
            self._producer.poll(0)
            running.check()
            tell(at / self._until)
            time.sleep(_POLL_S)
        self._hear_all(said)
        self._producer.flush()

    def ended(self, outcomes: Sequence[Mapping[str, Any]]) -> bool:
        """Whether everything that was released has ended."""
        return {each["dispatch_id"] for each in outcomes if each["kind"] in _ENDS} >= self._released.keys()

    def counted(self, outcomes: Sequence[Mapping[str, Any]]) -> By:
        """What became of the messages, by the audit trail."""
        waits: defaultdict[str, list[float]] = defaultdict(list)
        for each in outcomes:
            found = self._found[each["lane"]]
            if each["kind"] == "deferred":
                found.deferrals += 1
            elif each["kind"] in _ENDS:
                name = _ENDS[each["kind"]]
                setattr(found, name, getattr(found, name) + 1)
            if each["kind"] == "delivered" and each["campaign"] == _URGENT:
                released = self._released[each["dispatch_id"]]["released_at"]
                waits[each["lane"]].append(codec.millis(each["occurred_at"]) - released)
        for lane, some in waits.items():
            self._found[lane].urgent_wait_ms = float(np.mean(some))
        return self._found

    def _release(self, provider: str, which: int) -> None:
        command = self._command(provider, which, history=False)
        if command["recipient_id"] in self._gone:
            self._found[provider].bounced += 1
            return
        self._released[command["dispatch_id"]] = command
        self._to[command["recipient_id"]].append(command["dispatch_id"])
        self._write(topics.COMMANDS.name, command)

    def _hear_all(self, said: deque[Said]) -> None:
        while said:
            self._hear(said.popleft())

    def _hear(self, said: Said) -> None:
        """Learn of an answer, as DECIDE does of a permanent bounce; and let people have what was taken."""
        self._found[said.provider].inbox += said.answer.inbox
        recipient = self._released[said.dispatch_id or ""]["recipient_id"]
        for act in self._people.get(said, recipient):
            heapq.heappush(self._acts, act)
        if said.answer.kind != "bounced":
            return
        self._gone.add(recipient)
        for dispatch_id in self._to.pop(recipient, []):
            command = self._released[dispatch_id]
            same = {name: command[name] for name in ("dispatch_id", "recipient_id", "lane", "expires_at")}
            recall = same | {"reason": "suppressed", "recalled_at": command["released_at"]}
            self._write(topics.RECALLS.name, recall)

    def _act(self, act: Act) -> None:
        occurred = {"occurred_at": ours.EPOCH + int(act.at)}
        key = act.fields["recipient_id"].encode()
        self._producer.produce(act.topic, codec.encode(act.topic, act.fields | occurred), key)

    def _command(self, provider: str, which: int, history: bool) -> dict[str, Any]:
        demand = self._demand[provider]
        decision = uuid.uuid5(uuid.NAMESPACE_DNS, f"{provider}-{which}{'-probe' if history else ''}")
        released = ours.EPOCH + int(demand.released[which])
        campaign = _URGENT if demand.urgent[which] else _OTHERS
        return {
            "dispatch_id": str(uuid.uuid5(decision, "mail")),
            "decision_id": str(decision),
            "recipient_id": _recipient(provider, int(demand.recipient[which])),
            "campaign": campaign,
            "template": _OTHERS,
            "purpose": "transactional" if campaign == _URGENT else "mail",
            "channel": "mail",
            "lane": provider,
            "due_at": released,
            "released_at": released,
            "expires_at": ours.EPOCH + int(demand.expires[which]),
            "history": history,
        }

    def _write(self, topic: str, fields: Mapping[str, Any]) -> None:
        self._producer.produce(topic, codec.encode(topic, fields), fields["lane"].encode())


def _recipient(provider: str, number: int) -> str:
    return f"{provider}-{number}"


def _policy(plan: Plan, settings: Settings) -> Path:
    """The packaged policy, with the lanes of the plan and a campaign that is urgent."""
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
    (folder / "campaigns" / f"{_URGENT}.toml").write_text(_URGENT_CAMPAIGN)
    return folder.absolute()


def _fill_vault(plan: Plan, settings: Settings) -> None:
    vault = SqliteVault.create(settings.vault_path, settings.vault_key_path)
    for provider in plan.parameters.provider:
        whom = np.unique(plan.demand(provider).recipient).tolist()
        vault.put_many(
            Contact(_recipient(provider, number), servers.address(provider, number)) for number in whom
        )
    vault.close()


def _outcomes(client: Client, settings: Settings) -> list[dict[str, Any]]:
    """Every audit record of DELIVER."""
    consumer = client.reader()
    try:
        records = [
            codec.decode(topics.AUDIT.name, record.value or b"")
            for partition in range(settings.partitions)
            for record in read_all(consumer, topics.AUDIT.name, partition)
        ]
    finally:
        consumer.close()
    return [record["body"] for record in records]


def _await(running: Workers, done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not done():
        running.check()
        if time.monotonic() > deadline:
            raise KafkaUnavailable(f"DELIVER {what} within {_PATIENCE_S:g} s; see its log")
        time.sleep(_ASK_S)
