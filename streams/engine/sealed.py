"""Sealed replay: the stored journal is the plan, and nothing is produced or joined."""

from collections.abc import Iterator

from confluent_kafka import Consumer

from streams.engine.batch import Batch
from streams.engine.control import ControlReader
from streams.engine.cut import Cut, Handled
from streams.engine.journal import Entry
from streams.engine.kafka import Record, bounds, read_all
from streams.engine.line import Spec
from streams.engine.store import Store


class NotReplayable(RuntimeError):
    """The journal or a source topic no longer holds the beginning, and there is no snapshot to start from."""


def cuts(spec: Spec, partition: int) -> Iterator[tuple[Cut, Entry]]:
    """Make the cuts of one partition's journal again, each with the entry that the live line wrote.

    Raises `NotReplayable` if retention has taken the first cut or the records of any.
    """
    consumer = spec.client.reader()
    control = ControlReader(spec.client)
    try:
        before: Entry | None = None
        sources = {topic: _Source(consumer, topic, partition) for topic in spec.sources}
        for entry in _entries(spec.client.reader(), spec.journal, partition):
            if before is None and entry.number != 1:
                raise NotReplayable(
                    f"the journal of partition {partition} begins at cut {entry.number}, not at 1: "
                    "retention took what was before; only what Kafka holds from the beginning can be verified"
                )
            nexts = entry.next_offsets()
            records = {topic: sources[topic].until(nexts[topic]) for topic in spec.sources}
            yield _cut(entry, before, control, records), entry
            before = entry
    finally:
        control.close()
        consumer.close()


def replay(spec: Spec, partition: int) -> Iterator[tuple[Cut, Entry, Handled, Store]]:
    """Handle the cuts of one partition again, from nothing; rows are those after the cut."""
    store = spec.new_store()
    control_version = 0
    for cut, entry in cuts(spec, partition):
        if cut.control.version != control_version:
            control_version = cut.control.version
            for slots, keys, rows in store.batches():
                store.set_due(slots, spec.handler.due_at(keys, rows, cut.before, cut.control))
        [handled] = spec.handler.handle([(cut, store)])
        handled.apply(store)
        yield cut, entry, handled, store


def _cut(entry: Entry, before: Entry | None, control: ControlReader, records: dict[str, Batch]) -> Cut:
    return Cut(
        entry.partition,
        entry.number,
        entry.now,
        before.now if before else entry.now,
        control.at(entry.control_version),
        entry.plan_offset,
        entry.plan_id,
        entry.history,
        records,
        entry.next_offsets(),
    )


def _entries(consumer: Consumer, journal: str, partition: int) -> Iterator[Entry]:
    try:
        for record in read_all(consumer, journal, partition):
            yield Entry.decode(journal, record.value or b"")
    finally:
        consumer.close()


class _Source:
    """One topic's records, handed out up to an offset. Held in memory: sealed replay is for stretches."""

    def __init__(self, consumer: Consumer, topic: str, partition: int) -> None:
        low, _ = bounds(consumer, topic, partition)
        if low > 0:
            raise NotReplayable(
                f"{topic}/{partition} begins at offset {low}: retention took what came before"
            )
        self._records: list[Record] = list(read_all(consumer, topic, partition))
        self._place = 0

    def until(self, offset: int) -> Batch:
        begin = self._place
        while self._place < len(self._records) and self._records[self._place].offset < offset:
            self._place += 1
        return Batch.of(self._records[begin : self._place])
