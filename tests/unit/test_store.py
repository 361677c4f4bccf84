"""The contract of a store; every implementation passes it."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import store
from streams.engine.store import NEVER, UNKNOWN, SlabStore, Store

ROW = np.dtype([("n", "<i8"), ("text", "S4")])
STORES: dict[str, Callable[[], Store]] = {"slab": lambda: SlabStore(ROW)}


@pytest.fixture(params=STORES)
def empty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store, "_CHUNK_BITS", 2)
    monkeypatch.setattr(store, "_CHUNK_ROWS", 4)
    return STORES[request.param]()


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


def test_a_deleted_key_is_unknown_and_its_slot_is_used_again_without_its_row(empty: Store) -> None:
    put(empty, "ab", 1, 2)
    slot = empty.find([b"a"])[0]
    empty.delete_many([b"a", b"never"])
    assert empty.find([b"a"])[0] == UNKNOWN
    assert len(empty) == 1
    put(empty, "c", 3)
    assert empty.find([b"c"])[0] == slot
    assert sum(len(keys) for _, keys, _ in empty.batches()) == 2


def test_rows_are_due_from_their_time_on(empty: Store) -> None:
    put(empty, "abcdef", *range(6), due=10)
    empty.set_due(empty.find([b"c"]), np.array([3]))
    assert empty.next_due() == 3
    assert empty.keys_at(empty.due(9)) == [b"c"]
    empty.delete_many([b"c"])
    assert empty.next_due() == 10
    assert len(empty.due(9)) == 0
    assert len(empty.due(10)) == 5


def test_an_empty_store_is_never_due(empty: Store) -> None:
    assert empty.next_due() == NEVER
    assert len(empty.due(2**60)) == 0
    assert list(empty.batches()) == []


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(0, 99))), max_size=60)
)
def test_a_store_is_a_dict(steps: list[tuple[str, int | None]]) -> None:
    for make in STORES.values():
        one, plain = make(), dict[bytes, int]()
        for name, number in steps:
            if number is None:
                one.delete_many([name.encode()])
                plain.pop(name.encode(), None)
            else:
                put(one, name, number)
                plain[name.encode()] = number
        found = {
            key: int(row["n"]) for _, keys, some in one.batches() for key, row in zip(keys, some, strict=True)
        }
        assert found == plain
