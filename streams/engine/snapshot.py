"""Snapshots of a partition's rows: the port. A recovery that finds one reads only the changelog's tail."""

from dataclasses import dataclass
from typing import Protocol

from streams.engine.store import Store


@dataclass(frozen=True)
class Snapshot:
    """Rows as of one committed cut.

    `number` is the cut's, `changelog_offset` the changelog's next offset at that moment.
    """

    number: int
    changelog_offset: int
    store: Store


class Snapshots(Protocol):
    """Where snapshots are kept."""

    def newest(self, partition: int, at_most: int) -> Snapshot | None:
        """Newest good snapshot of a partition that is not ahead of cut `at_most`; None if there is none.

        One that is damaged, or older than half of the changelog's `delete.retention.ms`, is not good: a
        tombstone compacted away since would let an erased person return.
        """
        ...


class NoSnapshots:
    """Keeps none: every recovery reads the whole changelog."""

    def newest(self, partition: int, at_most: int) -> Snapshot | None:
        """See `Snapshots.newest`."""
        return None
