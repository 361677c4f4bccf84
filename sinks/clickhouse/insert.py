"""Rows into tables: one block of one table and one month, recognisable when it is inserted again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sinks.clickhouse.client import ClickHouse

# Said outright, since their defaults changed with 26.2. A row is acknowledged when it is in the table, an
# insert is one block and so there as a whole or not at all, and a token that is known is not inserted twice.
SETTINGS: Final = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_insert": "enable",
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_insert_block_size": 1_048_576,
    "insert_block_size": 1_048_576,
}


@dataclass(frozen=True)
class Block:
    """Rows of one table and one month (`months` since 1970; 0 where the table has no months), as columns.

    `origin` names the records that they come from. Equal origin means equal rows: a ClickHouse that knows a
    token drops what comes under it, unlooked at.
    """

    table: str
    names: tuple[str, ...]
    columns: tuple[Sequence[Any], ...]
    origin: str
    months: int = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.columns[0])

    @property
    def token(self) -> str:
        """Name of this block for ClickHouse."""
        return f"{self.table}/{self.origin}/{self.months}"

    @property
    def offsets(self) -> Sequence[int]:
        """Offset on Kafka of each row's record."""
        return self.columns[self.names.index("offset")]

    def part(self, start: int, end: int) -> "Block":
        """Some of its rows, under a token of their own."""
        columns = tuple(column[start:end] for column in self.columns)
        return replace(self, columns=columns, origin=f"{self.origin}[{start}:{end}]")


def insert(client: ClickHouse, database: str, block: Block) -> None:
    """Insert a block; when it returns, the rows are in the table, also if they were before.

    Raises
    ------
    ClickHouseUnavailable
        Whether they are in is not known: insert the same block again.
    RowsRefused
        None is in; some of them do not fit.
    """
    settings = SETTINGS | {"insert_deduplication_token": block.token}
    client.insert(f"{database}.{block.table}", block.names, block.columns, settings)
