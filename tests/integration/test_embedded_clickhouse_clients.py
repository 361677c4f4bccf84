"""The embedded ClickHouse with an analyst's clients: clickhouse-connect, curl, Debian's clickhouse-client."""

import gzip
import http.client
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from infra.embedded import ClickHouseEndpoint, ClickHouseServer

pytestmark = pytest.mark.clickhouse

DEBIANS = shutil.which("clickhouse-client")
ENDLESS = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"
COLUMNS = {
    "id": ("UUID", [uuid.UUID(int=1), uuid.UUID(int=2)]),
    "at": ("DateTime64(3, 'UTC')", [datetime(2026, 3, 29, 1, 30, 0, 5000, tzinfo=UTC)] * 2),
    "lane": ("LowCardinality(String)", ["gmail", "other"]),
    "score": ("Nullable(Float64)", [None, 0.5]),
    "features": ("Map(String, Float64)", [{}, {"clicks_7d": 3.0}]),
    "why": ("Array(Tuple(String, UInt8))", [[("a", 1)], []]),
    "n": ("UInt64", [1, 2]),
    "a": ("UInt8", [1, 2]),
    "b": ("UInt8", [1, 2]),
    "c": ("UInt8", [1, 2]),  # the tenth: a block of ten columns begins with a line end
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseEndpoint]:
    server = ClickHouseServer(tmp_path_factory.mktemp("clients"))
    yield server.up()
    server.down()


@pytest.fixture(params=[False, "lz4", "gzip"])
def client(endpoint: ClickHouseEndpoint, request: pytest.FixtureRequest) -> Iterator[Client]:
    client = clickhouse_connect.get_client(
        host=endpoint.host, port=endpoint.http_port, compress=request.param
    )
    yield client
    client.close()


def create(client: Client, columns: str) -> str:
    table = f"t_{uuid.uuid4().hex}"
    client.command(f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY tuple()")
    return table


def test_what_connect_inserts_it_reads_back(client: Client) -> None:
    table = create(client, ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items()))
    rows = [list(row) for row in zip(*(values for _, values in COLUMNS.values()), strict=True)]

    client.insert(table, rows, column_names=list(COLUMNS))
    found = client.query(f"SELECT * FROM {table} ORDER BY n", tz_mode="aware")  # noqa: S608

    assert found.column_names == tuple(COLUMNS)
    assert [list(row) for row in found.result_rows] == rows


def test_connect_inserts_many_blocks(client: Client) -> None:
    table = create(client, "n UInt64, s String")
    rows = [[number, f"{number}" * 20] for number in range(300_000)]

    client.insert(table, rows, column_names=["n", "s"])

    assert client.command(f"SELECT uniqExact(n, s) FROM {table}") == len(rows)  # noqa: S608


def test_connect_reads_many_blocks_and_none(client: Client) -> None:
    many = client.query("SELECT number, toString(number) AS s FROM numbers(200000)")
    none = client.query("SELECT number, toLowCardinality('a') AS s FROM numbers(0)")

    assert many.result_rows == [(number, str(number)) for number in range(200_000)]
    assert (none.column_names, none.result_rows) == (("number", "s"), [])


def test_connect_binds_parameters_on_the_server_and_passes_settings(client: Client) -> None:
    found = client.query(
        "SELECT {name:String}, getSetting('max_block_size')",
        parameters={"name": "it's; ü"},
        settings={"max_block_size": 17},
    )

    assert found.result_rows == [("it's; ü", 17)]


def test_connect_gets_results_of_statements_that_are_no_select(client: Client) -> None:
    table = create(client, "a UInt8")

    assert client.command(f"EXISTS TABLE {table}") == 1
    assert (table,) in client.query("SHOW TABLES").result_rows
    assert client.raw_query("SELECT 1 AS one", fmt="JSONEachRow") == b'{"one":1}\n'


def test_connect_is_told_what_is_wrong(client: Client) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        client.query("SELECT * FROM nothing_such")
    with pytest.raises(DatabaseError, match="several statements"):
        client.command("SELECT 1; SELECT 2")
    with pytest.raises(ClickHouseError, match="FUNCTION_THROW_IF"):
        client.query("SELECT throwIf(number = 200000) FROM numbers(300000)").result_rows  # noqa: B018
    assert client.command("SELECT 1") == 1


def test_rows_that_a_constraint_forbids_are_refused_and_not_stored(client: Client) -> None:
    table = create(client, "a UInt8, CONSTRAINT small CHECK a < 10")

    with pytest.raises(DatabaseError, match="VIOLATED_CONSTRAINT"):
        client.insert(table, [[1], [50]], column_names=["a"])

    assert client.command(f"SELECT count() FROM {table}") == 0  # noqa: S608


