"""DELIVER without Kafka and SMTP, in virtual time: its workers, its topics, its server."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from schemas import codec, dispatch, topics
from schemas.dispatch import State
from schemas.lanes import Lanes
from schemas.policy import Campaign, Policy
from schemas.replies import NO_RULES
from sinks.transports import Message, Outcome
from streams.engine.control import Control
from streams.engine.cut import Cut, Out
from streams.engine.journal import Entry
from streams.facts import Facts
from streams.reading import Part
from streams.reconciling import dispatches, mail
from tests.support import virtual_time
from tests.support.cuts import PACKAGED
from tests.support.memory_kafka import MemoryKafka, MemoryTransactions
from tests.support.virtual_time import VirtualTime
from tests.support.virtual_worker import SOURCES, Killed, Worker, die, disarm, of_its_worker

COMMANDS, RECALLS = topics.COMMANDS.name, topics.RECALLS.name
_AUDIT, _JOURNAL = topics.AUDIT.name, topics.DELIVER_JOURNAL.name
_WRITTEN = (
    _JOURNAL,
    topics.DISPATCHES.name,
    topics.DEAD_LETTERS.name,
    *SOURCES,
    _AUDIT,
)
MINUTE, HOUR = 60_000, 3_600_000

Answer = Callable[[str, int], Outcome]  # to a dispatch's n-th attempt, from 1


@dataclass
class Server:
    """The other end: it outlives every worker, and knows what it was given and when.

    What its `answer` accepts or calls `unknown` it has. It takes `before` seconds until it has a message, and
    `after` until it says so.
    """

    time: VirtualTime
    chance: random.Random
    answer: Answer = lambda which, attempt: Outcome("accepted", 250)
    before: tuple[float, float] = (0.01, 0.05)
    after: tuple[float, float] = (0.01, 0.03)
    taken: list[tuple[int, str]] = field(default_factory=list)  # wall clock, UTC ms, and dispatch
    lost: Counter[str] = field(default_factory=Counter)  # replies that never came, by dispatch
    attempts: Counter[str] = field(default_factory=Counter)

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """See `Transport.send`."""
        if not still_wanted():
            return Outcome("vetoed")
        await asyncio.sleep(self.chance.uniform(*self.before))
        if not still_wanted():
            return Outcome("vetoed")
        which = message.dispatch_id
        self.attempts[which] += 1
        outcome = self.answer(which, self.attempts[which])
        if outcome.kind in ("accepted", "unknown"):
            self.taken.append((self.time.ms, which))
            self.lost[which] += outcome.kind == "unknown"
        await asyncio.sleep(self.chance.uniform(*self.after))
        return outcome

    async def close(self) -> None:
        """See `Transport.close`."""


class Cluster:
    """Topics, a server and workers: `run` gives one. Who owns which partition is what a test says."""

    def __init__(self, time: VirtualTime, policy: Policy, lanes: Lanes, partitions: int, seed: int) -> None:
        self.time, self.policy, self.lanes, self.replies = time, policy, lanes, NO_RULES
        self.chance = random.Random(seed)  # noqa: S311 - moments of a test, not secrets
        self.kafka = MemoryKafka(partitions, lambda: time.ms)
        self.server = Server(time, self.chance)
        self.controls = [(time.ms, Control())]  # each with the moment since when it has been in force
        self.commands: dict[str, dict[str, Any]] = {}
        self.recalled: dict[str, int] = {}  # when, by dispatch
        self.workers: list[Worker] = []
        self.watches: list[Callable[[Cut], None]] = []  # told of each cut that is handled
        self.errors: list[BaseException] = []
        self.deaths = 0
        self.orphans: set[tuple[str, int]] = set()  # claims whose worker died: dispatch, attempts before

    # Workers

    async def start(self, *partitions: int) -> Worker:
        """Start a worker that takes these partitions over; it may die of it."""
        worker = Worker(self)
        self.workers.append(worker)
        await worker.take(*partitions)
        return worker

    @property
    def control(self) -> Control:
        """State of control now."""
        return self.controls[-1][1]

    def failed(self, error: BaseException | None) -> None:
        """Note an error of a worker, unless it is its death."""
        if error is not None and not isinstance(error, Killed):
            self.errors.append(error)

    async def until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait for something, at most so long; whether it came."""
        deadline = self.time.s + seconds
        while not done() and self.time.s < deadline:
            if self.errors:
                raise self.errors[0]
            await asyncio.sleep(0.05)
        return done()

    # What goes in

    def command(self, lane: str, campaign: str = "news", lasts: int = 16 * HOUR) -> dict[str, Any]:
        """A command that is released now and expires so many ms later."""
        number, now = len(self.commands), self.time.ms
        which = str(uuid.UUID(int=self.chance.getrandbits(128)))
        fields = {
            "dispatch_id": which,
            "decision_id": str(uuid.UUID(int=number)),
            "recipient_id": f"r{number}",
            "campaign": campaign,
            "template": campaign,
            "purpose": "mail",
            "channel": "mail",
            "lane": lane,
            "due_at": now,
            "released_at": now,
            "expires_at": now + lasts,
            "history": False,
        }
        self.commands[which] = fields
        return fields

    def produce(self, *commands: dict[str, Any]) -> None:
        """Write commands as DECIDE does."""
        self._produce(COMMANDS, commands)

    def recall(self, *commands: dict[str, Any]) -> None:
        """Write recalls of commands, which may not have come yet."""
        same = ("dispatch_id", "recipient_id", "lane", "expires_at")
        more = {"reason": "withdrawn", "recalled_at": self.time.ms}
        self.recalled = {each["dispatch_id"]: self.time.ms for each in commands} | self.recalled
        self._produce(RECALLS, [{name: each[name] for name in same} | more for each in commands])

    def _produce(self, topic: str, some: Sequence[dict[str, Any]]) -> None:
        self.kafka.produce([Out(topic, each["lane"].encode(), codec.encode(topic, each)) for each in some])

    def switch(self, **change: Any) -> None:
        """Change control for everybody, as an operator does."""
        control = replace(self.control, version=self.control.version + 1, **change)
        self.controls.append((self.time.ms, control))

    # What comes out

    def claimed(self, partition: int) -> set[tuple[str, int]]:
        """Claims without outcome, by what has committed: dispatch, and attempts before."""
        rows = self._rows(partition)
        return {(key, int(row["attempts"])) for key, row in rows.items() if row["state"] == State.CLAIMED}

    def _rows(self, partition: int) -> dict[str, np.void]:
        log = self.kafka.logs[topics.DISPATCHES.name, partition]
        log.compact()
        found = [record for record in log.records if record.value]
        rows = dispatch.LAYOUTS.read([record.value or b"" for record in found])
        return {(record.key or b"").decode(): row for record, row in zip(found, rows, strict=True)}

    def backlog(self) -> Counter[str]:
        """How many dispatches wait, by lane."""
        rows = [row for partition in range(self.kafka.partitions) for row in self._rows(partition).values()]
        return Counter(row["lane"].decode() for row in rows if row["state"] == State.WAITING)

    def ended(self) -> bool:
        """Whether every command has been taken up, and none waits or is on its way."""
        for partition in range(self.kafka.partitions):
            taken, entries = self.kafka.logs[COMMANDS, partition], self.kafka.logs[_JOURNAL, partition]
            if not taken.records:
                continue
            last = Entry.decode(_JOURNAL, entries.records[-1].value or b"") if entries.records else None
            if last is None or last.next_offsets()[COMMANDS] < taken.end:
                return False
            if last.figures["pending"] or last.figures["in_flight"]:
                return False
        return True

    def trail(self) -> list[dict[str, Any]]:
        """What the audit trail says, in order."""
        found = [codec.decode(_AUDIT, record.value or b"") for _, record in self.kafka.of(_AUDIT)]
        return [record["body"] | {"at": record["at"]} for record in found]

    def off(self) -> list[str]:
        """Where topics, table, journal and server do not agree, as `opportune reconcile` says it."""
        mails = Counter(which for _, which in self.server.taken)
        facts = Facts(partitions=self.kafka.partitions, mails=mails)
        for topic in _WRITTEN:
            for number in range(self.kafka.partitions):
                part = Part(topic, number, 0, self.kafka.logs[topic, number].end)
                facts.began(part)
                for record in self.kafka.logs[topic, number].records:
                    facts.add(part, record)
        again = [each.name for each in self.policy.campaigns if each.guarantee == "at_least_once"]
        return [*dispatches.compare(facts)[1], *mail.compare(mails, facts.deliver, facts.begins, again)[1]]


