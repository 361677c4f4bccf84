"""Kafka in memory, as far as a line asks it: logs with markers, readers, and transactions with a fence."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, Message, TopicPartition

from streams.engine.cut import Out
from streams.engine.failpoint import reach
from streams.engine.kafka import Record
from streams.engine.partitioner import partition_of
from streams.engine.transaction import Fenced


class Stored:
    """A record as confluent-kafka's consumer gives it."""

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        self.record = record

    def error(self) -> None: ...

    def offset(self) -> int:
        return self.record.offset

    def key(self) -> bytes | None:
        return self.record.key

    def value(self) -> bytes | None:
        return self.record.value

    def timestamp(self) -> tuple[int, int]:
        return 1, self.record.timestamp

    def headers(self) -> list[tuple[str, bytes]]:
        return list(self.record.headers)


class Log:
    """One partition of a topic."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.end = 0

    def add(self, timestamp: int, key: bytes | None, value: bytes | None) -> None:
        self.records.append(Record(self.end, timestamp, key, value, ()))
        self.end += 1

    def mark(self) -> None:
        """A transaction's marker takes an offset."""
        self.end += 1

    def read(self, start: int, most: int) -> list[Record]:
        first = bisect_left(self.records, start, key=lambda record: record.offset)
        return self.records[first : first + most]

    def compact(self) -> None:
        """Keep the last record of each key."""
        last = {record.key: record for record in self.records}
        self.records = sorted(last.values(), key=lambda record: record.offset)


class MemoryKafka:
    """Every topic of a deployment; also the `Client` of a line."""

    def __init__(self, partitions: int, clock: Callable[[], int]) -> None:
        self.partitions, self._clock = partitions, clock
        self.logs: defaultdict[tuple[str, int], Log] = defaultdict(Log)
        self.epochs: Counter[str] = Counter()  # by transactional id

    def produce(self, outs: Sequence[Out], *, marked: bool = False) -> None:
        """Write records; by a transaction, with its markers."""
        places = set()
        for out in outs:
            number = partition_of(out.key or b"", self.partitions) if out.partition is None else out.partition
            self.logs[out.topic, number].add(self._clock(), out.key, out.value)
            places.add((out.topic, number))
        if marked:
            for place in places:
                self.logs[place].mark()

    def of(self, topic: str) -> Iterator[tuple[int, Record]]:
        """Every record of a topic, with its partition."""
        for number in range(self.partitions):
            for record in self.logs[topic, number].records:
                yield number, record

    def reader(self) -> MemoryReader:
        """See `Client.reader`."""
        return MemoryReader(self)


class MemoryReader:
    """A consumer that reads one partition by hand."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka
        self._log, self._position = Log(), 0

    def get_watermark_offsets(
        self, place: TopicPartition, timeout: float, cached: bool = True
    ) -> tuple[int, int]:
        return 0, self._kafka.logs[place.topic, place.partition].end

    def assign(self, places: Sequence[TopicPartition]) -> None:
        [place] = places
        self._log, self._position = self._kafka.logs[place.topic, place.partition], max(0, place.offset)

    def consume(self, most: int, timeout: float) -> list[Any]:
        found = self._log.read(self._position, most)
        if not found:
            return [Message(offset=self._log.end, error=KafkaError(KafkaError._PARTITION_EOF))]
        self._position = found[-1].offset + 1
        return [Stored(record) for record in found]

    def close(self) -> None: ...


class MemoryTransactions:
    """`Transactions`: all of a cut or nothing, and nothing once another owner has the partition number."""

    def __init__(self, kafka: MemoryKafka, app: str, role: str, partition: int) -> None:
        self._kafka, self._role, self._partition = kafka, role, partition
        self._id = f"{app}-{partition}"
        kafka.epochs[self._id] += 1
        self._epoch = kafka.epochs[self._id]

    def commit(self, outputs: Sequence[Out], changelog: str, rows: Mapping[bytes, bytes | None]) -> None:
        reach(self._role, "after_begin")
        reach(self._role, "mid_produce")
        reach(self._role, "after_produce")
        if self._kafka.epochs[self._id] != self._epoch:
            raise Fenced(f"{self._id} has another owner")
        written = [Out(changelog, key, row, self._partition) for key, row in rows.items()]
        self._kafka.produce([*outputs, *written], marked=True)
