"""Intake of several cuts in one call: what becomes of a record follows from its own cut alone."""

from __future__ import annotations

from collections.abc import Mapping

from schemas import codec, topics
from streams.agents import intake
from streams.engine.batch import Batch
from streams.engine.control import Control
from streams.engine.cut import Cut
from streams.engine.kafka import Record

CLICKS = topics.CLICKS.name
NOW = 1_700_000_000_000
GOOD = codec.encode(
    CLICKS, {"recipient_id": "ann", "occurred_at": NOW, "kind": "view", "event_id": "e-1", "product": None}
)
_UNION = codec.HEADER_BYTES + 1 + len("ann")  # where the record says whether it has an event id
# To a block this is a record; decoded alone it is none.
LAX = GOOD[:_UNION] + b"\x46" + GOOD[_UNION + 1 :]
TRUNCATED = GOOD[:-3]


def _cut(partition: int, *values: bytes) -> Cut:
    records = [Record(offset, NOW, b"ann", value, ()) for offset, value in enumerate(values)]
    nexts: Mapping[str, int] = {topic.name: 0 for topic in topics.SOURCES} | {CLICKS: len(values)}
    taken = {CLICKS: Batch.of(records)}
    return Cut(partition, 1, NOW, NOW, Control(), 0, None, False, taken, nexts)


def _dead(cuts: list[Cut], number: int) -> list[int]:
    """Offsets of a cut's dead letters."""
    taken = intake.take(cuts)
    return [int(taken.records.offsets[i]) for i in sorted(taken.dead) if taken.cut[i] == number]


def test_a_bad_record_of_another_partition_changes_no_fate() -> None:
    lax, broken = _cut(0, GOOD, LAX, GOOD), _cut(1, GOOD, TRUNCATED)
    assert _dead([lax, broken], 0) == _dead([lax], 0)
    assert _dead([lax, broken], 1) == _dead([broken], 0) == [1]
    assert _dead([broken, lax], 1) == _dead([lax], 0)


def test_only_the_cut_with_a_bad_record_is_decoded_one_by_one() -> None:
    taken = intake.take([_cut(3, GOOD, LAX), _cut(5, TRUNCATED, GOOD), _cut(7, GOOD)])
    assert taken.cut.tolist() == [0, 0, 1, 1, 2]
    assert taken.partition.tolist() == [3, 3, 5, 5, 7]
    assert [taken.at[i] for i in (0, 1, 3, 4)] == [NOW] * 4
    assert [*taken.dead] == [2]
