"""Snapshots of a partition's rows: the port. A recovery that finds one reads only the changelog's tail."""

from dataclasses import dataclass
from typing import Protocol

from streams.engine.store import Store


@dataclass(frozen=True)
class Snapshot:
    """Rows as of one committed cut.

    `number` is the cut's. `changelog_offset` is where the changelog goes on: every record before it is in the
    rows; some after it may be as well, since to apply those again, in order, ends in the same rows.
    """

    number: int
    changelog_offset: int
    store: Store


class Rows(Protocol):
    """A line, as far as snapshots care."""

    partition: int
    store: Store

    @property
    def number(self) -> int:
        """Number of the last cut that is in the rows."""
        ...

    @property
    def clean(self) -> bool:
        """Whether that cut has committed."""
        ...


class Snapshots(Protocol):
    """Where snapshots are kept."""

    def newest(self, partition: int, at_most: int) -> Snapshot | None:
        """Newest good snapshot of a partition that is not ahead of cut `at_most`; None if there is none.

        One that is damaged, or older than half of the changelog's `delete.retention.ms`, is not good: a
        tombstone compacted away since would let an erased person return.
        """
        ...

    def settled(self, line: Rows) -> None:
        """A line has committed: take a snapshot when it is time. In the event loop, and quick."""
        ...

    def release(self, partition: int) -> None:
        """A line is closed: take no more snapshots of it."""
        ...


class NoSnapshots:
    """Keeps none: every recovery reads the whole changelog."""

    def newest(self, partition: int, at_most: int) -> Snapshot | None:
        """See `Snapshots.newest`."""
        return None

    def settled(self, line: Rows) -> None:
        """See `Snapshots.settled`."""

    def release(self, partition: int) -> None:
        """See `Snapshots.release`."""
