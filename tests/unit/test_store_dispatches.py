"""DELIVER's table on disk: what has ended is only there, and what may go next is known after a restart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from schemas.dispatch import DISPATCH, KEPT_MS, State, empty
from streams.agents.dispatches import DispatchStore, is_live
from streams.engine.rocks import RocksStore
from streams.engine.store import NEVER

NOW = 1_700_000_000_000


def _opened(folder: Path) -> tuple[RocksStore, DispatchStore]:
    folder.mkdir(exist_ok=True)
    rows = RocksStore(folder, DISPATCH, is_live, "mine", lambda: 0)
    return rows, DispatchStore(rows)


def _put(into: DispatchStore, states: dict[str, State], due: int = NEVER) -> None:
    rows = empty(len(states))
    rows["state"], rows["lane"], rows["campaign"] = list(states.values()), b"gmail", b"win_back"
    rows["released_at"] = NOW - np.arange(len(states))
    rows["expires_at"] = [NOW + 999 if name == "d" else NOW + 1000 for name in states]
    into.put_many([name.encode() for name in states], rows, np.full(len(states), due))


def _ready(table: DispatchStore) -> list[str]:
    ready = table.ready("gmail", NOW, lambda *_: False, NOW)
    return [key.decode() for _, key in ready.get("win_back", ())]


STATES = {
    "a": State.WAITING,
    "b": State.CLAIMED,
    "c": State.DELIVERED,
    "d": State.WAITING,
    "e": State.AWAITED,
    "f": State.RECALLED,
}


def test_a_table_opened_again_knows_what_waits_what_is_claimed_and_when_all_is_due(tmp_path: Path) -> None:
    rows, table = _opened(tmp_path / "p")
    table.committed(0)
    _put(table, STATES, NOW + 1000)
    table.committed(1)
    rows.close()

    _, again = _opened(tmp_path / "p")
    assert _ready(again) == ["d", "a"]
    assert again.claimed == {b"b"}
    assert {key for _, keys, _ in again.live() for key in keys} == {b"a", b"b", b"d"}
    assert set(again.keys_at(again.due(NOW + 1000))) == {b"a", b"b", b"d"}
    assert len(again.due(NOW + 1000 + KEPT_MS)) == 6


def test_what_expires_before_it_could_begin_is_left_out(tmp_path: Path) -> None:
    _, table = _opened(tmp_path / "p")
    _put(table, STATES)
    ready = table.ready("gmail", NOW, lambda *_: False, NOW + 999)
    assert [key for _, key in ready["win_back"]] == [b"a"]


def test_what_has_ended_is_forgotten_in_time_after_a_recovery_too(tmp_path: Path) -> None:
    _, table = _opened(tmp_path / "p")
    _put(table, STATES)  # as a recovery does: due times follow, for what is live
    assert set(table.keys_at(table.due(NOW + 1000 + KEPT_MS))) == {b"c", b"e", b"f"}
    assert table.next_due() == NOW + 1000 + KEPT_MS


def test_what_ends_is_live_no_more(tmp_path: Path) -> None:
    _, table = _opened(tmp_path / "p")
    table.committed(0)
    _put(table, STATES)
    table.committed(1)
    _put(table, {"a": State.DELIVERED, "b": State.WAITING})
    for _ in range(2):
        assert {key for _, keys, _ in table.live() for key in keys} == {b"b", b"d"}
        assert set(_ready(table)) == {"b", "d"}
        table.committed(2)
    table.delete_many([b"d", b"c"])
    table.committed(3)
    assert _ready(table) == ["b"]
    assert len(table) == 4


KEYS = [f"dispatch-{n}".encode() for n in range(8)]
ROWS = st.tuples(
    st.sampled_from([State.WAITING, State.WAITING, State.CLAIMED, State.DELIVERED, State.AWAITED]),
    st.sampled_from([b"gmail", b"yahoo"]),
    st.sampled_from([b"win_back", b"hello"]),
    st.integers(1, 40),  # expires at
    st.sampled_from([0, 0, 5, 15, 25]),  # not before
)


class Index(RuleBasedStateMachine):
    """What may go, beside a list of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.plain, self.now = DispatchStore(), dict[bytes, tuple[Any, ...]](), 0

    @rule(what=st.dictionaries(st.sampled_from(KEYS), ROWS))
    def put(self, what: dict[bytes, tuple[Any, ...]]) -> None:
        rows = empty(len(what))
        for row, fields in zip(rows, what.values(), strict=True):
            for name, value in zip(
                ("state", "lane", "campaign", "expires_at", "not_before"), fields, strict=True
            ):
                row[name] = value
        self.table.put_many([*what], rows, np.full(len(what), NEVER))
        self.plain |= what

    @rule(keys=st.lists(st.sampled_from(KEYS)))
    def delete(self, keys: list[bytes]) -> None:
        self.table.delete_many(keys)
        for key in keys:
            self.plain.pop(key, None)

    @rule(by=st.integers(1, 10))
    def wait(self, by: int) -> None:
        self.now += by

    @invariant()
    def what_may_go_is_what_waits_and_is_neither_late_nor_early_in_order_of_deadlines(self) -> None:
        waiting = {key: row for key, row in self.plain.items() if row[0] == State.WAITING}
        for lane in (b"gmail", b"yahoo"):
            expected: dict[str, list[tuple[int, bytes]]] = {}
            for key, (_, of, campaign, expires_at, not_before) in waiting.items():
                if of == lane and expires_at > self.now >= not_before:
                    expected.setdefault(campaign.decode(), []).append((expires_at, key))
            ready = self.table.ready(lane.decode(), self.now, lambda *_: False, self.now)
            assert {campaign: [*entries] for campaign, entries in ready.items()} == {
                campaign: sorted(entries) for campaign, entries in expected.items()
            }
            assert expected.keys() == set() or lane.decode() in self.table.lanes(self.now)
        assert +self.table.backlog == Counter(row[1].decode() for row in waiting.values())
        assert self.table.claimed == {key for key, row in self.plain.items() if row[0] == State.CLAIMED}


TestIndex = Index.TestCase
TestIndex.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
