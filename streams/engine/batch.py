"""Records of one topic as columns, and the buffer in which they wait for a cut."""

from collections import deque
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, overload

import numpy as np
from confluent_kafka import Message

from streams.engine.kafka import Record, bytes_of

_NO_HEADERS: Final[tuple[tuple[str, bytes], ...]] = ()


class Batch(Sequence[Record]):
    """n records of one topic's partition in offset order, as columns; also a sequence of `Record`.

    `offsets` and `timestamps` (when the broker appended them, UTC ms) are int64 (n,); `headers` is None where
    no record has any.
    """

    __slots__ = ("_size", "headers", "keys", "offsets", "timestamps", "values")

    def __init__(
        self,
        offsets: np.ndarray,
        timestamps: np.ndarray,
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[tuple[tuple[str, bytes], ...]] | None,
    ) -> None:
        self.offsets, self.timestamps = offsets, timestamps
        self.keys, self.values, self.headers = keys, values, headers
        self._size: int | None = None

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Batch":
        """The columns of records."""
        listed = list(records)
        headers = [record.headers for record in listed]
        return cls(
            np.array([record.offset for record in listed], np.int64),
            np.array([record.timestamp for record in listed], np.int64),
            [record.key for record in listed],
            [record.value for record in listed],
            headers if any(headers) else None,
        )

    @classmethod
    def of_messages(cls, messages: Sequence[Message]) -> "Batch":
        """The columns of what confluent-kafka's consumer gave."""
        count = len(messages)
        found: list[Any] = [*map(Message.headers, messages)]
        headers = [_headers(each) for each in found] if any(found) else None
        keys: list[Any] = [*map(Message.key, messages)]
        values: list[Any] = [*map(Message.value, messages)]
        moments = map(itemgetter(1), map(Message.timestamp, messages))
        return cls(
            np.fromiter(map(Message.offset, messages), np.int64, count),
            np.fromiter(moments, np.int64, count),
            keys,
            values,
            headers,
        )

    @classmethod
    def joined(cls, parts: Sequence["Batch"]) -> "Batch":
        """Several batches, one after the other."""
        if len(parts) == 1:
            return parts[0]
        headers = None
        if any(part.headers for part in parts):
            headers = [each for part in parts for each in part.headers or [_NO_HEADERS] * len(part)]
        return cls(
            np.concatenate([np.empty(0, np.int64), *(part.offsets for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.timestamps for part in parts)]),
            [key for part in parts for key in part.keys],
            [value for part in parts for value in part.values],
            headers,
        )

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> "Batch": ...

    def __getitem__(self, place: int | slice) -> "Record | Batch":
        """One record, or the columns of some."""
        if isinstance(place, slice):
            headers = None if self.headers is None else self.headers[place]
            return Batch(
                self.offsets[place], self.timestamps[place], self.keys[place], self.values[place], headers
            )
        headers_of = _NO_HEADERS if self.headers is None else self.headers[place]
        return Record(
            int(self.offsets[place]),
            int(self.timestamps[place]),
            self.keys[place],
            self.values[place],
            headers_of,
        )

    def picked(self, places: np.ndarray) -> "Batch":
        """The records at these places, in their order."""
        listed = places.tolist()
        return Batch(
            self.offsets[places],
            self.timestamps[places],
            [self.keys[i] for i in listed],
            [self.values[i] for i in listed],
            None if self.headers is None else [self.headers[i] for i in listed],
        )

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        if self._size is None:
            self._size = sum(map(len, filter(None, [*self.keys, *self.values])))
        return self._size


NOTHING: Final = Batch(np.empty(0, np.int64), np.empty(0, np.int64), [], [], None)


def _headers(found: Any) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, bytes_of(value) or b"") for name, value in found or ())


class Buffer:
    """Fetched records of one topic, in offset order, that no cut has taken yet."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._sizes: deque[int] = deque()
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Return the number of records."""
        return self._count

    @property
    def size(self) -> int:
        """Bytes of keys and values, as far as whole batches tell: never less than there are."""
        return self._bytes

    @property
    def end(self) -> int:
        """Offset behind the last record. Raises IndexError where there is none."""
        return int(self._batches[-1].offsets[-1]) + 1

    @property
    def oldest(self) -> int:
        """When the broker appended the first record, UTC ms. Raises IndexError where there is none."""
        return int(self._batches[0].timestamps[0])

    def add(self, batch: Batch) -> None:
        """Take a batch that goes on where the last one ended."""
        if len(batch):
            size = batch.size
            self._batches.append(batch)
            self._sizes.append(size)
            self._count += len(batch)
            self._bytes += size

    def take(self, most: int) -> Batch:
        """Remove and return the first `most` records, or all."""
        parts = []
        while most > 0 and self._batches:
            part = self._first(min(most, len(self._batches[0])))
            parts.append(part)
            most -= len(part)
        return Batch.joined(parts) if parts else NOTHING

    def take_until(self, offset: int) -> Batch:
        """Remove and return the records before an offset."""
        parts = []
        while self._batches and self._batches[0].offsets[0] < offset:
            parts.append(self._first(int(np.searchsorted(self._batches[0].offsets, offset))))
        return Batch.joined(parts) if parts else NOTHING

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()
        self._sizes.clear()
        self._count = self._bytes = 0

    def _first(self, count: int) -> Batch:
        """Remove and return the first records of the first batch."""
        batch = self._batches[0]
        self._count -= count
        if count == len(batch):
            self._batches.popleft()
            self._bytes -= self._sizes.popleft()
            return batch
        self._batches[0] = batch[count:]
        return batch[:count]
