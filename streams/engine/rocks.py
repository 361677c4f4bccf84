"""A `Store` on disk, in RocksDB: for rows that are many, seldom looked at, and must not live in memory.

What a cut writes stays in memory until the cut has committed; then it goes to disk in one batch, together
with the cut's number. So whatever happens, what is on disk is the table as of a committed cut, and the
changelog's tail makes it whole.
"""

import json
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from schemas.layouts import opaque
from streams.engine.kafka import KafkaUnavailable
from streams.engine.store import NEVER, UNKNOWN

_T = TypeVar("_T")
# Keys by their first byte. A slot is a number that is never given twice.
_ROW: Final = b"k"  # + key: whether it is live, slot, due time, row
_SLOT: Final = b"s"  # + slot: key
_DUE: Final = b"d"  # + due time, slot: key; none for never
_LIVE: Final = b"l"  # + slot: key
_MARK: Final = b"m"
_COUNT: Final = b"n"
_NUMBER: Final = struct.Struct(">Q")
_PLACE: Final = struct.Struct(">QQ")
_ENTRY: Final = struct.Struct(">?QQ")
_CACHE_BYTES: Final = 8 << 20
_WRITE_BUFFER_BYTES: Final = 4 << 20
_BATCH: Final = 4096
_ASK_EVERY_S: Final = 10.0
DAMAGED: Final = "DAMAGED"  # a file beside the data: they are not to be opened again


class RocksFailed(RuntimeError):
    """RocksDB could not read or write. End the worker: the next start builds the folder anew."""


@dataclass(frozen=True)
class Mark:
    """What is on disk: of which table, of which cut, where the changelog goes on; asked for at (UTC ms)."""

    identity: str
    number: int
    changelog_offset: int
    asked_at: int = 0


@dataclass(frozen=True)
class _Entry:
    live: bool
    slot: int
    due_at: int
    row: bytes


