"""A partition's table rebuilt from its changelog: in batches, read committed, to the stable end."""

from collections.abc import Callable

import numpy as np
from confluent_kafka import Consumer

from streams.engine.kafka import read_batches
from streams.engine.store import NEVER, Store


class ChangelogDamaged(RuntimeError):
    """A changelog record is not a row. Stop: a partial table would decide wrongly."""


def recover(
    consumer: Consumer,
    changelog: str,
    partition: int,
    start: int,
    store: Store,
    check: Callable[[np.ndarray], None],
) -> int:
    """Apply every committed changelog record of a partition from `start` on to a store; returns how many.

    `check` raises if rows were written by a newer program.

    Raises
    ------
    ChangelogDamaged
        A value is no row of the store's layout.
    KafkaUnavailable
        The changelog could not be read to its end.
    """
    applied = 0
    size = store.dtype.itemsize
    for batch in read_batches(consumer, changelog, partition, start):
        latest: dict[bytes, bytes | None] = {}
        for message in batch:
            key, value = message.key(), message.value()
            if key is None or (value is not None and len(value) != size):
                found = "no key" if key is None else f"{len(value or b'')} bytes where a row has {size}"
                raise ChangelogDamaged(f"{changelog}/{partition} offset {message.offset()}: {found}")
            latest[bytes(key)] = None if value is None else bytes(value)
        written = {key: value for key, value in latest.items() if value is not None}
        store.delete_many([key for key, value in latest.items() if value is None])
        rows = np.frombuffer(b"".join(written.values()), store.dtype)
        check(rows)
        store.put_many(list(written), rows, np.full(len(rows), NEVER, np.int64))
        applied += len(batch)
    return applied
