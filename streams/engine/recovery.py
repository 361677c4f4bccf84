"""A partition's table rebuilt from its changelog: in batches, read committed, to the stable end."""

from collections.abc import Callable, Sequence

import numpy as np
from confluent_kafka import Consumer

from schemas.layouts import Layouts, NoRow
from streams.engine.kafka import bounds, read_batches
from streams.engine.store import NEVER, Store


class ChangelogDamaged(RuntimeError):
    """A changelog record is not a row. Stop: a partial table would decide wrongly."""


Reader = Callable[[Sequence[bytes]], np.ndarray]  # raises NoRow, and NewerRow where a newer program wrote


def reader(layouts: Layouts | None, dtype: np.dtype) -> Reader:
    """How values become rows: by their version, or where there are no versions, as rows of one layout."""
    if layouts is not None:
        return layouts.read

    def read(values: Sequence[bytes]) -> np.ndarray:
        if wrong := [len(value) for value in values if len(value) != dtype.itemsize]:
            raise NoRow(f"{wrong[0]} bytes where a row has {dtype.itemsize}")
        return np.frombuffer(b"".join(values), dtype)

    return read


def recover(
    consumer: Consumer,
    changelog: str,
    partition: int,
    start: int,
    store: Store,
    read: Reader,
    step: Callable[[], None],
) -> int:
    """Apply every committed changelog record of a partition from `start` on to a store; returns how many.

    A start before the changelog's first offset is its first: compaction leaves every key's last value.
    `step` is called after each batch, so that a watchdog sees a long recovery get on.

    Raises
    ------
    ChangelogDamaged
        A value is no row, or the changelog ends before `start`.
    NewerRow
        A newer program has written.
    KafkaUnavailable
        The changelog could not be read to its end.
    """
    applied = 0
    if start >= 0:
        low, end = bounds(consumer, changelog, partition)
        if start > end:
            raise ChangelogDamaged(
                f"{changelog}/{partition} ends at {end}, and a snapshot had read it to {start}: records were "
                "lost; restore the topic from a backup, or begin with empty topics"
            )
        start = max(start, low)
    for batch in read_batches(consumer, changelog, partition, start):
        latest: dict[bytes, bytes | None] = {}
        for message in batch:
            key, value = message.key(), message.value()
            if key is None:
                raise ChangelogDamaged(f"{changelog}/{partition} offset {message.offset()}: no key")
            latest[bytes(key)] = None if value is None else bytes(value)
        written = {key: value for key, value in latest.items() if value is not None}
        store.delete_many([key for key, value in latest.items() if value is None])
        try:
            rows = read(list(written.values()))
        except NoRow as error:
            first, last = batch[0].offset(), batch[-1].offset()
            raise ChangelogDamaged(f"{changelog}/{partition} offsets {first} to {last}: {error}") from error
        store.put_many(list(written), rows, np.full(len(rows), NEVER, np.int64))
        applied += len(batch)
        step()
    return applied