class RocksStore:
    """A `Store` in a folder of its own, which one process at a time can open.

    Until `committed` is called first, it is being recovered: what is written is in committed cuts already.

    Parameters
    ----------
    folder
        Is there, and empty or a former store's.
    dtype
        Layout of the rows.
    is_live
        Which rows `live` gives: a mask (n,) of rows (n,).
    identity
        Of which table, changelog and layout the rows are.
    changelog_end
        Asks Kafka for the changelog's stable end. Blocking.

    Raises
    ------
    RocksFailed
        The folder is damaged, or open elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype,
        is_live: Callable[[np.ndarray], np.ndarray],
        identity: str,
        changelog_end: Callable[[], int],
    ) -> None:
        self.dtype = dtype
        self._folder, self._identity = folder, identity
        self._is_live, self._changelog_end = is_live, changelog_end
        self._written: dict[bytes, _Entry | None] = {}  # by the cut under way; None: deleted
        self._key_of: dict[int, bytes] = {}  # of these
        self._closed = False
        self._db = self._asked(lambda: Rdict(str(folder), _options()))
        self._next_slot = self._first_free()
        self._count = int(_NUMBER.unpack(self._get([_COUNT])[0] or bytes(8))[0])
        self._recovering = True
        # As of now, whatever was written before it will be read by the recovery that follows.
        self._ask()

    @property
    def mark(self) -> Mark | None:
        """What is on disk; None in a new folder, and in one that was never made whole."""
        found = self._get([_MARK])[0]
        return None if found is None else Mark(**json.loads(found))

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._count

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """See `Store.find`."""
        entries = self._entries(keys)
        return np.fromiter((UNKNOWN if e is None else e.slot for e in entries), np.int64, len(keys))

    def keys_at(self, slots: np.ndarray) -> list[bytes]:
        """See `Store.keys_at`."""
        numbers = slots.tolist()
        keys = [self._key_of.get(slot) for slot in numbers]
        missing = [i for i, key in enumerate(keys) if key is None]
        for i, key in zip(missing, self._get([_slot(numbers[i]) for i in missing]), strict=True):
            # What the cut under way has written is not where it was on disk, if it was.
            keys[i] = None if key in self._written else key
        found = [key for key in keys if key is not None]
        if len(found) < len(keys):
            raise KeyError("a slot is not occupied")
        return found

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """See `Store.gather`."""
        return self._rows(self._entries(self.keys_at(slots)))

    def put_many(self, keys: Sequence[bytes], rows: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.put_many`."""
        values = opaque(rows).tolist()
        slots, live = self.find(keys).tolist(), self._is_live(rows).tolist()
        for key, slot, due, row, is_live in zip(keys, slots, due_at.tolist(), values, live, strict=True):
            if slot == UNKNOWN:
                slot, self._next_slot, self._count = self._next_slot, self._next_slot + 1, self._count + 1
            self._write(key, _Entry(is_live, slot, due, row))
        self._flush_while_recovering()

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """See `Store.delete_many`."""
        for key, entry in dict(zip(keys, self._entries(keys), strict=True)).items():
            if entry is not None:
                self._count -= 1
                self._key_of.pop(entry.slot, None)
                self._written[key] = None
        self._flush_while_recovering()

    def set_due(self, slots: np.ndarray, due_at: np.ndarray) -> None:
        """See `Store.set_due`."""
        keys = self.keys_at(slots)
        for key, entry, due in zip(keys, self._entries(keys), due_at.tolist(), strict=True):
            if entry is not None and entry.due_at != due:
                self._write(key, _Entry(entry.live, entry.slot, due, entry.row))
        self._flush_while_recovering()

    def due(self, now: int, most: int | None = None) -> np.ndarray:
        """See `Store.due`."""
        mine = (e.slot for e in self._written.values() if e is not None and e.due_at <= now)
        on_disk = (slot for _, slot in self._due_on_disk(now))
        return np.array(sorted(islice(chain(mine, on_disk), most)), np.int64)

    def next_due(self) -> int:
        """See `Store.next_due`."""
        mine = min((e.due_at for e in self._written.values() if e is not None), default=NEVER)
        on_disk, _ = next(self._due_on_disk(mine), (NEVER, 0))
        return min(mine, on_disk)

    def batches(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """See `Store.batches`."""
        mine = [key for key, entry in self._written.items() if entry is not None]
        return self._in_batches(mine, (place[1:] for place, _ in self._scan(_ROW)))

    def live(self) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        """See `Store.live`."""
        mine = [key for key, entry in self._written.items() if entry is not None and entry.live]
        return self._in_batches(mine, (key for _, key in self._scan(_LIVE)))

    def committed(self, number: int) -> None:
        """See `Store.committed`."""
        self._recovering = False
        self._flush(Mark(self._identity, number, self._offset, self._offset_at))
        if time.monotonic() - self._asked_at > _ASK_EVERY_S:
            # For the next time: that its cut commits proves that nobody else had written by now.
            with suppress(KafkaUnavailable):  # the cut has committed; an older offset will do
                self._ask()

    def _ask(self) -> None:
        self._asked_at, at = time.monotonic(), time.time_ns() // 1_000_000
        self._offset, self._offset_at = self._changelog_end(), at

    def close(self) -> None:
        """Let go of the folder."""
        self._closed = True
        self._db.close()

    # What the cut under way has written goes before what is on disk

    def _write(self, key: bytes, entry: _Entry) -> None:
        self._written[key] = entry
        self._key_of[entry.slot] = key

    def _entries(self, keys: Sequence[bytes]) -> list[_Entry | None]:
        missing = [key for key in keys if key not in self._written]
        stored = dict(zip(missing, self._stored(missing), strict=True))
        return [self._written[key] if key in self._written else stored[key] for key in keys]

    def _stored(self, keys: Sequence[bytes]) -> list[_Entry | None]:
        """What is on disk of keys."""
        values = self._get([_ROW + key for key in keys])
        return [None if value is None else _entry(value) for value in values]

    def _rows(self, entries: Sequence[_Entry | None]) -> np.ndarray:
        return np.frombuffer(bytearray(b"".join(e.row for e in entries if e is not None)), self.dtype)

    def _in_batches(
        self, mine: list[bytes], on_disk: Iterator[bytes]
    ) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
        keys = chain(mine, (key for key in on_disk if key not in self._written))
        while some := list(islice(keys, _BATCH)):
            entries = self._entries(some)
            slots = np.array([e.slot for e in entries if e is not None], np.int64)
            yield slots, some, self._rows(entries)

    def _due_on_disk(self, until: int) -> Iterator[tuple[int, int]]:
        """Due time and slot of what is due until a time, earliest first."""
        for place, key in self._scan(_DUE):
            due_at, slot = _PLACE.unpack_from(place, 1)
            if due_at > until:
                return
            if key not in self._written:
                yield due_at, slot

    def _flush_while_recovering(self) -> None:
        if self._recovering and len(self._written) >= _BATCH:
            self._flush(None)

    def _flush(self, mark: Mark | None) -> None:
        """Write what has gathered, in one batch. Without a mark the former one stays: it comes before."""
        batch = WriteBatch(raw_mode=True)
        before = self._stored(list(self._written))
        for (key, entry), old in zip(self._written.items(), before, strict=True):
            for place in () if old is None else _places(old):
                batch.delete(place)
            if entry is None:
                batch.delete(_ROW + key)
                continue
            for place in _places(entry):
                batch.put(place, key)
            batch.put(_ROW + key, _ENTRY.pack(entry.live, entry.slot, entry.due_at) + entry.row)
        batch.put(_COUNT, _NUMBER.pack(self._count))
        if mark is not None:
            batch.put(_MARK, json.dumps(asdict(mark)).encode())
        self._asked(lambda: self._db.write(batch))
        self._written, self._key_of = {}, {}

    # RocksDB

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        return self._asked(lambda: list(self._db.get(list(keys)) or ())) if keys else []

    def _scan(self, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Everything of a kind, in order, as it is now."""
        found = self._asked(self._db.iter)
        self._asked(lambda: found.seek(kind))
        while found.valid() and found.key()[:1] == kind:
            yield found.key(), found.value()
            self._asked(found.next)
        self._asked(found.status)

    def _first_free(self) -> int:
        found = self._asked(self._db.iter)
        self._asked(lambda: found.seek_for_prev(_slot((1 << 64) - 1)))
        last = found.key() if found.valid() else b""
        return int(_NUMBER.unpack_from(last, 1)[0]) + 1 if last[:1] == _SLOT else 0

    def _asked(self, question: Callable[[], _T]) -> _T:
        try:
            return question()
        except Exception as error:  # rocksdict knows no other
            # Neither is damage: another process has the folder, or this store was closed under a late commit.
            if "LOCK" not in str(error) and not self._closed:
                (self._folder / DAMAGED).touch()
            raise RocksFailed(f"{self._folder}: {error}; the next start builds it anew") from error


def _slot(number: int) -> bytes:
    return _SLOT + _NUMBER.pack(number)


def _entry(value: bytes) -> _Entry:
    live, slot, due_at = _ENTRY.unpack_from(value)
    return _Entry(live, slot, due_at, value[_ENTRY.size :])


def _places(entry: _Entry) -> Iterator[bytes]:
    """Under which keys an entry's key is found."""
    yield _slot(entry.slot)
    if entry.live:
        yield _LIVE + _NUMBER.pack(entry.slot)
    if entry.due_at != NEVER:
        yield _DUE + _PLACE.pack(entry.due_at, entry.slot)


def _options() -> Options:
    options, blocks = Options(raw_mode=True), BlockBasedOptions()
    blocks.set_block_cache(Cache(_CACHE_BYTES))
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(1)
    options.set_stats_dump_period_sec(0)
    options.create_if_missing(True)
    return options
