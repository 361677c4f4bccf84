"""A connection to ClickHouse, and the one place where the driver's exceptions are translated.

ClickHouseError
├── ClickHouseUnavailable   did not answer, or cannot take it now: the same again later
├── RowsRefused             an insert's rows are wrong: find the bad one
└── StatementRefused        a statement is wrong: its author must mend it
"""

import logging
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clickhouse_driver import Client, errors

# Its debug lines print whole statements, and with them what is looked for.
logging.getLogger("clickhouse_driver").setLevel(logging.ERROR)

# Far below Kafka's max.poll.interval of 300 s: a frozen server must not cost the recorder its partitions.
TIMEOUT_S: Final = 30
_CONNECT_S: Final = 5
_STACK: Final = re.compile(r"\.? *Stack trace:.*\Z", re.DOTALL)
_PREFIX: Final = re.compile(r"\ACode: \d+\.\s*(DB::Exception: )?")

# Refusals of ClickHouse that are about the rows. Everything else is about the server or the table, and passes
# when somebody mends it: dead-lettering on those would empty a topic into the dead letters.
_OF_ROWS: Final = frozenset(
    {
        errors.ErrorCodes.CANNOT_PARSE_TEXT,
        errors.ErrorCodes.CANNOT_PARSE_DATE,
        errors.ErrorCodes.CANNOT_PARSE_DATETIME,
        errors.ErrorCodes.CANNOT_PARSE_NUMBER,
        errors.ErrorCodes.ARGUMENT_OUT_OF_BOUND,
        errors.ErrorCodes.CANNOT_CONVERT_TYPE,
        errors.ErrorCodes.INCORRECT_DATA,
        errors.ErrorCodes.TOO_LARGE_ARRAY_SIZE,
        errors.ErrorCodes.TOO_LARGE_STRING_SIZE,
        errors.ErrorCodes.SIZES_OF_ARRAYS_DOESNT_MATCH,
        errors.ErrorCodes.VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE,
        errors.ErrorCodes.CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN,
        errors.ErrorCodes.CANNOT_PARSE_UUID,
        469,  # VIOLATED_CONSTRAINT, which the driver does not name
    }
)
# Not wrong, only not now: a statement that meets one of these may be sent again.
_NOT_NOW: Final = frozenset(
    {
        errors.ErrorCodes.NETWORK_ERROR,
        errors.ErrorCodes.SOCKET_TIMEOUT,
        errors.ErrorCodes.TOO_MANY_SIMULTANEOUS_QUERIES,
    }
)


class ClickHouseError(RuntimeError):
    """What went wrong with ClickHouse; one of the three below."""


class ClickHouseUnavailable(ClickHouseError):
    """It did not answer, or cannot take this now. Check address and server; the same again later."""


class RowsRefused(ClickHouseError):
    """Some row of an insert does not fit its table. Find it by halves, dead-letter it, insert the rest."""


class StatementRefused(ClickHouseError):
    """ClickHouse refused a statement; the message is its own. Mend the statement, or the user's rights."""


@dataclass(frozen=True)
class Address:
    """Where a ClickHouse is, and as whom to speak to it over its native protocol."""

    host: str
    port: int
    user: str = "default"
    password: str = ""
    tls: bool = False
    tls_ca: Path | None = None

    def __repr__(self) -> str:
        """Show the place, never the password."""
        return f"Address({self.host}:{self.port}, user={self.user!r})"


class ClickHouse:
    """One connection, made when it is first needed. Not thread-safe.

    `settings` hold for every statement; names without a database are those of `database`. Its methods raise
    as `ClickHouseError` says.
    """

    def __init__(
        self, address: Address, settings: Mapping[str, Any] | None = None, database: str = ""
    ) -> None:
        self.address = address
        self._client = Client(
            address.host,
            address.port,
            database=database,
            user=address.user,
            password=address.password,
            secure=address.tls,
            ca_certs=None if address.tls_ca is None else str(address.tls_ca),
            settings=dict(settings or {}),
            connect_timeout=_CONNECT_S,
            send_receive_timeout=TIMEOUT_S,
            compression="lz4",
            tcp_keepalive=True,
        )

    def execute(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; `%(name)s` in it stands for a parameter."""
        with _statement(self.address):
            return list(self._client.execute(sql, parameters))

    def with_types(self, sql: str) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]]]:
        """Run a statement and return its rows, and name and type of each column."""
        with _statement(self.address):
            rows, columns = self._client.execute(sql, with_column_types=True)
            return list(rows), list(columns)

    def columns(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Sequence[Any]]:
        """Run a statement and return its columns; none at all where there are no rows. As `execute` else."""
        with _statement(self.address):
            return list(self._client.execute(sql, parameters, columnar=True))

    def stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Run a statement and hand out its rows as they come; nothing else may run here meanwhile."""
        with _statement(self.address):
            yield from self._client.execute_iter(sql)

    def insert(
        self, table: str, names: Sequence[str], columns: Sequence[Sequence[Any]], settings: Mapping[str, Any]
    ) -> None:
        """Insert rows given as columns of equal length, in one block. The columns are left as they are."""
        quoted = ", ".join(f"`{name}`" for name in names)
        with _insert(self.address):
            # Lists of its own, since the driver writes its own form of the values into them.
            data = [list(column) for column in columns]
            self._client.execute(
                f"INSERT INTO {table} ({quoted}) VALUES", data, columnar=True, settings=dict(settings)
            )

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()


# What the driver raises on a value that does not fit its column, depending on the column.
_OF_VALUES: Final = (
    errors.TypeMismatchError,
    errors.CannotParseUuidError,
    struct.error,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@contextmanager
def _connected(address: Address) -> Iterator[None]:
    """Translate what says that ClickHouse is not there."""
    try:
        yield
    except (errors.ServerException, *_OF_VALUES):
        raise
    except (errors.Error, EOFError, OSError) as error:
        raise ClickHouseUnavailable(
            f"ClickHouse at {address.host}:{address.port} does not answer: {_plain(error)}"
        ) from error


@contextmanager
def _statement(address: Address) -> Iterator[None]:
    try:
        with _connected(address):
            yield
    except errors.ServerException as error:
        if error.code in _NOT_NOW:
            raise ClickHouseUnavailable(message_of(error)) from error
        raise StatementRefused(message_of(error)) from error


@contextmanager
def _insert(address: Address) -> Iterator[None]:
    try:
        with _connected(address):
            yield
    except errors.ServerException as error:
        if error.code in _OF_ROWS:
            raise RowsRefused(message_of(error)) from error
        raise ClickHouseUnavailable(f"ClickHouse does not take rows: {message_of(error)}") from error
    except _OF_VALUES as error:
        raise RowsRefused(f"{type(error).__name__}: {error}") from error


def message_of(error: errors.ServerException) -> str:
    """What ClickHouse said, without the driver's frame and the server's stack."""
    return _PREFIX.sub("", _STACK.sub("", str(error).strip())).strip()


def _plain(error: BaseException) -> str:
    text = str(error).removeprefix(f"Code: {getattr(error, 'code', '')}.").strip()
    return text or type(error).__name__