def run(
    story: Callable[[Cluster], Coroutine[Any, Any, None]],
    policy: Policy,
    lanes: Lanes,
    partitions: int = 1,
    seed: int = 0,
) -> None:
    """Run a story of a cluster to its end."""

    async def whole(time: VirtualTime) -> None:
        cluster = Cluster(time, policy, lanes, partitions, seed)
        asyncio.get_running_loop().set_task_factory(of_its_worker)
        with _standing_in(cluster):
            await story(cluster)
            for worker in [*cluster.workers]:
                worker.kill()
            await asyncio.sleep(1)
        if cluster.errors:
            raise cluster.errors[0]

    virtual_time.run(whole)


@contextmanager
def _standing_in(cluster: Cluster) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.engine.line.Transactions", MemoryTransactions)
        patch.setattr("streams.sender.end_worker", cluster.failed)
        patch.setattr("streams.engine.failpoint._act", die)
        yield
    disarm()


def campaign(number: int, name: str, **more: Any) -> Campaign:
    """A campaign, of which DELIVER knows no more than rank and guarantee."""
    fields = {"version": 1, "doc": "For tests.", "trigger": {"event": "purchase"}, "template": name}
    return Campaign.model_validate(
        {"number": number, "name": name, "cooldown": "1 day", "expiry": "48 h"} | fields | more
    )


def policy(*campaigns: Campaign) -> Policy:
    """A policy of these campaigns."""
    return PACKAGED.model_copy(update={"segments": (), "campaigns": campaigns})