def test_nobody_but_the_default_user_gets_in(endpoint: ClickHouseEndpoint) -> None:
    with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
        clickhouse_connect.get_client(host=endpoint.host, port=endpoint.http_port, username="ann")


def ask(
    endpoint: ClickHouseEndpoint, method: str, body: Any = None, **arguments: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.http_port, timeout=60)
    try:
        headers = {"Content-Encoding": "gzip"} if isinstance(body, bytes) and body[:2] == b"\x1f\x8b" else {}
        connection.request(method, f"/?{urlencode(arguments)}", body, headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def test_curl_can_ask_in_the_address_and_in_the_body(endpoint: ClickHouseEndpoint) -> None:
    assert ask(endpoint, "GET", query="SELECT 1")[:2] == (200, b"1\n")
    assert ask(endpoint, "POST", "SELECT 'ü' FORMAT CSV".encode())[:2] == (200, '"ü"\n'.encode())
    assert ask(endpoint, "POST", b"1", query="SELECT 1 +")[:2] == (200, b"2\n")
    assert ask(endpoint, "POST", iter([b"SELECT ", b"1"]))[:2] == (200, b"1\n")
    assert ask(endpoint, "GET", query="SELECT 1 AS a", default_format="JSONEachRow")[1] == b'{"a":1}\n'


def test_curl_can_insert_rows_of_any_format(endpoint: ClickHouseEndpoint) -> None:
    ask(endpoint, "POST", b"CREATE TABLE curled (a UInt8, b String) ENGINE = MergeTree ORDER BY a")

    for body, arguments in (
        (b"1,one\n", {"query": "INSERT INTO curled FORMAT CSV"}),
        (b"INSERT INTO curled VALUES (2, 'two; three')", {}),
        (
            gzip.compress(b'{"a":3}\n') + gzip.compress(b'{"a":5}\n'),
            {"query": "INSERT INTO curled (a) FORMAT JSONEachRow"},
        ),
        (b"", {"query": "INSERT INTO curled VALUES (4, 'four')"}),
    ):
        assert ask(endpoint, "POST", body, **arguments)[:2] == (200, b"")

    found = ask(endpoint, "GET", query="SELECT * FROM curled ORDER BY a")[1]
    assert found == b"1\tone\n2\ttwo; three\n3\t\n4\tfour\n5\t\n"


def test_a_body_that_is_cut_short_is_refused_and_nothing_of_it_stored(endpoint: ClickHouseEndpoint) -> None:
    ask(endpoint, "POST", b"CREATE TABLE short (a UInt32) ENGINE = MergeTree ORDER BY a")
    rows = gzip.compress(b"".join(b"%d\n" % number for number in range(10_000)))

    status, said, _ = ask(endpoint, "POST", rows[:-100], query="INSERT INTO short FORMAT CSV")

    assert status == 400
    assert b"cut short" in said
    assert ask(endpoint, "GET", query="SELECT count() FROM short")[1] == b"0\n"


def test_a_get_changes_nothing(endpoint: ClickHouseEndpoint) -> None:
    status, said, headers = ask(endpoint, "GET", query="CREATE TABLE got (a UInt8) ENGINE = Memory")

    assert (status, headers["X-ClickHouse-Exception-Code"]) == (400, "164")
    assert b"READONLY" in said


def test_the_query_of_an_http_client_that_goes_away_ends(endpoint: ClickHouseEndpoint) -> None:
    def running() -> bool:
        asked = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sum(sip%'"
        return ask(endpoint, "GET", query=asked)[1] != b"0\n"

    connection = http.client.HTTPConnection(endpoint.host, endpoint.http_port)
    connection.request("POST", "/", ENDLESS.encode())
    deadline = time.monotonic() + 60
    while not running():
        assert time.monotonic() < deadline

    connection.close()

    while running():
        assert time.monotonic() < deadline


@pytest.mark.skipif(DEBIANS is None, reason="clickhouse-client is not installed")
def test_debians_client_queries_and_inserts(endpoint: ClickHouseEndpoint) -> None:
    def run(query: str, rows: str = "") -> str:
        done = subprocess.run(  # noqa: S603 - a client that is installed here
            [str(DEBIANS), "--host", endpoint.host, "--port", str(endpoint.port), "--query", query],
            input=rows,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout or done.stderr

    run("CREATE TABLE debian (a UInt8, b Array(String)) ENGINE = MergeTree ORDER BY a")
    run("INSERT INTO debian FORMAT CSV", "1,\"['x','y']\"\n2,[]\n")
    run("INSERT INTO debian VALUES (3, ['z'])")

    assert run("SELECT * FROM debian ORDER BY a") == "1\t['x','y']\n2\t[]\n3\t['z']\n"
    assert "UNKNOWN_TABLE" in run("SELECT * FROM nothing_such")
