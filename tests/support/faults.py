"""What every fault test is made of: seeds, fresh stacks on a running broker, traffic, and watched workers."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from _pytest.mark import ParameterSet
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import AdminClient

from schemas import codec, policy_files, topics
from schemas.policy import Policy
from schemas.settings import Settings
from streams import cluster
from streams.engine import journal
from streams.engine.control import Clock
from streams.engine.kafka import Client, KafkaUnavailable
from streams.replay import completejourney, load
from streams.replay.completejourney import Produced
from tests.support import whole
from tests.support.stack import PATIENCE_S, Stack, set_clock

PARTITIONS = 4
SPEED = 3600.0
KILLED = -signal.SIGKILL
_SET = "OPPORTUNE_FAULT_SEEDS"
_SEEDS_IN_A_SET = 5
_LEAD_MS = 1500
_STRETCH = timedelta(days=40)
_FIRST_DAY = datetime(2017, 1, 7, 15, tzinfo=UTC)


def seeds(count: int, *, short: bool = False) -> list[ParameterSet]:
    """Seeds of a case, from the set that OPPORTUNE_FAULT_SEEDS numbers; of a short case `make test` runs one.

    Set 2 is the seeds 10 to 14.
    """
    first = _SEEDS_IN_A_SET * int(os.environ.get(_SET, "0"))
    return [
        pytest.param(seed, marks=() if short and seed == first else pytest.mark.soak)
        for seed in range(first, first + count)
    ]


def chance_of(seed: int) -> random.Random:
    """Everything that a case leaves to chance."""
    return random.Random(seed)  # noqa: S311 - moments of a test, not secrets


@dataclass
class Case:
    """A stack of one test, and the policy of its workers: a message for every purchase."""

    stack: Stack
    rules: Policy


@contextmanager
def case(broker: Stack, folder: Path) -> Iterator[Case]:
    """Fresh topics on a broker that runs, and a state folder that only this case's workers have."""
    address = broker.client.brokers
    _empty(broker)
    place = whole.eager_policy(folder, "60/s")
    settings = Settings(state_dir=folder, partitions=PARTITIONS, brokers=address)
    environment = {"OPPORTUNE_BROKERS": address, "OPPORTUNE_POLICY_DIR": str(place)}
    stack = Stack(settings, Client.of(settings, address), environment=environment)
    try:
        yield Case(stack, policy_files.load(place))
    finally:
        stack.end()


def _empty(broker: Stack) -> None:
    """Make every topic anew: cheaper than a broker for each case."""
    _delete(broker, [topic.name for topic in topics.TOPICS])
    _make(broker)


def delete(stack: Stack, name: str, *, made_anew: bool) -> None:
    """Delete a topic; perhaps it is there again, and empty."""
    _delete(stack, [name])
    if made_anew:
        _make(stack)


def _delete(stack: Stack, names: list[str]) -> None:
    admin = AdminClient(stack.client.config())  # by name: it takes what is under way with it when it goes
    for future in admin.delete_topics(names).values():
        future.result(30)
    await_until("the end of topics", lambda: admin.list_topics(timeout=30).topics.keys().isdisjoint(names))


def _make(stack: Stack) -> None:
    def made() -> bool:
        try:
            cluster.create_topics(stack.client, stack.settings)
        except KafkaUnavailable:  # one is still being deleted
            return False
        return True

    await_until("the topics", made)


# Traffic


def shopping(seed: int, households: int = 1200) -> tuple[datetime, list[Produced], list[Produced]]:
    """Some weeks of a grocery, others for each seed: their beginning, the people, and what they do."""
    start = _FIRST_DAY + timedelta(days=3 * (seed % 100))
    end = min(start + _STRETCH, completejourney.LAST)
    return (
        start,
        completejourney.people(start, end, households),
        completejourney.events(start, end, households),
    )


