"""DELIVER's table on disk: what has ended is only there, and what may go next is known after a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
    ready = table.ready("gmail", NOW, lambda *_: False)
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


def test_what_has_expired_does_not_go_before_it_is_written_down(tmp_path: Path) -> None:
    _, table = _opened(tmp_path / "p")
    _put(table, STATES)
    ready = table.ready("gmail", NOW + 999, lambda *_: False)
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
