"""The tables' history: plain SQL files, applied in order, each once, and never changed afterwards.

A file `NNNN_name.sql` holds statements that end with `;` at a line's end. `{stored}` stands for the database
of the tables, `{views}` for that of the views. Every statement must be one that may be repeated (IF NOT
EXISTS, OR REPLACE): ClickHouse has no transactions over definitions and no locks, so after a crash, or where
two programs migrate at once, a file is applied again.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sinks.clickhouse.client import ClickHouse, ClickHouseError

FOLDER: Final = Path(__file__).parent / "migrations"
_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_END: Final = re.compile(r";[ \t]*$", re.MULTILINE)
_COMMENT: Final = re.compile(r"^--.*\n", re.MULTILINE)

_HISTORY: Final = """CREATE TABLE IF NOT EXISTS {stored}.schema_migration
(
    number UInt32 COMMENT 'Number of the file.',
    name String COMMENT 'Its name.',
    checksum String COMMENT 'SHA-256 of its text, hex.',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When; information only.'
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number
COMMENT 'Which migrations have been applied.'"""


class MigrationChanged(ClickHouseError):
    """A migration that was applied is not what its file says now, or has no file here."""


class MigrationsPending(ClickHouseError):
    """The tables are older than this program. Run `opportune migrate`."""


@dataclass(frozen=True)
class Migration:
    """One file."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, views: str) -> list[str]:
        """Its statements for a deployment whose views are in the database `views`."""
        text = _COMMENT.sub("", self.text)
        return [_placed(part.strip(), views) for part in _END.split(text) if part.strip()]


def stored(views: str) -> str:
    """Database of the tables behind the views.

    A database of its own: whoever may read `views` sees what is meant for reading, under its plain names,
    and nothing that counts a repeated row twice.
    """
    return f"{views}_stored"


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """Every migration that this program knows, in order. Raises ValueError if one is badly numbered."""
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None or int(match[1]) != len(found) + 1:
            raise ValueError(
                f"{path.name}: migrations are numbered 0001_name.sql, 0002_name.sql, without gap"
            )
        found.append(Migration(len(found) + 1, match[2], path.read_text(encoding="utf-8")))
    return found


def pending(client: ClickHouse, views: str, known: Sequence[Migration] | None = None) -> list[Migration]:
    """Migrations that are still to be applied.

    Raises
    ------
    MigrationChanged
        One that was applied has another text now, or none: this program is older than the tables.
    ClickHouseError
        As `ClickHouse` says.
    """
    known = migrations() if known is None else known
    by_number = {migration.number: migration for migration in known}
    applied = _applied(client, views)
    for number, (name, checksum) in sorted(applied.items()):
        if number not in by_number:
            raise MigrationChanged(
                f"migration {number:04d}_{name} was applied and is not known here: a newer program made "
                "these tables; deploy it"
            )
        if by_number[number].checksum != checksum:
            raise MigrationChanged(
                f"migration {number:04d}_{name} was applied and has been changed since; restore the file, "
                "and write the change as a migration of its own"
            )
    return [migration for migration in known if migration.number not in applied]


def migrate(client: ClickHouse, views: str, known: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is pending and return its names; two may do this at once. Raises as `pending`."""
    client.execute(f"CREATE DATABASE IF NOT EXISTS {stored(views)}")
    client.execute(f"CREATE DATABASE IF NOT EXISTS {views}")
    client.execute(_placed(_HISTORY, views))
    applied = []
    for migration in pending(client, views, known):
        for statement in migration.statements(views):
            client.execute(statement)
        client.insert(
            f"{stored(views)}.schema_migration",
            ("number", "name", "checksum"),
            ([migration.number], [migration.name], [migration.checksum]),
            {"async_insert": 0},
        )
        applied.append(f"{migration.number:04d}_{migration.name}")
    return applied


def check(client: ClickHouse, views: str) -> None:
    """Raise `MigrationsPending` unless the tables are as new as this program; else as `pending`."""
    missing = pending(client, views)
    if missing:
        names = ", ".join(f"{migration.number:04d}_{migration.name}" for migration in missing)
        raise MigrationsPending(f"not applied yet: {names}; run `opportune migrate`")


def drop(client: ClickHouse, views: str, but: Collection[str] = ()) -> None:
    """Drop both databases with everything in them but some tables, which are not looked at.

    `migrate` makes the others anew beside those, since its statements may be repeated. Raises as `ClickHouse`
    says.
    """
    client.execute(f"DROP DATABASE IF EXISTS {views} SYNC")
    if not but:
        client.execute(f"DROP DATABASE IF EXISTS {stored(views)} SYNC")
        return
    tables = "SELECT name FROM system.tables WHERE database = %(database)s"
    for (name,) in client.execute(tables, {"database": stored(views)}):
        if name not in but:
            client.execute(f"DROP TABLE IF EXISTS {stored(views)}.{name} SYNC")


def _applied(client: ClickHouse, views: str) -> dict[int, tuple[str, str]]:
    """Name and checksum of each applied migration."""
    there = client.execute(
        "SELECT count() FROM system.tables WHERE database = %(database)s AND name = 'schema_migration'",
        {"database": stored(views)},
    )
    if not there[0][0]:
        return {}
    rows = client.execute(
        f"SELECT number, name, checksum FROM {stored(views)}.schema_migration FINAL"  # noqa: S608 - a setting
    )
    return {number: (name, checksum) for number, name, checksum in rows}


def _placed(sql: str, views: str) -> str:
    return sql.replace("{stored}", stored(views)).replace("{views}", views)
