"""Blocks into ClickHouse, whatever it takes: waits where it is away, finds the row that it refuses."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from schemas.reasons import DeadLetterReason
from sinks.clickhouse.client import ClickHouse, ClickHouseUnavailable, RowsRefused
from sinks.clickhouse.insert import Block, insert
from streams import events
from streams.engine.failpoint import reach
from streams.reading import offset_of
from streams.recording.batch import Batch, Unrecorded
from streams.recording.figures import Figures
from streams.recording.names import SegmentNames
from streams.recording.rows import rows_of

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 15.0
# So many rows for a table one after the other, and not one fits: those are no bad rows but a wrong program or
# table, and going on would empty the topic into the dead letters.
_NEVER_IN_A_ROW: Final = 100

_log = structlog.get_logger()


class GivenUp(Exception):
    """What was waited for is no longer wanted: told to stop, or the partitions went to another."""


class EverythingRefused(RuntimeError):
    """Rows are refused and none fits. Stop; compare program and tables before going on."""


class Landing:
    """Puts batches into the tables of one database.

    Parameters
    ----------
    connect
        Makes a connection.
    stored
        Database of the tables.
    names
        Names of segments.
    wait
        Waits so many seconds; raises `GivenUp` if there is nothing to wait for any more.
    """

    def __init__(
        self,
        connect: Callable[[], ClickHouse],
        stored: str,
        names: SegmentNames,
        figures: Figures,
        wait: Callable[[float], None],
    ) -> None:
        self._connect = connect
        self._client: ClickHouse | None = None
        self._stored = stored
        self._names = names
        self._figures = figures
        self._wait = wait
        self._in_a_row: Counter[str] = Counter()

    def land(self, batch: Batch) -> list[Unrecorded]:
        """Put a batch into its tables; returns the records that are in none, now and for ever.

        Raises
        ------
        GivenUp
            Some of the batch may be in. The same batch again completes it.
        EverythingRefused
            See there.
        """
        blocks, unrecorded = rows_of(batch, self._names)
        by_offset = {offset_of(message): message for message in batch.messages}
        for block in blocks:
            for offset, error in self._put(block):
                unrecorded.append(Unrecorded(by_offset[offset], DeadLetterReason.REFUSED, error))
        return unrecorded

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()

    def _put(self, block: Block) -> list[tuple[int, str]]:
        """Insert a block; returns offset and error of every row that was refused."""
        refused = self._insert(block)
        self._figures.inserted(block.table, len(block) - len(refused))
        return refused

    def _insert(self, block: Block) -> list[tuple[int, str]]:
        try:
            self._insert_patiently(block)
        except RowsRefused as error:
            if len(block) == 1:
                self._in_a_row[block.table] += 1
                if self._in_a_row[block.table] > _NEVER_IN_A_ROW:
                    raise EverythingRefused(
                        f"{_NEVER_IN_A_ROW} rows in a row do not fit {block.table}: {error}. Compare this "
                        "program with the tables"
                    ) from error
                return [(block.offsets[0], f"ClickHouse refuses its row in {block.table}: {error}")]
            middle = len(block) // 2
            return [
                *self._insert(block.part(0, middle)),
                *self._insert(block.part(middle, len(block))),
            ]
        del self._in_a_row[block.table]
        return []

    def _insert_patiently(self, block: Block) -> None:
        """Insert the same block until it is in, or refused."""
        pause = 0.0
        try:
            while True:
                began = time.monotonic()
                try:
                    self._client = self._client or self._connect()
                    reach("record", "before_insert")
                    insert(self._client, self._stored, block)
                    reach("record", "after_insert")
                except ClickHouseUnavailable as error:
                    if not pause:
                        _log.warning(events.CLICKHOUSE_AWAY, error=str(error))
                    pause = min(2 * pause, _LONGEST_WAIT_S) or _FIRST_WAIT_S
                    self._figures.waiting(True)
                    self._wait(pause)
                else:
                    self._figures.took(time.monotonic() - began)
                    if pause:
                        _log.info(events.CLICKHOUSE_BACK)
                    return
        finally:
            self._figures.waiting(False)
