"""Questions to ClickHouse: whatever reads, and nothing that writes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sinks.clickhouse.client import Address, ClickHouse, StatementRefused

# 2, not 1: a question may carry settings of its own (SETTINGS final = 1).
READ_ONLY: Final = {"readonly": 2}
# readonly lets through what changes no table here: INSERT INTO FUNCTION writes files and to other hosts, KILL
# and SYSTEM act on the server. So only a statement that begins like a question is sent.
QUESTIONS: Final = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN"})
_NO_WORDS: Final = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:\\.|''|[^'\\])*'|`(?:\\.|[^`\\])*`|\"(?:\\.|[^\"\\])*\"", re.DOTALL
)
_WRITES: Final = re.compile(r"\bINSERT\s+INTO\b|\bINTO\s+OUTFILE\b")


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
    refuse_to_write(sql)
    client = ClickHouse(address, READ_ONLY, database)
    try:
        rows, columns = client.with_types(sql)
    finally:
        client.close()
    return Result(columns, rows)


def refuse_to_write(sql: str) -> None:
    """Check that a statement is a question.

    Raises
    ------
    StatementRefused
        It begins otherwise, or has an INSERT or INTO OUTFILE within.
    """
    text = _NO_WORDS.sub(" ", sql).upper()
    first = re.search(r"\w+", text)
    if first is None or first[0] not in QUESTIONS or _WRITES.search(text):
        raise StatementRefused(
            "questions are readonly: begin with SELECT, WITH, SHOW, DESCRIBE, EXISTS or EXPLAIN, "
            "and write with a client of ClickHouse"
        )
