"""The ClickHouse engine of `chdb` in this process: one handle per connection, errors by ClickHouse's codes.

Each handle has its own settings, database and temporary tables, and they run side by side. What `chdb` gets
wrong is kept out of sight here: its `send_insert` reports success for rows that the table refused, so rows
go through a file, from which INSERT reports its errors.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import chdb

from infra.embedded.chdb_rights import Forbidden, keep_default_database, permitted, write_config
from infra.embedded.chdb_statement import (
    Insert,
    NestedComment,
    SeveralStatements,
    identifier,
    literal,
    streams,
)
from infra.embedded.native_format import Column, TypeNotServed, blocks, empty_block, layout_of, retyped

MIB = 1 << 20
# Kafka, workers and this share one machine. A query that needs more fails with code 241.
CHILD_MEMORY = 1024 * MIB
MARK_CACHE = 64 * MIB
LIMITS = (
    f"<max_server_memory_usage>{CHILD_MEMORY}</max_server_memory_usage>"
    f"<mark_cache_size>{MARK_CACHE}</mark_cache_size>"
)
# A row is acknowledged when it is in the table; a header that a driver parses has no line breaks in it.
SETTINGS = {"async_insert": "0", "print_pretty_type_names": "0"}
EVERY_S = 0.1

NO_SUCH_COLUMN = 16
NOT_IMPLEMENTED = 48
SYNTAX_ERROR = 62
CANCELLED = 394
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = 516
UNKNOWN = 1002


class ServerError(Exception):
    """A refusal as ClickHouse reports it: `code` is its number, the text says the rest."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the code beside the message."""
        super().__init__(message)
        self.code = code


def explained(error: Exception) -> ServerError:
    """Return `error` as ClickHouse would report it."""
    if isinstance(error, ServerError):
        return error
    if found := re.search(r"Code: (\d+)\. (.*)", str(error), re.DOTALL):
        return ServerError(int(found[1]), found[2])
    known: dict[type, int] = {
        SeveralStatements: SYNTAX_ERROR,
        NestedComment: SYNTAX_ERROR,
        Forbidden: ACCESS_DENIED,
        TypeNotServed: NOT_IMPLEMENTED,
    }
    return ServerError(known.get(type(error), UNKNOWN), f"DB::Exception: {error or repr(error)}")


class Engine:
    """The engine on one data folder, which no other process can open meanwhile."""

    def __init__(self, data: Path) -> None:
        """Open the folder, and clear what a killed process left of unfinished inserts.

        Raises
        ------
        ServerError
            The folder cannot be opened (code 36: another process has it).
        """
        data.mkdir(parents=True, exist_ok=True)
        keep_default_database(data)
        self._url = f"{data}?config-file={write_config(data, LIMITS)}"
        try:
            self._own = chdb.connect(self._url)  # keeps the engine up while there are no clients
        except Exception as error:
            raise explained(error) from error
        self.version = str(self._own.query("SELECT version()", "TSVRaw").data()).strip()
        self._incoming = data / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir()
        self._numbers = itertools.count()
        self._running: dict[str, Watched] = {}
        self._some = threading.Condition()
        threading.Thread(target=self._watch, daemon=True).start()

    def login(self, user: str, password: str, database: str) -> Handle:
        """Return a new handle.

        Raises
        ------
        ServerError
            Not the one user that there is (516), or no such database (81).
        """
        if (user or "default", password) != ("default", ""):
            raise ServerError(
                AUTHENTICATION_FAILED,
                f"DB::Exception: {user}: Authentication failed: the only user here is default, without a "
                "password. (AUTHENTICATION_FAILED)",
            )
        return Handle(self, chdb.connect(self._url), f"handle-{next(self._numbers)}", database)

    def incoming(self) -> AbstractContextManager[IO[bytes]]:
        """Return a file for the rows of an INSERT; it is deleted when it is closed."""
        return tempfile.NamedTemporaryFile(dir=self._incoming)

    @contextmanager
    def watched(self, handle: Handle, gave_up: Callable[[], bool]) -> Iterator[Watched]:
        """End what `handle` runs meanwhile as soon as `gave_up` is true."""
        watched = Watched(gave_up)
        with self._some:
            self._running[handle.label] = watched
            self._some.notify()
        try:
            yield watched
        finally:
            with self._some:
                del self._running[handle.label]

    def _watch(self) -> None:
        while True:
            with self._some:
                self._some.wait_for(lambda: self._running)
            time.sleep(EVERY_S)  # most queries are over by then
            with self._some:
                for label, watched in self._running.items():
                    if not watched.ended and watched.gave_up():
                        watched.ended = True  # first, as its thread may see the end at once
                        try:
                            self._own.query(f"KILL QUERY WHERE Settings['log_comment'] = {literal(label)}")
                        except Exception:
                            watched.ended = False  # asked again a moment later


