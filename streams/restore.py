"""The tables rebuilt from the topics, by the recorder's own rows and inserts."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from sinks.clickhouse import migrate
from sinks.clickhouse.client import ClickHouse, ClickHouseUnavailable
from streams import reading
from streams.engine.kafka import Client, KafkaUnavailable
from streams.reading import Part
from streams.recording.batch import Batch
from streams.recording.figures import Figures
from streams.recording.identity import topic_ids
from streams.recording.landing import Landing
from streams.recording.names import SegmentNames
from streams.recording.recorder import GROUP, MOST_BYTES, MOST_RECORDS
from streams.recording.rows import RECORDED, TABLES
from streams.warehouse import Warehouse

_TIMEOUT_S: Final = 30.0
# Pauses double from half a second on: this is the fifth.
_PATIENCE_S: Final = 8.0
# Compaction has left little of it on its topic: the last row of each recipient, and in it two days.
_KEPT: Final = ("activity",)

OnRecords = Callable[[int], object]


class RecorderRuns(RuntimeError):
    """A recorder is a member of the group. Stop it first: it would go on from positions that are no more."""


class WouldLose(RuntimeError):
    """The tables hold records that the topics do not, or no longer."""


@dataclass(frozen=True)
class Restored:
    """How many records were read, and how many of them became no row: those are dead letters already."""

    records: int
    unrecorded: int


class Restore:
    """One restore: what is to be read is fixed when this is made.

    Raises
    ------
    RecorderRuns
        See there.
    KafkaUnavailable
        Kafka did not answer.
    """

    def __init__(self, client: Client, house: Warehouse, names: SegmentNames) -> None:
        _refuse_members(client)
        self._client, self._house, self._names = client, house, names
        self._consumer = client.reader()
        self.parts: Sequence[Part] = [
            part for topic in RECORDED for part in reading.parts(self._consumer, topic.name)
        ]
        self._topic_ids = topic_ids(client, [topic.name for topic in RECORDED])

    @property
    def offsets(self) -> int:
        """Offsets that will be passed over; some hold no record."""
        return sum(part.high - part.low for part in self.parts)

    def refuse_loss(self) -> None:
        """Raise `WouldLose` if the tables hold what the topics do not, or as `ClickHouse` says."""
        connection = self._house.connect()
        try:
            there = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM system.tables WHERE database = %(stored)s",
                    {"stored": self._house.stored},
                )
            }
            for topic, tables in TABLES.items():
                for table in tables:
                    if table in there:
                        self._compare(connection, topic, table)
        finally:
            connection.close()

    def _compare(self, connection: ClickHouse, topic: str, table: str) -> None:
        """Look for rows of what stands in no partition: retention deleted it, or the topic was made anew."""
        spans = {part.partition: part for part in self.parts if part.topic == topic}
        within = " OR ".join(
            f"(partition = {part.partition} AND offset >= {part.low} AND offset < {part.high})"
            for part in spans.values()
        )
        found = connection.execute(
            f"SELECT partition, count() FROM {self._house.stored}.{table} FINAL "  # noqa: S608 - names of ours
            f"WHERE topic = %(topic)s AND NOT ({within}) GROUP BY partition ORDER BY partition "
            "SETTINGS do_not_merge_across_partitions_select_final = 1",
            {"topic": topic},
        )
        if found:
            partition, count = found[0]
            part = spans.get(partition)
            has = "there is no such partition" if part is None else f"it has {part.low:,} up to {part.high:,}"
            raise WouldLose(
                f"{table} has {count:,} rows of records that {topic}/{partition} no longer has ({has}): a "
                "restore would lose them. Restore from a backup, or accept the loss by dropping the database "
                f"{self._house.stored} yourself first"
            )

    def run(self, on_records: OnRecords = lambda count: None) -> Restored:
        """Drop the tables, make them anew and fill them; `run record` goes on from there.

        `activity` is filled up and not dropped.

        The group's positions go back to the beginning before anything is dropped: after a crash in between,
        a recorder fills what is missing.

        Raises
        ------
        EverythingRefused, NewerRow, ClickHouseError, KafkaUnavailable
            It could not be finished; run it again.
        """
        self._position([(part, part.low) for part in self.parts])
        connection = self._house.connect()
        try:
            migrate.drop(connection, self._house.views, _KEPT)
            migrate.migrate(connection, self._house.views)
        finally:
            connection.close()
        restored = self._fill(on_records)
        self._position([(part, part.high) for part in self.parts])
        return restored

    def _fill(self, on_records: OnRecords) -> Restored:
        landing = Landing(self._house.connect, self._house.stored, self._names, Figures(), _wait)
        records = unrecorded = 0
        try:
            for part in self.parts:
                for batch in _batches(self._consumer, part, self._topic_ids[part.topic]):
                    unrecorded += len(landing.land(batch))
                    records += len(batch.messages)
                    on_records(len(batch.messages))
        finally:
            landing.close()
        return Restored(records, unrecorded)

    def _position(self, places: Sequence[tuple[Part, int]]) -> None:
        consumer = Consumer(self._client.config(group_id=GROUP, enable_auto_commit=False))
        try:
            consumer.commit(
                offsets=[TopicPartition(part.topic, part.partition, offset) for part, offset in places],
                asynchronous=False,
            )
        except KafkaException as error:
            raise KafkaUnavailable(f"setting the positions of {GROUP}: {error}") from error
        finally:
            consumer.close()


def _wait(seconds: float) -> None:
    if seconds > _PATIENCE_S:
        raise ClickHouseUnavailable(
            "ClickHouse takes no rows any more; mend it, then run `restore-audit` again"
        )
    time.sleep(seconds)


def _batches(consumer: Consumer, part: Part, topic_id: str) -> Iterator[Batch]:
    messages: list[Message] = []
    size = 0
    for message in reading.messages(consumer, part):
        messages.append(message)
        size += len(message)
        if len(messages) == MOST_RECORDS or size >= MOST_BYTES:
            yield Batch(part.topic, topic_id, part.partition, messages)
            messages, size = [], 0
    if messages:
        yield Batch(part.topic, topic_id, part.partition, messages)


def _refuse_members(client: Client) -> None:
    admin = AdminClient(client.config())
    try:
        found = admin.describe_consumer_groups([GROUP], request_timeout=_TIMEOUT_S)[GROUP].result()
    except KafkaException as error:
        raise KafkaUnavailable(f"asking who is in {GROUP}: {error}") from error
    if found.members:
        raise RecorderRuns(
            f"{len(found.members)} recorders are members of {GROUP}: stop them first (SIGTERM; one that was "
            "killed stays a member until its session has timed out)"
        )
