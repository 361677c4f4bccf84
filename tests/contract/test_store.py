"""The contract of a store; every implementation passes it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.engine import store
from streams.engine.rocks import RocksStore
from streams.engine.store import NEVER, UNKNOWN, SlabStore, Store

ROW = np.dtype([("n", "<i8"), ("text", "S4")])


def rocks(folder: Path) -> RocksStore:
    """A store on disk of which the even rows are live; committed once, so that it gathers what is written."""
    made = RocksStore(folder, ROW, lambda rows: rows["n"] % 2 == 0, "mine", lambda: 7)
    made.committed(0)
    return made


@contextmanager
def _on_disk() -> Iterator[Store]:
    folder = Path(tempfile.mkdtemp())
    made = rocks(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


@contextmanager
def _in_memory() -> Iterator[Store]:
    yield SlabStore(ROW)


STORES: dict[str, Callable[[], Any]] = {"slab": _in_memory, "rocks": _on_disk}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CHUNK_BITS", 2)
    monkeypatch.setattr(store, "_CHUNK_ROWS", 4)


@pytest.fixture(params=STORES)
def empty(request: pytest.FixtureRequest) -> Iterator[Store]:
    with STORES[request.param]() as made:
        yield made


def rows(*numbers: int) -> np.ndarray:
    return np.array([(number, b"x") for number in numbers], ROW)


def put(into: Store, names: str, *numbers: int, due: int = 5) -> None:
    into.put_many([name.encode() for name in names], rows(*numbers), np.full(len(names), due))


def test_what_was_put_is_gathered_in_the_order_asked_for(empty: Store) -> None:
    put(empty, "abcdefghij", *range(10))
    slots = empty.find([b"j", b"a", b"z", b"e"])
    assert slots[2] == UNKNOWN
    known = slots[[0, 1, 3]]
    assert empty.gather(known)["n"].tolist() == [9, 0, 4]
    assert empty.keys_at(known) == [b"j", b"a", b"e"]
    assert len(empty) == 10


def test_gathered_rows_are_copies(empty: Store) -> None:
    put(empty, "a", 1)
    got = empty.gather(empty.find([b"a"]))
    got["n"] = 99
    assert empty.gather(empty.find([b"a"]))["n"] == 1


@pytest.mark.parametrize("commits", [False, True])
def test_a_deleted_key_is_unknown_and_what_comes_after_it_has_nothing_of_it(
    empty: Store, commits: bool
) -> None:
    put(empty, "ab", 1, 2)
    if commits:
        empty.committed(1)
    slot = empty.find([b"a"])
    empty.delete_many([b"a", b"never", b"a"])
    assert empty.find([b"a"])[0] == UNKNOWN
    assert len(empty) == 1
    with pytest.raises(KeyError):
        empty.keys_at(slot)
    put(empty, "c", 3)
    assert empty.gather(empty.find([b"c"]))["n"] == 3
    assert sum(len(keys) for _, keys, _ in empty.batches()) == 2
    put(empty, "a", 4)
    assert empty.keys_at(empty.find([b"a", b"c"])) == [b"a", b"c"]


def test_rows_are_due_from_their_time_on(empty: Store) -> None:
    put(empty, "abcdef", *range(6), due=10)
    empty.set_due(empty.find([b"c"]), np.array([3]))
    assert empty.next_due() == 3
    assert empty.keys_at(empty.due(9)) == [b"c"]
    assert [len(set(empty.due(10, most).tolist())) for most in (0, 4, 9)] == [0, 4, 6]
    empty.delete_many([b"c"])
    assert empty.next_due() == 10
    assert len(empty.due(9)) == 0
    assert len(empty.due(10)) == 5
    assert len(set(empty.due(10, 3))) == 3, "so many at a time"


def test_an_empty_store_is_never_due(empty: Store) -> None:
    assert empty.next_due() == NEVER
    assert len(empty.due(2**60)) == 0
    assert list(empty.batches()) == []
    assert empty.find([]).tolist() == []
    assert len(empty.gather(empty.find([]))) == 0


def test_the_due_times_of_live_rows_may_be_set_while_they_are_gone_through(empty: Store) -> None:
    put(empty, "abcdefgh", *range(8))
    empty.committed(1)
    put(empty, "ij", 8, 9)
    seen = []
    for slots, keys, _ in empty.live():
        seen += keys
        empty.set_due(slots, np.full(len(slots), 1))
    assert len(seen) == len(set(seen))
    assert set(seen) >= {b"a", b"c", b"e", b"g", b"i"}
    assert set(empty.keys_at(empty.due(1))) == set(seen)


NAMES = [f"key-{n}".encode() for n in range(12)]
DUE = st.one_of(st.just(NEVER), st.integers(0, 50))


class Model(RuleBasedStateMachine):
    """A store beside a dict of what it should hold: number and due time by key."""

    make: Callable[[], Any]

    @initialize()
    def begin(self) -> None:
        self.opened = type(self).make()
        self.store: Store = self.opened.__enter__()
        self.plain: dict[bytes, tuple[int, int]] = {}
        self.cuts = 0

    def teardown(self) -> None:
        if hasattr(self, "opened"):
            self.opened.__exit__(None, None, None)

    @rule(what=st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 99), DUE)))
    def put(self, what: dict[bytes, tuple[int, int]]) -> None:
        numbers, dues = [n for n, _ in what.values()], [due for _, due in what.values()]
        self.store.put_many(list(what), rows(*numbers), np.array(dues, np.int64))
        self.plain |= what

    @rule(keys=st.lists(st.sampled_from(NAMES)))
    def delete(self, keys: list[bytes]) -> None:
        self.store.delete_many(keys)
        for key in keys:
            self.plain.pop(key, None)

    @rule(keys=st.sets(st.sampled_from(NAMES)), due=DUE)
    def postpone(self, keys: set[bytes], due: int) -> None:
        known = sorted(keys & self.plain.keys())
        self.store.set_due(self.store.find(known), np.full(len(known), due))
        self.plain |= {key: (self.plain[key][0], due) for key in known}

    @rule()
    def commit(self) -> None:
        self.cuts += 1
        self.store.committed(self.cuts)

    @invariant()
    def it_holds_what_it_should(self) -> None:
        if not hasattr(self, "store"):
            return
        found = {
            key: int(row["n"])
            for _, keys, some in self.store.batches()
            for key, row in zip(keys, some, strict=True)
        }
        assert found == {key: number for key, (number, _) in self.plain.items()}
        assert len(self.store) == len(self.plain)
        slots = self.store.find(NAMES)
        assert [slot == UNKNOWN for slot in slots] == [name not in self.plain for name in NAMES]
        known = slots[slots != UNKNOWN]
        assert self.store.keys_at(known) == [name for name in NAMES if name in self.plain]
        dues = sorted(due for _, due in self.plain.values())
        assert self.store.next_due() == min(dues, default=NEVER)
        for now in (0, 25, 50):
            due = {key for key, (_, at) in self.plain.items() if at <= now}
            assert set(self.store.keys_at(self.store.due(now))) == due


class SlabModel(Model):
    make = staticmethod(_in_memory)


class RocksModel(Model):
    make = staticmethod(_on_disk)


TestSlab = SlabModel.TestCase
TestRocks = RocksModel.TestCase
TestSlab.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRocks.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