@dataclass
class Watched:
    """A running query; `ended` is true once its client gave it up."""

    gave_up: Callable[[], bool]
    ended: bool = False


class Handle:
    """One client's connection to the engine, to be used by one thread."""

    def __init__(self, engine: Engine, connection: Any, label: str, database: str) -> None:
        """Apply what every handle has: its label, by which its query can be ended, and the database."""
        self.label = label
        self.engine = engine
        self._connection = connection
        self._own = {**SETTINGS, "log_comment": label}
        self._settings: Mapping[str, str] = {}
        try:
            self._set(self._own)
            self.run(f"USE {identifier(database or 'default')}")
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Give the engine its handle back."""
        self._connection.close()

    def apply(self, settings: Mapping[str, str]) -> None:
        """Make `settings`, and no other of the client's, hold from now on.

        Raises
        ------
        ServerError
            The engine does not know one, or not its value; those from before hold.
        """
        if settings == self._settings:
            return
        gone = {name: self._own.get(name) for name in self._settings if name not in settings}
        self._set({**gone, **settings, "log_comment": self.label})
        self._settings = dict(settings)

    def run(self, sql: str, form: str = "Native", parameters: Mapping[str, str] | None = None) -> bytes:
        """Return the whole result of a statement, in `form` if it names no other.

        Raises
        ------
        ServerError
            The engine refused it.
        """
        try:
            return self._run(permitted(sql), form, parameters)
        except ValueError as error:
            raise explained(error) from error

    def blocks(self, sql: str, parameters: Mapping[str, str] | None = None) -> Generator[bytes, None, None]:
        """Yield the result of a statement without FORMAT as Native blocks, the first one without rows.

        Only SELECT is handed out as it comes, and ended when the iterator is closed.

        Raises
        ------
        ServerError
            The engine refused it, or failed on the way.
        """
        if not streams(sql):
            for number, block in enumerate(blocks(self.run(sql, parameters=parameters))):
                if not number:
                    yield empty_block(block.columns)
                yield block.data
            return
        columns = [(name, kind) for name, kind, *_ in self._describe(f"({sql}\n)", parameters)]
        # To FORMAT Native every reader is one of 2017, which knew no time zone in a DateTime.
        zoned = any(kind.startswith("DateTime(") for _, kind in columns)
        yield empty_block(columns)
        try:
            with closing(
                self._connection.send_query(permitted(sql), "Native", params=parameters or {})
            ) as stream:
                for chunk in stream:  # always exactly one block
                    data = bytes(chunk.bytes())
                    yield retyped(data, columns) if zoned else data
        except Exception as error:
            raise explained(error) from error

    def awaited(self, insert: Insert) -> list[Column]:
        """Return the columns that an INSERT waits for.

        Raises
        ------
        ServerError
            There is no such table (60) or column (16), or values of a type cannot be passed over (48).
        """
        table = {
            name: kind
            for name, kind, default, *_ in self._describe(insert.table)
            if default not in ("MATERIALIZED", "ALIAS")
        }
        columns = [(name, table[name]) for name in insert.names or table if name in table]
        if unknown := [name for name in insert.names if name not in table]:
            raise ServerError(
                NO_SUCH_COLUMN,
                f"DB::Exception: No such column {unknown[0]} in table {insert.table}. "
                "(NO_SUCH_COLUMN_IN_TABLE)",
            )
        try:
            for _, kind in columns:
                layout_of(kind)
        except TypeNotServed as error:
            raise explained(error) from error
        return columns

    def insert(self, insert: Insert, rows: IO[bytes], form: str) -> None:
        """Insert the rows of a file; when it returns, they are in the table.

        Raises
        ------
        ServerError
            The table or the engine refused them.
        """
        rows.flush()
        into, file = f"INSERT INTO {insert.target}", literal(rows.name)
        try:
            # As a whole: a quote or a comment that one part opens can end in another.
            permitted(f"{into} {file} {insert.settings}")
        except ValueError as error:
            raise explained(error) from error
        self._run(f"{into} FROM INFILE {file} {insert.settings} FORMAT {form}")

    def _run(self, sql: str, form: str = "Native", parameters: Mapping[str, str] | None = None) -> bytes:
        try:
            return bytes(self._connection.query(sql, form, params=parameters or {}).bytes())
        except Exception as error:
            raise explained(error) from error

    def _describe(self, what: str, parameters: Mapping[str, str] | None = None) -> list[list[str]]:
        rows = self.run(f"DESCRIBE TABLE {what}", "JSONCompactEachRow", parameters)
        return [json.loads(row) for row in rows.splitlines()]

    def _set(self, settings: Mapping[str, str | None]) -> None:
        changes = (
            f"{name} = {'DEFAULT' if value is None else literal(value)}" for name, value in settings.items()
        )
        self.run(f"SET {', '.join(changes)}")
