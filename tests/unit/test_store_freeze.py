"""A frozen slab reads as it was, whatever is written meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import store
from streams.engine.store import NEVER, Frozen, SlabStore

ROW = np.dtype([("n", "<i8"), ("text", "S4")])
KEYS = [f"key-{n}".encode() for n in range(30)]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CHUNK_BITS", 3)
    monkeypatch.setattr(store, "_CHUNK_ROWS", 8)
    monkeypatch.setattr(store, "_FROZEN_ROWS", 4)


def _put(into: SlabStore, keys: list[bytes], number: int) -> None:
    rows = np.array([(number + i, b"x") for i in range(len(keys))], ROW)
    into.put_many(keys, rows, np.full(len(keys), NEVER))


def _rows(parts: Any) -> dict[bytes, int]:
    return {key: int(row["n"]) for keys, rows in parts for key, row in zip(keys, rows, strict=True)}


def _now(slab: SlabStore) -> dict[bytes, int]:
    return _rows((keys, rows) for _, keys, rows in slab.batches())


def _step(slab: SlabStore, step: tuple[list[bytes], int | None]) -> None:
    keys, number = step
    if number is None:
        slab.delete_many(keys)
    else:
        _put(slab, keys, number)


STEPS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(KEYS), unique=True, max_size=12), st.one_of(st.none(), st.integers(0, 10**6))
    ),
    max_size=12,
)


@given(STEPS, STEPS, st.data())
def test_it_reads_as_it_was_and_the_slab_as_it_is(before: Any, after: Any, data: st.DataObject) -> None:
    slab, plain = SlabStore(ROW), SlabStore(ROW)
    for step in before:
        _step(slab, step)
        _step(plain, step)
    expected = _now(slab)
    frozen = slab.freeze()
    assert len(frozen) == len(expected)
    read: list[tuple[list[bytes], np.ndarray]] = []
    parts = frozen.parts()
    for step in after:
        for _ in range(data.draw(st.integers(0, 2))):
            read += [part for part in [next(parts, None)] if part is not None]
        _step(slab, step)
        _step(plain, step)
    read += parts
    assert _rows(read) == expected
    assert _now(slab) == _now(plain)
    frozen.release()
    slab.freeze()


def test_only_one_may_be_taken_at_a_time() -> None:
    slab = SlabStore(ROW)
    frozen: Frozen = slab.freeze()
    with pytest.raises(RuntimeError, match="frozen already"):
        slab.freeze()
    frozen.release()
    slab.freeze()


def test_rows_appended_from_a_snapshot_are_found_written_and_deleted_like_others() -> None:
    slab, plain = SlabStore(ROW), SlabStore(ROW)
    for keys in (KEYS[:3], KEYS[3:11], KEYS[11:12], KEYS[12:16], KEYS[16:30]):
        rows = np.array([(KEYS.index(key), b"x") for key in keys], ROW)

        def fill(place: np.ndarray, rows: np.ndarray = rows) -> None:
            place[:] = rows

        slab.append(keys, fill)
        plain.put_many(keys, rows, np.full(len(keys), NEVER))
    assert _now(slab) == _now(plain) == {key: n for n, key in enumerate(KEYS)}
    assert slab.next_due() == NEVER
    _put(slab, KEYS[5:20], 100)
    slab.delete_many(KEYS[:2])
    assert len(slab) == 28
    assert slab.gather(slab.find([KEYS[6]]))["n"] == 101
