"""Keyed rows of one partition: the port, and the slab that holds them in memory."""

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from threading import Lock
from typing import Final, Protocol

import numpy as np

from schemas.layouts import opaque, picked

UNKNOWN: Final = -1
NEVER: Final = np.iinfo(np.int64).max
_CHUNK_BITS: Final = 12
_CHUNK_ROWS: Final = 1 << _CHUNK_BITS
_FROZEN_ROWS: Final = 512  # are copied at a time while the store is held up: 0.2 ms for rows of 2 KiB


class Store(Protocol):
    """Fixed-layout rows by key, with the time at which each is due.

    A slot is where a key's row stands; it stays the key's until the key is deleted.
    """

    dtype: np.dtype

    def __len__(self) -> int:
        """Return the number of keys."""
        ...

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Slots of keys, int64 (n,); `UNKNOWN` for keys that have no row."""
        ...

    def keys_at(self, slots: np.ndarray) -> list[bytes]:
        """Keys of occupied slots."""
        ...

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """Copies of the rows at occupied slots, (n,) of the row's type."""
        ...

    def put_many(self, keys: Sequence[bytes], rows: np.ndarray, due_at: np.ndarray) -> None:
        """Write rows of distinct keys, new or known, and when each is due (UTC ms)."""
        ...

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """Forget keys; unknown ones are ignored."""
        ...

    def set_due(self, slots: np.ndarray, due_at: np.ndarray) -> None:
        """Say when the rows at occupied slots are due, without writing the rows."""
        ...

    def due(self, now: int, most: int | None = None) -> np.ndarray:
        """Slots that are due at `now`, int64 (m,); no more than `most` of them."""
        ...

    def next_due(self) -> int:
        """Earliest due time of all, UTC ms; `NEVER` where nothing is."""
        ...

    def batches(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """Slots, keys and rows of everything, in parts; the rows are for reading, before the next write."""
        ...

    def live(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """Give, like `batches`, the rows to be looked at anew at a take-over or a change of control."""
        ...

    def committed(self, number: int) -> None:
        """All that was written is in committed cuts, of which `number` is the last. No cut is under way."""
        ...


class SlabStore:
    """A `Store` in memory: chunks of numpy rows, a dict key to slot, and one contiguous column of due times.

    Chunks are zeroed by the operating system when first touched, so a nearly empty partition costs little.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self._chunks: list[np.ndarray] = []
        self._slot_of: dict[bytes, int] = {}
        self._key_at: list[bytes | None] = []
        self._free: list[int] = []
        self._due_at = np.full(_CHUNK_ROWS, NEVER, np.int64)
        self._next_due: int | None = NEVER
        self._frozen: Frozen | None = None

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._slot_of)

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """See `Store.find`."""
        return np.fromiter(map(self._slot_of.get, keys, repeat(UNKNOWN)), np.int64, len(keys))

    def keys_at(self, slots: np.ndarray) -> list[bytes]:
        """See `Store.keys_at`."""
        keys = [self._key_at[slot] for slot in slots.tolist()]
        if None in keys:
            raise KeyError("a slot is not occupied")
        return keys

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """See `Store.gather`."""
        out = np.empty(len(slots), self.dtype)
        whole = opaque(out)
        for number, mine, within in self._by_chunk(slots):
            whole[mine] = opaque(self._chunks[number])[within]
        return out

    def put_many(self, keys: Sequence[bytes], rows: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.put_many`."""
        slots = self.find(keys)
        self._keep(slots[slots != UNKNOWN])
        for place in np.flatnonzero(slots == UNKNOWN).tolist():
            slots[place] = self._occupy(keys[place])
        whole = opaque(rows)
        for number, mine, within in self._by_chunk(slots):
            opaque(self._chunks[number])[within] = whole[mine]
        self.set_due(slots, due_at)

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """See `Store.delete_many`."""
        slots = self.find(keys)
        self._keep(slots[slots != UNKNOWN])
        for key in keys:
            slot = self._slot_of.pop(key, None)
            if slot is not None:
                self._key_at[slot] = None
                self._chunks[slot >> _CHUNK_BITS][slot & (_CHUNK_ROWS - 1)] = np.zeros((), self.dtype)
                self._due_at[slot] = NEVER
                self._free.append(slot)
        self._next_due = None

    def set_due(self, slots: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.set_due`."""
        self._due_at[slots] = due_at
        self._next_due = None

    def due(self, now: int, most: int | None = None) -> np.ndarray:
        """See `Store.due`."""
        return np.flatnonzero(self._due_at[: len(self._key_at)] <= now)[:most]

    def next_due(self) -> int:
        """See `Store.next_due`."""
        if self._next_due is None:
            self._next_due = int(self._due_at[: len(self._key_at)].min(initial=NEVER))
        return self._next_due

    def batches(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """See `Store.batches`."""
        for number, chunk in enumerate(self._chunks):
            first = number << _CHUNK_BITS
            keys = self._key_at[first : first + _CHUNK_ROWS]
            occupied = [key for key in keys if key is not None]
            if len(occupied) == len(keys):
                yield np.arange(first, first + len(keys)), occupied, chunk[: len(keys)]
            elif occupied:
                within = np.flatnonzero([key is not None for key in keys])
                yield first + within, occupied, picked(chunk, within)

    def live(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """See `Store.live`: any row."""
        return self.batches()

    def committed(self, number: int) -> None:
        """See `Store.committed`: nothing is to be done."""

    def append(self, keys: Sequence[bytes], fill: Callable[[np.ndarray], None]) -> None:
        """Take in distinct new keys, due never; from this store nothing was ever deleted.

        `fill` writes their rows where they are to stand. It is how a snapshot is read: rows are touched once.
        """
        first, count = len(self._key_at), len(keys)
        within = first & (_CHUNK_ROWS - 1)
        if first and within and within + count <= _CHUNK_ROWS:
            fill(self._chunks[-1][within : within + count])
        elif not within and count <= _CHUNK_ROWS:
            self._chunks.append(np.zeros(_CHUNK_ROWS, self.dtype))
            fill(self._chunks[-1][:count])
        else:
            rows = np.empty(count, self.dtype)
            fill(rows)
            while len(self._chunks) << _CHUNK_BITS < first + count:
                self._chunks.append(np.zeros(_CHUNK_ROWS, self.dtype))
            for number, mine, places in self._by_chunk(np.arange(first, first + count)):
                opaque(self._chunks[number])[places] = opaque(rows)[mine]
        self._key_at += keys
        self._slot_of.update(zip(keys, range(first, first + count), strict=True))
        while len(self._due_at) < len(self._key_at):
            self._grow_due()

    def freeze(self) -> "Frozen":
        """The rows as they are now, for another thread to read while the store goes on; one at a time."""
        if self._frozen is not None:
            raise RuntimeError("the store is frozen already")
        self._frozen = Frozen(self)
        return self._frozen

    def _keep(self, slots: np.ndarray) -> None:
        if self._frozen is not None:
            self._frozen.keep(slots)

    def _grow_due(self) -> None:
        self._due_at = np.concatenate([self._due_at, np.full(len(self._due_at), NEVER, np.int64)])

    def _occupy(self, key: bytes) -> int:
        if self._free:
            slot = self._free.pop()
            self._keep(np.array([slot]))
            self._key_at[slot] = key
        else:
            slot = len(self._key_at)
            self._key_at.append(key)
            if slot >> _CHUNK_BITS == len(self._chunks):
                self._chunks.append(np.zeros(_CHUNK_ROWS, self.dtype))
            if slot == len(self._due_at):
                self._grow_due()
        self._slot_of[key] = slot
        return slot

    def _by_chunk(self, slots: np.ndarray) -> Iterator[tuple[int, np.ndarray | slice, np.ndarray]]:
        """Chunk number, which of `slots` are in it, and where in it."""
        within = slots & (_CHUNK_ROWS - 1)
        if len(self._chunks) == 1:
            yield 0, slice(None), within
            return
        chunk = slots >> _CHUNK_BITS
        for number in np.unique(chunk).tolist():
            mine = np.flatnonzero(chunk == number)
            yield number, mine, within[mine]


class Frozen:
    """A slab's rows as of one moment, read by one other thread while the slab's own goes on writing.

    To freeze costs next to nothing, however many rows there are: before the slab overwrites a row that has
    not been read yet, it puts the row aside.
    """

    def __init__(self, store: SlabStore) -> None:
        self._store = store
        self._keys = len(store)
        self._slots = len(store._key_at)
        self._done = np.zeros(self._slots, np.bool_)  # read, or put aside
        self._aside: dict[int, tuple[bytes | None, bytes]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        """Return the number of keys at that moment."""
        return self._keys

    def keep(self, slots: np.ndarray) -> None:
        """Put rows aside that are about to be overwritten. The slab calls it."""
        with self._lock:
            slots = slots[slots < self._slots]
            slots = slots[~self._done[slots]]
            rows = opaque(self._store.gather(slots)).tolist()
            for slot, row in zip(slots.tolist(), rows, strict=True):
                self._aside[slot] = self._store._key_at[slot], row
            self._done[slots] = True

    def parts(self) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """Keys and rows of that moment, in parts; once."""
        size = min(_FROZEN_ROWS, _CHUNK_ROWS)
        for start in range(0, self._slots, size):
            stop = min(start + size, self._slots)
            within = start & (_CHUNK_ROWS - 1)
            with self._lock:
                keys = self._store._key_at[start:stop]
                rows = self._store._chunks[start >> _CHUNK_BITS][within : within + stop - start].copy()
                aside = np.flatnonzero(self._done[start:stop]).tolist()
                self._done[start:stop] = True
            for place in aside:
                keys[place], row = self._aside.pop(start + place)
                rows[place : place + 1] = np.frombuffer(row, rows.dtype)
            occupied = [place for place, key in enumerate(keys) if key is not None]
            if occupied:
                whole = len(occupied) == len(keys)
                yield [key for key in keys if key is not None], rows if whole else picked(rows, occupied)

    def release(self) -> None:
        """Let the slab forget that it was frozen."""
        if self._store._frozen is self:
            self._store._frozen = None
