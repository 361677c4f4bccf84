"""The folders of a worker's RocksDB tables: which of them may be gone on with, and which are thrown away."""

import os
import shutil
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import structlog
from confluent_kafka import OFFSET_BEGINNING

from schemas.layouts import Layouts
from streams import events
from streams.engine.kafka import Client, bounds
from streams.engine.rocks import DAMAGED, Mark, RocksFailed, RocksStore
from streams.engine.snapshot import Rows, Snapshot
from streams.engine.snapshot_file import fingerprint
from streams.engine.store import Store
from streams.engine.topic import topic_id

_log = structlog.get_logger()
_LOCKED_S: Final = 5.0  # a worker of this machine may be about to let go of a partition


@dataclass(frozen=True)
class RocksPlace:
    """Whose tables, and where: `folder` holds one a partition, of no use when older than `oldest_ms`."""

    client: Client
    changelog: str
    layouts: Layouts
    is_live: Callable[[np.ndarray], np.ndarray]
    folder: Path
    oldest_ms: int


class RocksTables:
    """`Snapshots` whose rows are the table itself: it is on disk as of the last committed cut.

    Parameters
    ----------
    place
        Whose tables, and where.
    wrap
        Makes the line's table of the rows.
    """

    def __init__(self, place: RocksPlace, wrap: Callable[[Store], Store]) -> None:
        self._place, self._wrap = place, wrap
        self._open: weakref.WeakValueDictionary[int, RocksStore] = weakref.WeakValueDictionary()

    def newest(self, partition: int, at_most: int) -> Snapshot:
        """See `Snapshots.newest`: what is there if it fits, else an empty table."""
        before = self._open.pop(partition, None)
        if before is not None:
            before.close()
        place = self._place
        identity = f"{topic_id(place.client, place.changelog)} {fingerprint(place.layouts.dtype)}"
        folder = self._place.folder / str(partition)
        store = self._opened(folder, partition, identity)
        if store is None:  # a worker of this machine hangs, say: not to be waited for
            folder = folder.with_name(f"{partition}-{os.getpid()}")
            self._throw_away(folder, partition, f"{partition} is open in another process")
            store = self._made(folder, partition, identity)
        mark = store.mark
        why = "" if mark is None else self._unfit(mark, identity, at_most)
        if why:
            store.close()
            self._throw_away(folder, partition, why)
            store, mark = self._made(folder, partition, identity), None
        elif mark is None and len(store):
            store.close()
            self._throw_away(folder, partition, "was never made whole")
            store = self._made(folder, partition, identity)
        self._open[partition] = store
        if mark is None:
            return Snapshot(0, OFFSET_BEGINNING, self._wrap(store))
        return Snapshot(mark.number, mark.changelog_offset, self._wrap(store))

    def _unfit(self, mark: Mark, identity: str, at_most: int) -> str:
        """Why a folder must not be gone on with; empty if it may."""
        if mark.identity != identity:
            return "is of another changelog or layout"
        if mark.number > at_most:
            return f"is of cut {mark.number}, the journal ends at {at_most}"
        if time.time_ns() // 1_000_000 - mark.asked_at > self._place.oldest_ms:
            return "is too old: a deletion since may be compacted away"
        return ""

    def settled(self, line: Rows) -> None:
        """See `Snapshots.settled`: the store has written its rows when the cut committed."""

    def release(self, partition: int) -> None:
        """See `Snapshots.release`: the store is let go of with the line, which may yet come back."""

    def _opened(self, folder: Path, partition: int, identity: str) -> RocksStore | None:
        """Open a partition's folder, damaged ones made anew; None if another process has it and keeps it."""
        for left in self._place.folder.glob(f"{partition}-*"):
            if not psutil.pid_exists(int(left.name.partition("-")[2])):
                shutil.rmtree(left, ignore_errors=True)
        if (folder / DAMAGED).exists():
            self._throw_away(folder, partition, "is damaged")
        deadline = time.monotonic() + _LOCKED_S
        while True:
            try:
                return self._made(folder, partition, identity)
            except RocksFailed as error:
                if (folder / DAMAGED).exists():
                    self._throw_away(folder, partition, f"is damaged: {error.__cause__}")
                elif time.monotonic() > deadline:
                    return None
                else:
                    time.sleep(0.1)

    def _made(self, folder: Path, partition: int, identity: str) -> RocksStore:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = self._place

        def end() -> int:
            consumer = place.client.reader()
            try:
                return bounds(consumer, place.changelog, partition)[1]
            finally:
                consumer.close()

        return RocksStore(folder, place.layouts.dtype, place.is_live, identity, end)

    def _throw_away(self, folder: Path, partition: int, why: str) -> None:
        if folder.exists():
            _log.warning(events.SNAPSHOT_REFUSED, partition=partition, error=f"{folder.name} {why}")
            shutil.rmtree(folder)
