"""Runs of the workers of `tests.support.counting`: topics, records, children, and what came out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from schemas import topics
from streams.engine.journal import Entry
from streams.engine.kafka import read_all
from tests.support.counting import PLAIN, Answer, Fault, Way
from tests.support.cut_worker import ROW
from tests.support.stack import PATIENCE_S, Stack

ROOT: Final = Path(__file__).parents[2]
_POLL_S: Final = 0.1

Side = Literal["plain", "cut"]


@dataclass
class Run:
    """One story on topics of its own, told to a plain Faust worker or to one of our engine."""

    stack: Stack
    name: str
    side: Side
    output_bytes: int = 1 << 20
    outputs_exist: bool = True
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = f"opportune-{self.name}-{self.side}"
        self.source = f"{self.app}.source"
        self.outputs = f"{self.app}.outputs"
        # Faust's name of the changelog of a table `counts`
        self.changelog = f"{self.app}-counts-changelog" if self.side == "plain" else f"{self.app}.rows"
        self.partitions = self.stack.settings.partitions
        self.folder = self.stack.settings.state_dir / self.app
        self.folder.mkdir()
        self._admin = AdminClient(self.stack.client.config())
        self._create(self.source, {"message.timestamp.type": "LogAppendTime"})
        self._create(self.changelog, {"cleanup.policy": "compact"})
        self._empty_journal()
        if self.outputs_exist:
            self.create_outputs()

    # Topics

    def create_outputs(self) -> None:
        self._create(self.outputs, {"max.message.bytes": str(self.output_bytes)})

    def allow_outputs_of(self, size: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.outputs, incremental_configs=[entry])
        for future in self._admin.incremental_alter_configs([resource]).values():
            future.result()

    def _create(self, topic: str, config: dict[str, str]) -> None:
        for future in self._admin.create_topics(
            [NewTopic(topic, self.partitions, 1, config=config)]
        ).values():
            future.result()

    def _empty_journal(self) -> None:
        """Its name tells its schema, so that all runs share it, one after the other."""
        ends = [TopicPartition(topics.JOURNAL.name, p, OFFSET_END) for p in range(self.partitions)]
        deadline = time.monotonic() + PATIENCE_S
        while any(future.exception() is not None for future in self._admin.delete_records(ends).values()):
            assert time.monotonic() < deadline, "the journal has no leader"  # a new topic has none at once
            time.sleep(_POLL_S)

    def produce(self, *kinds: bytes, partition: int = 0) -> None:
        """Produce records of the one key of a partition, and wait until they are there."""
        producer = Producer(self.stack.client.config())
        for kind in kinds:
            producer.produce(self.source, value=kind, key=b"of %d" % partition, partition=partition)
        assert producer.flush(PATIENCE_S) == 0

    def begin_group(self) -> None:
        """Produce a record to each partition, and let the group have handled it.

        What plain Faust fetches of a source while it recovers a table may be lost: it drops it, and seeks to
        the group's offset only where there is one. Where there is one, the record in hand may still be lost.
        Either would hide the hole that a test is about.
        """
        consumer = Consumer(self.stack.client.config(group_id=self.app, enable_auto_commit=False))
        for partition in range(self.partitions):
            self.produce(PLAIN, partition=partition)
        places = [TopicPartition(self.source, partition, 1) for partition in range(self.partitions)]
        consumer.commit(offsets=places, asynchronous=False)
        consumer.close()

    # Workers

    def start(
        self,
        *,
        instance: str = "one",
        way: Way = "each",
        fault: Fault = "",
        commit_s: float = 0.3,
        failpoint: str = "",
    ) -> subprocess.Popen[bytes]:
        """Start a worker; its log is `worker-N.log` in the run's folder."""
        environment = {
            "COUNTING_BROKERS": self.stack.client.brokers,
            "COUNTING_APP": self.app,
            "COUNTING_SOURCE": self.source,
            "COUNTING_OUTPUTS": self.outputs,
            "COUNTING_CHANGELOG": self.changelog,
            "COUNTING_PARTITIONS": str(self.partitions),
            "COUNTING_FOLDER": str(self.folder / instance),
            "COUNTING_INSTANCE": instance,
            "COUNTING_WAY": way,
            "COUNTING_FAULT": fault,
            "COUNTING_COMMIT_S": str(commit_s),
            "OPPORTUNE_FAILPOINT": failpoint and f"{self.app.removeprefix('opportune-')}.{failpoint}",
        }
        with self._log_of(len(self.children)).open("wb") as out:
            child = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", f"tests.support.{self.side}_worker"],
                cwd=ROOT,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.children.append(child)
        self.stack.children.append(child)  # which ends it, should the test fail
        return child

    def succeed(self, way: Way = "each") -> None:
        """Start a worker without fault, let it come to a record that is new by then, and kill it."""
        self.start(way=way)
        if self.side == "plain":  # which may lose what comes while it recovers its table: see `begin_group`
            self.wait_until("a worker", lambda: "Worker ready" in self.log())
        self.produce(PLAIN)
        self.await_answer_to_the_last()
        self.kill()

    def log(self) -> str:
        """What the newest worker has logged."""
        return self._log_of(len(self.children) - 1).read_text()

    def _log_of(self, number: int) -> Path:
        return self.folder / f"worker-{number}.log"

    def kill(self) -> None:
        """SIGKILL every worker."""
        for child in self.children:
            child.kill()
            child.wait()

    def stop(self) -> None:
        """SIGTERM every worker, and wait until it has gone."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            child.wait(PATIENCE_S)

    # Waiting

    def wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE_S / 3
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not in time\n{self.log()[-4000:]}"
            time.sleep(_POLL_S)

    def await_answer_to_the_last(self, partition: int = 0) -> None:
        """Wait until the last record of a partition has an answer."""
        last = self.sources(partition)[-1][0]
        self.wait_until(f"answer to {partition}/{last}", lambda: (partition, last) in self.answered())

    def await_group_at(self, offset: int, partition: int = 0) -> None:
        """Wait until the group's offset of a partition has reached a place."""
        self.wait_until(f"group at {offset}", lambda: (self.group_offset(partition) or 0) >= offset)

    def await_members(self, count: int) -> None:
        """Wait until the group has so many members, and each its partitions."""

        def joined() -> bool:
            (future,) = self._admin.describe_consumer_groups([self.app]).values()
            found = future.result()
            busy = [member for member in found.members if member.assignment.topic_partitions]
            return found.state.name == "STABLE" and len(busy) == count

        self.wait_until(f"{count} members", joined)

    # What came out

    def sources(self, partition: int) -> list[tuple[int, bytes]]:
        """Offset and key of every source record of a partition."""
        consumer = self.stack.client.reader()
        found = [(r.offset, r.key or b"") for r in read_all(consumer, self.source, partition)]
        consumer.close()
        return found

    def answers(self) -> list[Answer]:
        """Every committed answer, in order of its output partition."""
        consumer = self.stack.client.reader()
        found = [
            Answer.decode(record.value or b"")
            for partition in range(self.partitions)
            for record in read_all(consumer, self.outputs, partition)
        ]
        consumer.close()
        return found

    def answered(self) -> set[tuple[int, int]]:
        """Partition and offset of every record that has a committed answer."""
        return {(answer.partition, answer.offset) for answer in self.answers()}

    def lost(self, partition: int = 0) -> list[int]:
        """Offsets of a partition's records that have no answer."""
        answered = self.answered()
        return [offset for offset, _ in self.sources(partition) if (partition, offset) not in answered]

    def group_offset(self, partition: int = 0) -> int | None:
        """The offset that the group has committed; None where there is none."""
        consumer = Consumer(self.stack.client.config(group_id=self.app))
        (place,) = consumer.committed([TopicPartition(self.source, partition)], PATIENCE_S)
        consumer.close()
        return place.offset if place.offset >= 0 else None

    def appended(self, topic: str, partition: int = 0) -> int:
        """The end of a partition, uncommitted records counted in."""
        consumer = Consumer(self.stack.client.config(group_id=self.app, isolation_level="read_uncommitted"))
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), PATIENCE_S, cached=False)
        consumer.close()
        return end

    def journal(self, partition: int) -> list[Entry]:
        """The committed cuts of this run."""
        consumer = self.stack.client.reader()
        name = topics.JOURNAL.name
        found = [Entry.decode(name, r.value or b"") for r in read_all(consumer, name, partition)]
        consumer.close()
        return found

    def rows(self, partition: int) -> dict[bytes, int]:
        """The counts that the changelog holds: of Faust in JSON, of our engine as rows."""
        consumer = self.stack.client.reader()
        found = {
            record.key or b"": self._count(record.value or b"")
            for record in read_all(consumer, self.changelog, partition)
        }
        consumer.close()
        return found

    def _count(self, row: bytes) -> int:
        return int(row) if self.side == "plain" else int(np.frombuffer(row, ROW)["count"][0])

    def assert_exactly_once(self) -> None:
        """Hold answers, rows and journal to what the source topic says."""
        expected, answers = [], self.answers()
        for partition in range(self.partitions):
            counts: Counter[bytes] = Counter()
            for offset, key in self.sources(partition):
                counts[key] += 1
                expected.append(Answer(partition, offset, counts[key]))
            assert self.rows(partition) == counts
            consumed = 0
            for entry in self.journal(partition):
                (tally,) = entry.topics
                consumed += tally.consumed
                assert tally.next_offset == consumed, "no record is in two cuts, and none in no cut"
            assert consumed == sum(counts.values())
        assert sorted(answers) == sorted(expected)


def plain(count: int) -> list[bytes]:
    """As many records without trouble."""
    return [PLAIN] * count
