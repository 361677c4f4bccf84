"""The journal's cuts handled again, sealed, and held to what was written when they were live."""

from collections.abc import Iterator

from schemas import codec, topics
from streams.engine import sealed
from streams.engine.kafka import Record, read_all
from streams.engine.line import Spec
from streams.engine.sealed import NotReplayable
from streams.engine.store import Store

_WITNESSES = (topics.AUDIT.name, topics.DEAD_LETTERS.name)
_SOURCES = {topic.name for topic in topics.SOURCES}


def differences(spec: Spec, partition: int) -> Iterator[str]:
    """Say everything in which a sealed replay of one partition differs from what the live line wrote.

    Raises `NotReplayable` if retention has taken the beginning, or a cut was made under another policy.
    """
    consumer = spec.client.reader()
    written = {
        topic: iter([record for record in read_all(consumer, topic, partition) if _of_decide(topic, record)])
        for topic in _WITNESSES
    }
    store: Store | None = None
    for cut, entry, handled, rows in sealed.replay(spec, partition):
        store = rows
        policy = spec.handler.policy(cut.control)
        if entry.policy != policy:
            raise NotReplayable(
                f"cut {cut.number} of partition {partition} was made under policy {entry.policy}, "
                f"this is {policy}: set policy_dir to the one of then"
            )
        for topic in _WITNESSES:
            for out in handled.outputs:
                if out.topic == topic and not _same(next(written[topic], None), out.key, out.value):
                    yield f"partition {partition}, cut {cut.number}: a record of {topic} differs"
        if handled.tallies != entry.topics or not entry.agrees(len(rows)):
            yield f"partition {partition}, cut {cut.number}: the journal counts otherwise"
    for topic in _WITNESSES:
        if next(written[topic], None) is not None:
            yield f"partition {partition}: {topic} holds records that no cut gives"
    yield from _rows(spec, partition, store)
    consumer.close()


def _of_decide(topic: str, record: Record) -> bool:
    """Whether DECIDE wrote it: DELIVER and RECORD write to the same topics."""
    fields = codec.decode(topic, record.value or b"")
    if topic == topics.AUDIT.name:
        return bool(fields["line"] == "decide")
    return fields["topic"] in _SOURCES


def _same(record: Record | None, key: bytes | None, value: bytes | None) -> bool:
    return record is not None and record.key == key and record.value == value


def _rows(spec: Spec, partition: int, store: Store | None) -> Iterator[str]:
    """Compare the rows at the end with the changelog's latest."""
    consumer = spec.client.reader()
    latest = {record.key: record.value for record in read_all(consumer, spec.changelog, partition)}
    consumer.close()
    again = {
        key: rows[i].tobytes()
        for _, keys, rows in (store.batches() if store is not None else ())
        for i, key in enumerate(keys)
    }
    for key in sorted(latest.keys() | again.keys(), key=repr):
        if latest.get(key) != again.get(key or b""):
            yield f"partition {partition}: the row of {(key or b'').decode()} differs"
