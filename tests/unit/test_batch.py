"""Records as columns, and the buffer in which they wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.batch import Batch, Buffer
from streams.engine.kafka import Record


def records(count: int, first: int = 0, gap: int = 1) -> list[Record]:
    return [
        Record(first + n * gap, 1000 + n, b"k%d" % n, b"v" * n, (("h", b"%d" % n),) if n % 3 == 2 else ())
        for n in range(count)
    ]


def test_a_batch_is_the_sequence_of_its_records() -> None:
    listed = records(5)
    batch = Batch.of(listed)
    assert [*batch] == listed
    assert [*batch[1:3]] == listed[1:3]


def test_joined_and_picked_batches_keep_each_record_whole() -> None:
    first, second = records(2), records(4, first=10)
    batch = Batch.joined([Batch.of(first), Batch.of(second)])
    assert [*batch] == first + second
    order = batch.offsets.argsort()[::-1]
    assert [*batch.picked(order)] == (first + second)[::-1]


@given(
    st.lists(st.integers(1, 6), max_size=6),
    st.lists(st.one_of(st.integers(0, 9).map(lambda n: (n, None)), st.integers(0, 90).map(lambda n: (0, n)))),
)
def test_a_buffer_gives_every_record_once_and_in_order(
    sizes: list[int], takes: list[tuple[int, int | None]]
) -> None:
    buffer, waiting, first = Buffer(), [], 0
    for size in sizes:
        part = records(size, first, gap=2)  # offsets have gaps where markers stand
        first = part[-1].offset + 3
        buffer.add(Batch.of(part))
        waiting += part
    for most, until in takes:
        found = [*(buffer.take(most) if until is None else buffer.take_until(until))]
        expected = waiting[:most] if until is None else [r for r in waiting if r.offset < until]
        assert found == expected
        waiting = waiting[len(expected) :]
        assert len(buffer) == len(waiting)
        assert buffer.size >= sum(len(r.key or b"") + len(r.value or b"") for r in waiting)
        if waiting:
            assert (buffer.oldest, buffer.end) == (waiting[0].timestamp, waiting[-1].offset + 1)


def test_an_empty_buffer_has_no_end() -> None:
    with pytest.raises(IndexError):
        _ = Buffer().end