@dataclass
class Traffic:
    """Events that happen on the scaled clock, produced in a thread from `with` to its end.

    `events` are produced in their order, each when its `at` has come. When it ends, the clock stands.
    """

    stack: Stack
    start: datetime
    people: Sequence[Produced]
    events: Sequence[Produced]
    speed: float = SPEED
    sent: int = 0
    failed: list[BaseException | KafkaError] = field(default_factory=list)

    @classmethod
    def of(cls, stack: Stack, seed: int) -> Traffic:
        """The shopping of a seed."""
        return cls(stack, *shopping(seed))

    def __enter__(self) -> Traffic:
        """Set the clock, and begin with the people."""
        self._origin = round(self.start.timestamp() * 1000)
        self._wall = time.time_ns() // 1_000_000 + _LEAD_MS
        set_clock(self.stack, Clock("scaled", self._origin, self._wall, self.speed))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._produce_all, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the clock; raises unless Kafka has taken every event."""
        self._over.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the traffic did not end"
        assert not self.failed, self.failed[:3]
        set_clock(self.stack, Clock("scaled", round(self._now()), 0, 0.0))

    def await_more(self, count: int) -> None:
        """Wait until so many more events have been produced."""
        wanted = self.sent + count
        await_until("traffic", lambda: self.sent >= wanted or bool(self.failed))

    def _now(self) -> float:
        return self._origin + max(0.0, (time.time_ns() / 1e6 - self._wall) * self.speed)

    def _produce_all(self) -> None:
        try:
            sender = load.producer(self.stack.client)
            for event in (*self.people, *self.events):
                while event.at > self._now() and not self._over.is_set():
                    sender.poll(0.02)
                if self._over.is_set():
                    break
                value = codec.encode(event.topic, event.fields)
                sender.produce(event.topic, value, event.key.encode(), on_delivery=self._delivered)
                self.sent += 1
            if left := sender.flush(PATIENCE_S):
                raise AssertionError(f"{left} events were not delivered")
        except BaseException as error:
            self.failed.append(error)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self.failed.append(error)


# Waiting


def await_until(what: str, done: Callable[[], bool], patience: float = PATIENCE_S) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + patience
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come in time"
        time.sleep(0.05)


def await_end(stack: Stack, child: subprocess.Popen[bytes], patience: float = PATIENCE_S) -> int:
    """Wait until a worker has ended; returns its exit status."""
    await_until("the end of a worker", lambda: child.poll() is not None, patience)
    return child.wait()


def await_said(stack: Stack, child: subprocess.Popen[bytes], text: str, times: int = 1) -> None:
    """Wait until a worker has logged something so many times."""

    def said() -> bool:
        assert child.poll() is None or stack.log(child).count(text) >= times, stack.log(child)[-3000:]
        return stack.log(child).count(text) >= times

    await_until(f"{text!r} in {stack.log(child)[-3000:]}", said)


def await_stopped(child: subprocess.Popen[bytes]) -> None:
    """Wait until a process stands still by a SIGSTOP."""
    process = psutil.Process(child.pid)
    await_until("a standstill", lambda: process.status() == psutil.STATUS_STOPPED)


def await_cuts(stack: Stack, more: int = 1) -> None:
    """Wait until every partition has so many more cuts."""
    wanted = {partition: number + more for partition, number in cuts(stack).items()}

    def made() -> bool:
        found = cuts(stack)
        return all(found[partition] >= count for partition, count in wanted.items())

    await_until("more cuts", made)


def cuts(stack: Stack) -> dict[int, int]:
    """Number of the last committed cut of each partition; asked again where a broker is just going."""
    found: dict[int, int] = {}

    def read() -> bool:
        consumer = stack.client.reader()
        try:
            for partition in range(PARTITIONS):
                last = journal.last_entry(consumer, topics.JOURNAL.name, partition)
                found[partition] = last[0].number if last else 0
        except KafkaUnavailable:
            return False
        finally:
            consumer.close()
        return True

    await_until("the journal", read)
    return found


# Workers


def static(name: str) -> dict[str, str]:
    """Settings of a static member: it is back at once, where another waits for a dead one's session."""
    return {"OPPORTUNE_WORKER_ID": name, "OPPORTUNE_WEB_PORT": str(free_port())}


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def terminate(stack: Stack, *children: subprocess.Popen[bytes]) -> None:
    """Tell workers to stop, and see that they drain."""
    for child in children:
        await_said(stack, child, "worker_started")
        child.terminate()
    for child in children:
        assert await_end(stack, child, 60) == 0, stack.log(child)[-3000:]


@dataclass
class Keeper:
    """A supervisor: starts a decider anew whenever it has ended, until the `with` ends."""

    stack: Stack
    environment: dict[str, str] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)  # exit statuses

    def __enter__(self) -> Keeper:
        """Start the worker."""
        self.worker = self.stack.start_worker(**self.environment)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the worker running, and keep it no more."""
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(0.2):
            if (status := self.worker.poll()) is not None:
                self.ended.append(status)
                self.worker = self.stack.start_worker(**self.environment)


def changed(event: Produced, **fields: object) -> Produced:
    """An event with other fields; `recipient_id` is its key too."""
    key = str(fields.get("recipient_id", event.key))
    return replace(event, key=key, fields=event.fields | fields)


def said(stack: Stack, child: subprocess.Popen[bytes], event: str) -> list[dict[str, object]]:
    """What a worker has logged under a name."""
    lines = [line[line.index("{") :] for line in stack.log(child).splitlines() if f'"{event}"' in line]
    return [found for found in map(json.loads, lines) if found.get("event") == event]
