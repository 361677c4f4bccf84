from __future__ import annotations

from confluent_kafka import Message

from streams.recording.batch import Batch
from streams.recording.recorder import MOST_BYTES, MOST_RECORDS, Held

PLACE = ("audit.records", 1)
TOPIC_ID = "AAAAAAAAAAEAAAAAAAAAAg"


def _held(offsets: range | list[int], until: int | None = None, value: bytes = b"v") -> Held:
    held = Held(TOPIC_ID, until)
    for offset in offsets:
        held.add(Message(topic=PLACE[0], partition=1, offset=offset, value=value))
    return held


def _taken(held: Held) -> tuple[int, int] | None:
    batch = held.take(*PLACE)
    return None if batch is None else (batch.first, batch.until)


def test_a_batch_is_what_is_held_when_nobody_said_its_end() -> None:
    held = _held([3, 4, 9])
    assert not held.is_full()
    assert _taken(held) == (3, 10)
    assert _taken(held) is None


def test_batches_of_a_topic_made_anew_under_its_name_go_by_other_names() -> None:
    messages = [Message(topic=PLACE[0], partition=1, offset=offset, value=b"v") for offset in (0, 99)]
    one, again, anew = (Batch(PLACE[0], each, 1, messages).origin for each in ("id", "id", "other id"))
    assert one == again
    assert one != anew


def test_a_batch_has_its_most_records_and_the_rest_waits() -> None:
    held = _held(range(MOST_RECORDS + 5))
    assert held.is_full()
    assert _taken(held) == (0, MOST_RECORDS)
    assert _taken(held) == (MOST_RECORDS, MOST_RECORDS + 5)


def test_large_records_make_a_full_batch_of_few() -> None:
    assert _held([1], value=b"v" * MOST_BYTES).is_full()
    assert not _held([1], value=b"v" * (MOST_BYTES - 1)).is_full()


def test_a_batch_whose_end_was_said_waits_for_it_and_ends_there() -> None:
    held = _held([3, 4], until=6)
    assert not held.is_full()
    assert _taken(held) is None
    for offset in (5, 6, 7):
        held.add(Message(topic=PLACE[0], partition=1, offset=offset, value=b"v"))
    assert held.is_full()
    assert _taken(held) == (3, 6)
    assert _taken(held) == (6, 8)


def test_a_said_end_is_reached_by_a_record_behind_it_or_by_the_end_of_the_partition() -> None:
    behind = _held([3, 8], until=6)
    assert _taken(behind) == (3, 4)
    assert _taken(behind) == (8, 9)
    at_end = _held([3], until=6)
    at_end.ended = 6
    assert _taken(at_end) == (3, 4)


def test_a_said_batch_of_which_compaction_left_nothing_is_passed_over() -> None:
    held = _held([8], until=6)
    assert _taken(held) is None
    assert _taken(held) == (8, 9)
