"""DELIVER's table: dispatches, and lane by lane which of them may go next."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from sortedcontainers import SortedList

from models.deliver import due_at as due_at_of
from models.order import Entry, Turns
from schemas.dispatch import DISPATCH, State
from schemas.scopes import Marks
from streams.engine.store import SlabStore, Store

Held = Callable[[Marks], bool]  # whether messages with these marks are paused


def marks_of(row: np.void) -> Marks:
    """What a dispatch is held by."""
    return _marks(*(row[name] for name in Marks._fields))


@lru_cache(10_000)  # few differ, and those of many messages are kept once
def _marks(*names: bytes) -> Marks:
    return Marks(*(name.decode() for name in names))


def is_live(rows: np.ndarray) -> np.ndarray:
    """Which dispatches wait or are claimed, a mask (n,); what has ended is only kept against repeats."""
    live: np.ndarray = (rows["state"] == State.WAITING) | (rows["state"] == State.CLAIMED)
    return live


class DispatchStore:
    """A `Store` of dispatches with an index of those that wait and of those that are claimed.

    Those with the same marks are ordered by deadline; deferred ones join in again when their time has
    come. `turns` are those that campaigns had on each lane since the table was recovered. The rows are in
    `rows`, another store; in memory if none is given. The index is always in memory.
    """

    def __init__(self, rows: Store | None = None) -> None:
        self.dtype = DISPATCH
        self.claimed: set[bytes] = set()
        self._rows = SlabStore(DISPATCH) if rows is None else rows
        self.turns: defaultdict[str, Turns] = defaultdict(Turns)
        self.backlog: Counter[str] = Counter()  # how many wait, by lane
        self._ready: dict[Marks, SortedList] = {}  # (expires_at, key)
        self._later = SortedList()  # (not_before, key, marks, expires_at)
        self._indexed: dict[bytes, tuple[str, SortedList, tuple[object, ...]]] = {}
        for _, keys, live in self._rows.live():
            self._index_all(keys, live)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._rows)

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """See `Store.find`."""
        return self._rows.find(keys)

    def keys_at(self, slots: np.ndarray) -> list[bytes]:
        """See `Store.keys_at`."""
        return self._rows.keys_at(slots)

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """See `Store.gather`."""
        return self._rows.gather(slots)

    def put_many(self, keys: Sequence[bytes], rows: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.put_many`; when one that has ended is due is in its row, whatever `due_at` says."""
        self._rows.put_many(keys, rows, np.where(is_live(rows), due_at, due_at_of(rows)))
        self._index_all(keys, rows)

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """See `Store.delete_many`."""
        self._rows.delete_many(keys)
        for key in keys:
            self._forget(key)

    def set_due(self, slots: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.set_due`."""
        self._rows.set_due(slots, due_at)

    def due(self, now: int) -> np.ndarray:
        """See `Store.due`."""
        return self._rows.due(now)

    def next_due(self) -> int:
        """See `Store.next_due`."""
        return self._rows.next_due()

    def batches(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """See `Store.batches`."""
        return self._rows.batches()

    def live(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """See `Store.live`: what waits or is claimed, at least."""
        return self._rows.live()

    def committed(self, number: int) -> None:
        """See `Store.committed`."""
        self._rows.committed(number)

    def lanes(self, now: int) -> list[str]:
        """Lanes on which something may go at `now`, sorted."""
        self._promote(now)
        return sorted({marks.lane for marks, waiting in self._ready.items() if waiting})

    def ready(self, lane: str, now: int, held: Held) -> dict[str, Iterator[Entry]]:
        """Messages of a lane that may go at `now`, by campaign if it has any, the earliest deadline first."""
        self._promote(now)
        found: defaultdict[str, list[SortedList]] = defaultdict(list)
        for marks, waiting in self._ready.items():
            if marks.lane == lane and waiting and not held(marks):
                found[marks.campaign].append(waiting)
        return {campaign: heapq.merge(*some) for campaign, some in found.items()}

    def _index_all(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        states = rows["state"].tolist()
        for i, key in enumerate(keys):
            self._forget(key)
            if states[i] == State.CLAIMED:
                self.claimed.add(key)
            elif states[i] == State.WAITING:
                self._index(key, rows[i])

    def _index(self, key: bytes, row: np.void) -> None:
        marks, expires_at, not_before = marks_of(row), int(row["expires_at"]), int(row["not_before"])
        self.backlog[marks.lane] += 1
        if not_before:
            self._add(key, marks.lane, self._later, (not_before, key, marks, expires_at))
        else:
            self._add_ready(key, marks, expires_at)

    def _add_ready(self, key: bytes, marks: Marks, expires_at: int) -> None:
        self._add(key, marks.lane, self._ready.setdefault(marks, SortedList()), (expires_at, key))

    def _add(self, key: bytes, lane: str, to: SortedList, entry: tuple[object, ...]) -> None:
        to.add(entry)
        self._indexed[key] = lane, to, entry

    def _promote(self, now: int) -> None:
        while self._later and self._later[0][0] <= now:
            _, key, marks, expires_at = self._later.pop(0)
            self._add_ready(key, marks, expires_at)

    def _forget(self, key: bytes) -> None:
        self.claimed.discard(key)
        found = self._indexed.pop(key, None)
        if found is not None:
            lane, among, entry = found
            among.remove(entry)
            self.backlog[lane] -= 1
