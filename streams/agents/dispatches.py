"""DELIVER's table: a slab of dispatches that also knows, lane by lane, which of them may go next."""

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

import numpy as np
from sortedcontainers import SortedList

from schemas.dispatch import DISPATCH, State
from streams.engine.store import SlabStore

Held = Callable[[str, str], bool]  # campaign, lane: whether they are paused


class DispatchStore(SlabStore):
    """A `Store` of dispatches with an index of those that wait and of those that are claimed.

    Within a lane they go in the order of their release, whatever the campaign; deferred ones join in again
    when their time has come.
    """

    def __init__(self) -> None:
        super().__init__(DISPATCH)
        self.claimed: set[bytes] = set()
        self._ready: dict[tuple[str, str], SortedList] = {}  # by lane and campaign: (released_at, key)
        self._later = SortedList()  # (not_before, key, lane, campaign, released_at)
        self._indexed: dict[bytes, tuple[SortedList, tuple[object, ...]]] = {}

    def put_many(self, keys: Sequence[bytes], rows: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.put_many`."""
        super().put_many(keys, rows, due_at)
        states = rows["state"].tolist()
        for i, key in enumerate(keys):
            self._forget(key)
            if states[i] == State.CLAIMED:
                self.claimed.add(key)
            elif states[i] == State.WAITING:
                self._index(key, rows[i])

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """See `Store.delete_many`."""
        super().delete_many(keys)
        for key in keys:
            self._forget(key)

    def lanes(self, now: int) -> list[str]:
        """Lanes on which something may go at `now`, sorted."""
        self._promote(now)
        return sorted({lane for (lane, _), waiting in self._ready.items() if waiting})

    def ready(self, lane: str, now: int, held: Held) -> Iterator[tuple[int, bytes]]:
        """Messages of a lane that may go at `now`, in order: when each was released, and its key."""
        self._promote(now)
        free = [
            waiting
            for (of, campaign), waiting in self._ready.items()
            if of == lane and waiting and not held(campaign, lane)
        ]
        return heapq.merge(*free)

    def _index(self, key: bytes, row: np.void) -> None:
        lane, campaign = row["lane"].decode(), row["campaign"].decode()
        released_at, not_before = int(row["released_at"]), int(row["not_before"])
        if not_before:
            self._add(key, self._later, (not_before, key, lane, campaign, released_at))
        else:
            self._add_ready(key, lane, campaign, released_at)

    def _add_ready(self, key: bytes, lane: str, campaign: str, released_at: int) -> None:
        self._add(key, self._ready.setdefault((lane, campaign), SortedList()), (released_at, key))

    def _add(self, key: bytes, to: SortedList, entry: tuple[object, ...]) -> None:
        to.add(entry)
        self._indexed[key] = to, entry

    def _promote(self, now: int) -> None:
        while self._later and self._later[0][0] <= now:
            _, key, lane, campaign, released_at = self._later.pop(0)
            self._add_ready(key, lane, campaign, released_at)

    def _forget(self, key: bytes) -> None:
        self.claimed.discard(key)
        found = self._indexed.pop(key, None)
        if found is not None:
            found[0].remove(found[1])


def first(
    waiting: Iterator[tuple[int, bytes]],
    fresh: Sequence[tuple[int, bytes]],
    touched: Collection[bytes],
    most: int,
) -> list[bytes]:
    """The first keys of those that waited, but for what this cut `touched`, and of those it made wait."""
    stayed = (entry for entry in waiting if entry[1] not in touched)
    return [key for _, key in islice(heapq.merge(stayed, sorted(fresh)), most)]
