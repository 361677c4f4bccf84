"""The rig: one broker, one backlog, and programs that are measured from outside, one after the other.

Every program is a child process in a consumer group of its own, and reads the same bytes. What it has done is
what its group has committed, asked for ten times a second: no program is trusted to count itself. Events are
counted between two commits, the first of the last half of a run and its last one, so that it does not matter
how often a program commits. A run ends before half of the partitions are dry.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.progress import Committed
from benchmarks.results import Run
from infra.embedded import KafkaServer
from schemas.settings import Settings
from schemas.topics import Topic
from streams.engine.kafka import Client, bounds, read_all

PARTITIONS: Final = 12
ROOT: Final = Path(__file__).parents[1]
_ASK_EVERY_S: Final = 0.1
_START_S: Final = 90.0
_STOP_S: Final = 20.0
_TIMEOUT_S: Final = 30.0
_Peer = TypeVar("_Peer")

# Events done so far, by partition.
Progress = Callable[[], Sequence[int]]


class PeerFailed(RuntimeError):
    """A measured program ended, or did nothing for too long; the end of its log is in the message."""


@dataclass(frozen=True)
class Launch:
    """How a program is started: its command line, what it needs in its environment, and its changelogs.

    `group` is the consumer group in which it commits. `changelogs` are topics, looked at after the run.
    """

    command: Sequence[str]
    group: str
    changelogs: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Bench:
    """A broker of its own in a temporary folder."""

    folder: Path
    settings: Settings
    client: Client
    admin: AdminClient
    broker: psutil.Process
    started: int = 0

    def create(self, topics: Iterable[Topic]) -> None:
        """Make topics as they are in production; one that exists is deleted and made anew."""
        wanted = {topic.name: topic for topic in topics}
        deadline = time.monotonic() + _TIMEOUT_S
        old = [*wanted.keys() & set(self.admin.list_topics(timeout=_TIMEOUT_S).topics)]
        if old:
            for deleted in self.admin.delete_topics(old).values():
                deleted.result()
            _await(lambda: not any(self._partitions(name) for name in old), deadline)
        asked = [
            NewTopic(topic.name, topic.partitions or PARTITIONS, 1, config=topic.config())
            for topic in wanted.values()
        ]
        for created in self.admin.create_topics(asked, operation_timeout=_TIMEOUT_S).values():
            created.result()
        _await(lambda: all(self._partitions(name) for name in wanted), deadline)

    def _partitions(self, name: str) -> int:
        """How many partitions a topic has; 0 as long as it is not there, or one has no leader."""
        found = self.admin.list_topics(name, timeout=_TIMEOUT_S).topics[name].partitions
        return len(found) if all(part.leader >= 0 for part in found.values()) else 0

    def load(self, topic: str, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Produce keys and values as Java's producers would place them; lz4, in large batches."""
        producer = Producer(
            self.client.config(
                partitioner="murmur2_random",
                compression_type="lz4",
                linger_ms=20,
                batch_size=262_144,
                queue_buffering_max_messages=400_000,
                acks="1",
                delivery_report_only_error=True,
            )
        )
        failed: list[Any] = []

        def report(error: KafkaError | None, _: Any) -> None:
            failed.append(error)

        for number, (key, value) in enumerate(records):
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=report)
                    break
                except BufferError:
                    producer.poll(0.05)
            if number & 0x3FFF == 0:
                producer.poll(0)
        producer.flush(_TIMEOUT_S)
        if failed:
            raise KafkaException(failed[0])

    def ends(self, topic: str) -> list[int]:
        """Stable end of every partition; transaction markers are counted."""
        consumer = self.client.reader()
        try:
            partitions = len(consumer.list_topics(topic, _TIMEOUT_S).topics[topic].partitions)
            return [bounds(consumer, topic, partition)[1] for partition in range(partitions)]
        finally:
            consumer.close()

    def committed(self, group: str, topic: str) -> Progress:
        """What a group has committed of a topic that begins at offset 0 and holds no transactions."""
        return Committed(self.client, group, [topic], PARTITIONS)

    def latest(self, changelog: str, partition: int) -> dict[bytes, bytes]:
        """Last committed value of every key in one partition of a changelog."""
        consumer = self.client.reader()
        try:
            found: dict[bytes, bytes] = {}
            for record in read_all(consumer, changelog, partition):
                if record.value is None:
                    found.pop(record.key or b"", None)
                else:
                    found[record.key or b""] = record.value
            return found
        finally:
            consumer.close()

    def start(self, launch: Launch) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a program; its log is a file in the folder. `stop` ends it."""
        self.started += 1
        log = self.folder / f"{self.started}-{launch.group}.log"
        with log.open("wb") as out:
            child = subprocess.Popen(  # noqa: S603 - our own command line
                list(launch.command),
                cwd=ROOT,
                env={**os.environ, "BENCH_BROKERS": self.client.brokers, **launch.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return child, log

    def measure(
        self, launch: Launch, progress: Progress, ends: Sequence[int], seconds: float, note: str = ""
    ) -> Run:
        """Run a program on a backlog for so many seconds after its first commit.

        It ends before that where half of the partitions are dry.

        Raises
        ------
        PeerFailed
            It ended by itself, or committed nothing in time.
        """
        child, log = self.start(launch)
        try:
            run = self._watch(child, log, progress, ends, seconds)
        finally:
            stop(child)
        run.note = note
        if launch.changelogs:
            written = sum(sum(self.ends(topic)) for topic in launch.changelogs)
            run.changelog_per_event = written / max(1, sum(progress()))
        return run

    def _watch(
        self,
        child: subprocess.Popen[bytes],
        log: Path,
        progress: Progress,
        ends: Sequence[int],
        seconds: float,
    ) -> Run:
        peer = psutil.Process(child.pid)
        began = time.monotonic()
        steps: list[_Step] = []  # whenever a commit has moved the group on
        while True:
            done = progress()
            now = time.monotonic()
            if sum(done) > (steps[-1].done if steps else 0):
                steps.append(_Step(now, sum(done), _cpu(peer), _cpu(self.broker), _busy()))
            since = steps[-1].at if steps else began
            if child.poll() is not None or now - since > _START_S:
                how = "did nothing" if child.poll() is None else f"ended with {child.poll()}"
                raise PeerFailed(f"{log.name}: {how}\n{log.read_text(errors='replace')[-4000:]}")
            dry = sum(here >= end for here, end in zip(done, ends, strict=True))
            if len(steps) > 2 and (dry >= len(ends) / 2 or now - steps[0].at > seconds):
                return _run(steps, began)
            time.sleep(_ASK_EVERY_S)


@dataclass(frozen=True)
class _Step:
    at: float
    done: int
    peer_cpu: float
    broker_cpu: float
    busy: float


def _run(steps: Sequence[_Step], began: float) -> Run:
    last = steps[-1]
    middle = (steps[0].at + last.at) / 2
    first = next(step for step in steps if step.at >= middle)
    if first is last:
        first = steps[-2]
    events, took = last.done - first.done, last.at - first.at
    peer, broker = last.peer_cpu - first.peer_cpu, last.broker_cpu - first.broker_cpu
    return Run(
        events_per_s=events / took,
        events=last.done,
        measured_events=events,
        measured_s=took,
        started_s=steps[0].at - began,
        peer_cpu_us=peer / events * 1e6,
        broker_cpu_us=broker / events * 1e6,
        other_cores=max(0.0, last.busy - first.busy - peer - broker) / took,
    )


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and its children."""
    total = 0.0
    try:
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
    except psutil.NoSuchProcess:
        return total
    return total


def _busy() -> float:
    """CPU seconds of the whole machine since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _await(true: Callable[[], bool], deadline: float) -> None:
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the broker did not get there in time")
        time.sleep(0.05)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a program that `Bench.start` started: asked to, then killed."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def running() -> Iterator[Bench]:
    """A fresh broker in a temporary folder, gone with everything on it at the end, SIGTERM included."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="opportune-bench-")))
        settings = Settings(state_dir=folder, partitions=PARTITIONS)
        server = KafkaServer(folder, settings.cache_dir / "jars")
        ending.callback(server.down)
        endpoint = server.up()
        settings = settings.model_copy(update={"brokers": str(endpoint)})
        client = Client.of(settings, str(endpoint))
        pid = server.status().pid
        if pid is None:
            raise RuntimeError("the broker has just ended")
        yield Bench(folder, settings, client, AdminClient(client.config()), psutil.Process(pid))


def rotated(peers: Sequence[_Peer], number: int) -> list[_Peer]:
    """Order of peers in one round: each round begins with another one."""
    at = number % len(peers)
    return [*peers[at:], *peers[:at]]
