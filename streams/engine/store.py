"""Keyed rows of one partition: the port, and the slab that holds them in memory."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import numpy as np

UNKNOWN: Final = -1
NEVER: Final = np.iinfo(np.int64).max
_CHUNK_BITS: Final = 13
_CHUNK_ROWS: Final = 1 << _CHUNK_BITS


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

    def due(self, now: int) -> np.ndarray:
        """Slots that are due at `now`, int64 (m,)."""
        ...

    def next_due(self) -> int:
        """Earliest due time of all, UTC ms; `NEVER` where nothing is."""
        ...

    def batches(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """Slots, keys and row copies of everything, in parts."""
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

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._slot_of)

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """See `Store.find`."""
        return np.fromiter((self._slot_of.get(key, UNKNOWN) for key in keys), np.int64, len(keys))

    def keys_at(self, slots: np.ndarray) -> list[bytes]:
        """See `Store.keys_at`."""
        keys = [self._key_at[slot] for slot in slots.tolist()]
        if None in keys:
            raise KeyError("a slot is not occupied")
        return keys

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """See `Store.gather`."""
        out = np.empty(len(slots), self.dtype)
        for number, mine, within in self._by_chunk(slots):
            out[mine] = self._chunks[number][within]
        return out

    def put_many(self, keys: Sequence[bytes], rows: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.put_many`."""
        slots = self.find(keys)
        for place in np.flatnonzero(slots == UNKNOWN).tolist():
            slots[place] = self._occupy(keys[place])
        for number, mine, within in self._by_chunk(slots):
            self._chunks[number][within] = rows[mine]
        self.set_due(slots, due_at)

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """See `Store.delete_many`."""
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

    def due(self, now: int) -> np.ndarray:
        """See `Store.due`."""
        return np.flatnonzero(self._due_at[: len(self._key_at)] <= now)

    def next_due(self) -> int:
        """See `Store.next_due`."""
        if self._next_due is None:
            self._next_due = int(self._due_at[: len(self._key_at)].min(initial=NEVER))
        return self._next_due

    def batches(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """See `Store.batches`."""
        occupied = np.flatnonzero([key is not None for key in self._key_at])
        for start in range(0, len(occupied), _CHUNK_ROWS):
            slots = occupied[start : start + _CHUNK_ROWS]
            yield slots, self.keys_at(slots), self.gather(slots)

    def _occupy(self, key: bytes) -> int:
        if self._free:
            slot = self._free.pop()
            self._key_at[slot] = key
        else:
            slot = len(self._key_at)
            self._key_at.append(key)
            if slot >> _CHUNK_BITS == len(self._chunks):
                self._chunks.append(np.zeros(_CHUNK_ROWS, self.dtype))
            if slot == len(self._due_at):
                self._due_at = np.concatenate([self._due_at, np.full(slot, NEVER, np.int64)])
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
