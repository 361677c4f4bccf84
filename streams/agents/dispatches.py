"""DELIVER's table: dispatches, and lane by lane which of them may go next."""

import heapq
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from sortedcontainers import SortedList

from models.deliver import due_at as due_at_of
from models.order import Entry, Turns
from schemas.dispatch import DISPATCH, State
from schemas.scopes import Marks
from streams.engine.store import UNKNOWN, SlabStore, Store

Held = Callable[[Marks], bool]  # whether messages with these marks are paused
# What waits is indexed by bytes in the order in which it goes: half a million take 50 MB, as tuples 160.
_READY: Final = struct.Struct(">q")  # when it expires; the key follows
_LATER: Final = struct.Struct(">qqI")  # when it may go, when it expires, number of its queue; the key follows


def marks_of(rows: np.ndarray) -> list[Marks]:
    """What each dispatch is held by."""
    return [*map(_marks, *(rows[name].tolist() for name in Marks._fields))]


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
        self._numbers: defaultdict[str, dict[Marks, int]] = defaultdict(dict)  # of queues, by lane
        self._queues: list[SortedList] = []
        self._later = SortedList()
        self._promoted = 0  # what may go by then stands in its queue, all else in `_later`
        for _, keys, live in self._rows.live():
            self._index(keys, live)

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
        self._forget(keys)
        self._rows.put_many(keys, rows, np.where(is_live(rows), due_at, due_at_of(rows)))
        self._index(keys, rows)

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """See `Store.delete_many`."""
        self._forget([*dict.fromkeys(keys)])
        self._rows.delete_many(keys)

    def set_due(self, slots: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.set_due`."""
        self._rows.set_due(slots, due_at)

    def due(self, now: int, most: int | None = None) -> np.ndarray:
        """See `Store.due`."""
        return self._rows.due(now, most)

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
        """Lanes on which something may go at `now`, or waits to be ended, sorted."""
        self._promote(now)
        return sorted(
            lane for lane, numbers in self._numbers.items() if any(self._queues[n] for n in numbers.values())
        )

    def ready(self, lane: str, now: int, held: Held, too_soon: int) -> dict[str, Iterator[Entry]]:
        """Messages of a lane that may go at `now`, by campaign if it has any, the earliest deadline first.

        Those that expire by `too_soon` are none of them.
        """
        self._promote(now)
        found: defaultdict[str, list[Iterator[Entry]]] = defaultdict(list)
        for marks, number in self._numbers[lane].items():
            queue = self._queues[number]
            if _reaches(queue, too_soon + 1) and not held(marks):
                found[marks.campaign].append(map(_entry, queue.irange(_READY.pack(too_soon + 1))))
        return {campaign: heapq.merge(*some) for campaign, some in found.items()}

    def _index(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        states = rows["state"]
        self.claimed.update(keys[i] for i in np.flatnonzero(states == State.CLAIMED).tolist())
        waiting = np.flatnonzero(states == State.WAITING)
        for lane, among, entry in self._places([keys[i] for i in waiting.tolist()], rows[waiting]):
            among.add(entry)
            self.backlog[lane] += 1

    def _forget(self, keys: Sequence[bytes]) -> None:
        """Take keys out of the index, as long as their rows are still those that were indexed."""
        self.claimed.difference_update(keys)
        slots = self._rows.find(keys)
        known = np.flatnonzero(slots != UNKNOWN)
        rows = self._rows.gather(slots[known])
        waiting = rows["state"] == State.WAITING
        places = self._places([keys[i] for i in known[waiting].tolist()], rows[waiting])
        for lane, among, entry in places:
            among.remove(entry)
            self.backlog[lane] -= 1

    def _places(self, keys: Sequence[bytes], rows: np.ndarray) -> Iterator[tuple[str, SortedList, bytes]]:
        """Of each message that waits its lane, where it stands in the index, and as what."""
        expiries = np.maximum(rows["expires_at"], 0).tolist()
        columns = zip(keys, marks_of(rows), expiries, rows["not_before"].tolist(), strict=True)
        for key, marks, expires_at, not_before in columns:
            number = self._numbers[marks.lane].setdefault(marks, len(self._queues))
            if number == len(self._queues):
                self._queues.append(SortedList())
            if not_before > self._promoted:
                yield marks.lane, self._later, _LATER.pack(not_before, expires_at, number) + key
            else:
                yield marks.lane, self._queues[number], _READY.pack(expires_at) + key

    def _promote(self, now: int) -> None:
        self._promoted = max(self._promoted, now)
        while self._later:
            not_before, expires_at, number = _LATER.unpack_from(self._later[0])
            if not_before > self._promoted:
                return
            key = self._later.pop(0)[_LATER.size :]
            self._queues[number].add(_READY.pack(expires_at) + key)


def _entry(waiting: bytes) -> Entry:
    return _READY.unpack_from(waiting)[0], waiting[_READY.size :]


def _reaches(waiting: SortedList, moment: int) -> bool:
    """Whether any message of a queue expires at a moment or later."""
    return bool(waiting) and _READY.unpack_from(waiting[-1])[0] >= moment
