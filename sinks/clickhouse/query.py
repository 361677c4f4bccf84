"""Questions to ClickHouse: whatever reads, and nothing that writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sinks.clickhouse.client import Address, ClickHouse

# 2, not 1: a question may carry settings of its own (SETTINGS final = 1); writing is refused by either.
READ_ONLY: Final = {"readonly": 2}


@dataclass(frozen=True)
class Result:
    """Rows, and name and type of each column."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[Any, ...]]


def ask(address: Address, database: str, sql: str) -> Result:
    """Run one statement that reads; names without a database are those of `database`.

    Raises
    ------
    StatementRefused
        ClickHouse's own message; also for whatever would write.
    ClickHouseUnavailable
        It did not answer.
    """
    client = ClickHouse(address, READ_ONLY, database)
    try:
        rows, columns = client.with_types(sql)
    finally:
        client.close()
    return Result(columns, rows)
