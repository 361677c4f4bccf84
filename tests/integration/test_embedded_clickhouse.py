"""The embedded ClickHouse with clickhouse-driver: asked, refused, cancelled, left alone."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from infra.embedded import ClickHouseEndpoint, ClickHouseServer

pytestmark = pytest.mark.clickhouse

ENDLESS = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"
ID = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
MOMENT = datetime(2026, 3, 29, 1, 30, 0, 123000, tzinfo=UTC)
# Two values of every type that the audit tables use, and of some more.
VALUES: dict[str, list[Any]] = {
    "UInt8": [0, 255],
    "Int64": [-(2**63), 2**63 - 1],
    "UInt256": [0, 2**256 - 1],
    "Bool": [True, False],
    "Float64": [0.1, -1e300],
    "String": ["", "ü" * 200],
    "FixedString(3)": ["abc", "xyz"],
    "UUID": [ID, uuid.UUID(int=0)],
    "Date": [MOMENT.date(), MOMENT.date()],
    "DateTime('UTC')": [MOMENT.replace(microsecond=0)] * 2,
    "DateTime('Europe/Berlin')": [MOMENT.replace(microsecond=0)] * 2,
    "DateTime": [datetime(2026, 3, 29, 1, 30), datetime(1970, 1, 1)],
    "DateTime64(3, 'UTC')": [MOMENT, datetime(1970, 1, 1, tzinfo=UTC)],
    "Decimal(18, 2)": [Decimal("12.34"), Decimal("-0.01")],
    "Enum8('sent' = 1, 'skipped, (why)' = 2)": ["sent", "skipped, (why)"],
    "Nullable(UInt32)": [None, 7],
    "Nullable(String)": ["", None],
    "LowCardinality(String)": ["gmail", "gmail"],
    "LowCardinality(Nullable(String))": [None, "other"],
    "Array(String)": [[], ["a", "b"]],
    "Array(Array(Nullable(UInt8)))": [[[1, None], []], []],
    "Array(LowCardinality(String))": [["a", "b", "a"], []],
    "Map(String, Float64)": [{}, {"clicks_7d": 3.0, "revenue": 0.5}],
    "Map(LowCardinality(String), String)": [{"a": "b"}, {}],
    "Tuple(UInt8, String)": [(1, "a"), (2, "")],
    "Array(Tuple(String, Float64, Array(UInt8)))": [[("a", 1.5, [1, 2])], []],
    "Array(Tuple(name String, score Nullable(Float32)))": [[("a", None), ("b", 0.5)], []],
    "IPv4": [IPv4Address("127.0.0.1"), IPv4Address("10.0.0.1")],
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """Return a running server for the tests that leave it running."""
    server = ClickHouseServer(tmp_path_factory.mktemp("running"))
    server.up()
    yield server
    server.down()


@pytest.fixture(scope="module")
def endpoint(running: ClickHouseServer) -> ClickHouseEndpoint:
    return running.up()


@pytest.fixture
def client(endpoint: ClickHouseEndpoint) -> Iterator[Client]:
    with connected(endpoint) as client:
        yield client


@contextmanager
def connected(endpoint: ClickHouseEndpoint, **options: Any) -> Iterator[Client]:
    client = Client(endpoint.host, port=endpoint.port, send_receive_timeout=60, **options)
    try:
        yield client
    finally:
        client.disconnect()


def create(client: Client, columns: str, settings: str = "") -> str:
    """Return the name of a new table."""
    table = f"t_{uuid.uuid4().hex}"
    client.execute(f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY tuple() {settings}")
    return table


def count(client: Client, table: str) -> int:
    return int(client.execute(f"SELECT count() FROM {table}")[0][0])  # noqa: S608


def queries(client: Client, text: str) -> int:
    """Return how many running queries contain `text`, this one not counted."""
    found = client.execute("SELECT query FROM system.processes")
    return sum(text in query and "system.processes" not in query for (query,) in found)


def send(client: Client, query: str) -> None:
    """Send a query without waiting for its result."""
    client.connection.force_connect()
    client.connection.send_query(query)
    client.connection.send_external_tables([])


def eventually(holds: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 60.0
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("compression", [False, "lz4"])
@pytest.mark.parametrize("columnar", [False, True], ids=["rows", "columns"])
def test_values_of_every_type_come_back_as_they_were_inserted(
    endpoint: ClickHouseEndpoint, compression: bool | str, columnar: bool
) -> None:
    with connected(endpoint, compression=compression) as client:
        names = [f"c{number}" for number in range(len(VALUES))]
        kinds = ", ".join(f"{name} {kind}" for name, kind in zip(names, VALUES, strict=True))
        table = create(client, f"n UInt8, {kinds}")
        columns = [[1, 2], *VALUES.values()]
        data = columns if columnar else list(zip(*columns, strict=True))

        client.execute(f"INSERT INTO {table} (n, {', '.join(names)}) VALUES", data, columnar=columnar)
        found = client.execute(f"SELECT * FROM {table} ORDER BY n", columnar=True)  # noqa: S608

    assert [list(column) for column in found] == columns
    zones = {str(moment.tzinfo) for column in found for moment in column if isinstance(moment, datetime)}
    assert zones == {"UTC", "Europe/Berlin", "None"}


@pytest.mark.parametrize("compression", [False, "lz4"])
def test_blocks_larger_than_what_a_socket_takes_at_once_come_whole(
    endpoint: ClickHouseEndpoint, compression: bool | str
) -> None:
    rows = [(number, f"{number}" * 40, [f"{number}"] * 3) for number in range(50_000)]
    with connected(endpoint, compression=compression) as client:
        table = create(client, "n UInt64, s String, a Array(String)")
        for _ in range(2):  # on one connection, so that a block's end must have been found
            assert client.execute(f"INSERT INTO {table} VALUES", rows) == len(rows)

        found = client.execute(f"SELECT DISTINCT * FROM {table} ORDER BY n")  # noqa: S608
        assert count(client, table) == 2 * len(rows)

    assert found == rows


def test_columns_have_types_where_there_are_no_rows(client: Client) -> None:
    table = create(client, "a Map(String, Float64), b Array(Tuple(x UInt8, y String))")

    rows, columns = client.execute(f"SELECT * FROM {table}", with_column_types=True)  # noqa: S608

    assert rows == []
    assert columns == [("a", "Map(String, Float64)"), ("b", "Array(Tuple(x UInt8, y String))")]


def test_statements_that_are_no_select_have_results(client: Client) -> None:
    table = create(client, "a UInt8")

    assert (table,) in client.execute("SHOW TABLES")
    assert client.execute(f"EXISTS TABLE {table}") == [(1,)]
    assert client.execute("EXPLAIN SELECT 1")
    assert client.execute(f"INSERT INTO {table} SELECT number FROM numbers(3)") == []  # noqa: S608
    assert count(client, table) == 3


def test_defaults_fill_in_for_columns_that_an_insert_does_not_name(client: Client) -> None:
    table = create(client, "a UInt8, b UInt8 DEFAULT a + 1, c UInt8 MATERIALIZED a + 2")
    client.execute(f"INSERT INTO {table} VALUES", [{"a": 1, "b": 9}])
    client.execute(f"INSERT INTO {table} (a) VALUES", [(2,)])

    found = client.execute(f"SELECT a, b, c FROM {table} ORDER BY a")  # noqa: S608

    assert found == [(1, 9, 3), (2, 3, 4)]


def test_a_repeated_insert_with_the_same_token_counts_once(client: Client) -> None:
    table = create(client, "a UInt8", "SETTINGS non_replicated_deduplication_window = 100")
    for token in ("cut-1", "cut-1", "cut-2"):
        client.execute(f"INSERT INTO {table} VALUES", [(1,)], settings={"insert_deduplication_token": token})

    assert count(client, table) == 2


def test_a_setting_holds_for_its_query_only(client: Client) -> None:
    ask = "SELECT value FROM system.settings WHERE name = 'max_block_size'"
    before = client.execute(ask)

    assert client.execute(ask, settings={"max_block_size": 17}) == [("17",)]
    assert client.execute(ask) == before


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("SELECT", 62),
        ("SELECT 1; SELECT 2", 62),
        ("SELECT 1; SET ROLE ALL", 62),
        ("SELECT nothing_such(1)", 46),
        ("SELECT * FROM nothing_such", 60),
        ("SELECT throwIf(number = 200000) FROM numbers(300000)", 395),
        ("SELECT count() FROM numbers(1) SETTINGS nothing_such = 1", 115),
    ],
)
def test_a_refused_query_has_its_code_and_leaves_the_connection_usable(
    client: Client, statement: str, code: int
) -> None:
    with pytest.raises(ServerException) as refused:
        client.execute(statement)

    assert refused.value.code == code
    assert client.execute("SELECT 1") == [(1,)]


def test_rows_that_a_constraint_forbids_are_refused_with_469_and_not_stored(client: Client) -> None:
    table = create(client, "a UInt8, CONSTRAINT small CHECK a < 10")

    with pytest.raises(ServerException) as refused:
        client.execute(f"INSERT INTO {table} VALUES", [(1,), (50,)])

    assert refused.value.code == 469
    assert count(client, table) == 0


def test_too_many_parts_are_refused_with_252(client: Client) -> None:
    table = create(client, "a UInt8", "SETTINGS parts_to_throw_insert = 2, parts_to_delay_insert = 0")
    client.execute(f"SYSTEM STOP MERGES {table}")

    with pytest.raises(ServerException) as refused:
        for number in range(5):
            client.execute(f"INSERT INTO {table} VALUES", [(number,)])

    assert refused.value.code == 252
    assert count(client, table) == 2


@pytest.mark.parametrize(
    ("columns", "insert", "code"),
    [
        ("a UInt8", "INSERT INTO nothing_such VALUES", 60),
        ("a UInt8", "INSERT INTO {table} (b) VALUES", 16),
        ("a JSON", "INSERT INTO {table} VALUES", 48),
    ],
)
def test_an_insert_that_cannot_be_is_refused_before_its_rows(
    client: Client, columns: str, insert: str, code: int
) -> None:
    table = create(client, columns)

    with pytest.raises(ServerException) as refused:
        client.execute(insert.format(table=table), [(1,)])

    assert refused.value.code == code
    assert count(client, table) == 0


def test_an_external_table_is_refused_and_the_connection_stays_usable(client: Client) -> None:
    external = [{"name": "wanted", "structure": [("a", "UInt8")], "data": [{"a": 1}]}]

    with pytest.raises(ServerException, match="external tables are not served"):
        client.execute("SELECT * FROM wanted", external_tables=external)

    assert client.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize("who", [{"user": "ann"}, {"password": "guess"}])
def test_nobody_but_the_default_user_gets_in(endpoint: ClickHouseEndpoint, who: dict[str, str]) -> None:
    with connected(endpoint, **who) as client, pytest.raises(ServerException) as refused:
        client.execute("SELECT 1")

    assert refused.value.code == 516


def test_a_database_that_is_not_there_is_refused_with_81(endpoint: ClickHouseEndpoint) -> None:
    with connected(endpoint, database="nothing_such") as client, pytest.raises(ServerException) as refused:
        client.execute("SELECT 1")

    assert refused.value.code == 81


def test_four_writers_at_once_lose_nothing(endpoint: ClickHouseEndpoint, client: Client) -> None:
    table = create(client, "writer UInt8, n UInt32, s String")

    def write(writer: int) -> None:
        with connected(endpoint, compression="lz4") as own:
            for batch in range(10):
                rows = [(writer, batch * 500 + n, f"{n}") for n in range(500)]
                own.execute(f"INSERT INTO {table} VALUES", rows)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    found = client.execute(f"SELECT writer, count(), uniq(n) FROM {table} GROUP BY 1 ORDER BY 1")  # noqa: S608
    assert found == [(writer, 5000, 5000) for writer in range(4)]


def test_a_cancelled_query_ends_and_its_connection_is_usable(
    endpoint: ClickHouseEndpoint, client: Client
) -> None:
    with connected(endpoint) as other:
        send(other, ENDLESS)
        assert eventually(lambda: queries(client, ENDLESS))

        other.cancel()

        assert queries(client, ENDLESS) == 0
        assert other.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize("endless", [ENDLESS, "SELECT number FROM numbers(1000000000000)"])
def test_the_query_of_a_client_that_goes_away_ends_and_others_go_on(
    endpoint: ClickHouseEndpoint, client: Client, endless: str
) -> None:
    with connected(endpoint) as gone:
        send(gone, endless)
        assert eventually(lambda: queries(client, endless))

    assert eventually(lambda: not queries(client, endless))
    assert client.execute("SELECT 1") == [(1,)]


def test_an_insert_of_a_client_that_goes_away_leaves_no_row_and_no_file(
    running: ClickHouseServer, endpoint: ClickHouseEndpoint, client: Client
) -> None:
    table = create(client, "a UInt64")

    def rows() -> Iterator[tuple[int]]:
        yield from ((n,) for n in range(1000))
        raise InterruptedError

    with connected(endpoint, settings={"insert_block_size": 100}) as gone, pytest.raises(InterruptedError):
        gone.execute(f"INSERT INTO {table} VALUES", rows())

    assert eventually(lambda: not list((running.data / "incoming").iterdir()))
    assert count(client, table) == 0
