"""The embedded ClickHouse reaches nothing outside of its folder, whoever asks and however."""

import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from infra.embedded import ClickHouseEndpoint, ClickHouseServer

pytestmark = pytest.mark.clickhouse

# ACCESS_DENIED, SETTING_CONSTRAINT_VIOLATION, READONLY, and what is switched off: SUPPORT_IS_DISABLED,
# FUNCTION_NOT_ALLOWED, QUERY_IS_PROHIBITED.
DENIED = {"497", "452", "164", "344", "446", "392"}
# Whatever else the engine has reaches outward; one that is new to it has to be looked at.
LOCAL_ENGINES = frozenset(
    {
        "AggregatingMergeTree",
        "Alias",
        "ArrowStream",
        "Buffer",
        "CoalescingMergeTree",
        "CollapsingMergeTree",
        "Dictionary",
        "GenerateRandom",
        "GraphiteMergeTree",
        "Join",
        "Log",
        "Loop",
        "MaterializedView",
        "Memory",
        "Merge",
        "MergeTree",
        "Null",
        "ReplacingMergeTree",
        "ReplicatedAggregatingMergeTree",
        "ReplicatedCoalescingMergeTree",
        "ReplicatedCollapsingMergeTree",
        "ReplicatedGraphiteMergeTree",
        "ReplicatedMergeTree",
        "ReplicatedReplacingMergeTree",
        "ReplicatedSummingMergeTree",
        "ReplicatedVersionedCollapsingMergeTree",
        "Set",
        "StripeLog",
        "SummingMergeTree",
        "TimeSeries",
        "TinyLog",
        "VersionedCollapsingMergeTree",
        "View",
    }
)
READS = [
    "SELECT * FROM file('{key}', 'LineAsString')",
    "SELECT file('{key}')",
    "SELECT `file`('{key}')",
    "SELECT `\\x66ile`('{key}')",
    "SELECT file // '\n('{key}') -- '",
    "SELECT file # '\n('{key}') -- '",
    "SELECT 1 /* /* */ ' */, file('{key}') -- '",
    "SELECT ‘ ' ’, file('{key}') -- '",
    "SELECT “file”('{key}')",
    "SELECT 1 --'\n, file('{key}') -- '",
    "SELECT 1 AS a$$, file('{key}') AS b$$",
    "SELECT * APPLY file FROM (SELECT '{key}')",
    "SELECT arrayMap(file, ['{key}'])",
    "SELECT * FROM eval('SELECT fi' || 'le(1)') SETTINGS allow_experimental_eval_table_function = 1",
    "SELECT * FROM python('reader') SETTINGS allow_python_table_function = 1",
    "SELECT * FROM _local.`{key}`",
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '{key}'",
    "SELECT * FROM sqlite('{key}', 't')",
    "SELECT * FROM filesystem('{folder}')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1:1', system.one)",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/a', 'TSV')",
    "SELECT * FROM executable('ls', 'TSV', 'a String')",
]
WRITES = [
    "INSERT INTO FUNCTION file('{folder}/written', 'LineAsString') SELECT 'x'",
    "INSERT INTO FUNCTION url('http://127.0.0.1:1/', 'LineAsString') SELECT 'x'",
    "SELECT 'x' INTO OUTFILE '{folder}/written'",
    "SELECT 'x' INTO/**/OUTFILE '{folder}/written'",
    "EXPLAIN SELECT 1 INTO OUTFILE '{folder}/written'",
    "CREATE TABLE got ENGINE = Memory AS SELECT * FROM file('{key}', 'LineAsString')",
    "CREATE VIEW got AS SELECT file('{key}')",
    "CREATE TEMPORARY TABLE got (a String) ENGINE = File(TSV)",
    "CREATE TABLE got (a UInt8) ENGINE = MergeTree ORDER BY a "
    "SETTINGS disk = disk(type = local, path = '/x/')",
    "CREATE DICTIONARY got (a UInt8) PRIMARY KEY a SOURCE(HTTP(URL 'http://127.0.0.1:1' FORMAT 'TSV')) "
    "LAYOUT(FLAT()) LIFETIME(0)",
    "CREATE DATABASE got ENGINE = Filesystem('{folder}')",
    "CREATE FUNCTION got AS (a) -> a",
    "CREATE USER got",
    "GRANT FILE ON *.* TO default",
    "BACKUP TABLE kept TO File('{folder}/written')",
    "RESTORE TABLE kept FROM File('{folder}/written')",
    "INSERT INTO kept FROM INFILE '{key}' FORMAT LineAsString",
    "SYSTEM SHUTDOWN",
    "SET dialect = 'kusto'",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rights")
    (folder / "key").write_text("secret\n")
    return folder


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[ClickHouseEndpoint]:
    server = ClickHouseServer(folder / "state")
    endpoint = server.up()
    client = Client(endpoint.host, port=endpoint.port)
    client.execute("CREATE TABLE kept (a String) ENGINE = MergeTree ORDER BY a")
    client.disconnect()
    yield endpoint
    server.down()


@pytest.fixture
def client(endpoint: ClickHouseEndpoint) -> Iterator[Client]:
    client = Client(endpoint.host, port=endpoint.port)
    yield client
    client.disconnect()


def request(
    endpoint: ClickHouseEndpoint, method: str, sql: str, arguments: dict[str, str], **headers: str
) -> tuple[int, str, str]:
    """Return an answer's status, error code and text."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.http_port, timeout=60)
    try:
        connection.request(
            method,
            "/?" + urlencode(({"query": sql} if method == "GET" else {}) | arguments),
            sql.encode() if method == "POST" else None,
            {name.replace("_", "-"): value for name, value in headers.items()},
        )
        answer = connection.getresponse()
        return answer.status, answer.headers.get("X-ClickHouse-Exception-Code", ""), answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("statement", READS + WRITES)
def test_no_statement_reaches_out_of_the_folder(
    endpoint: ClickHouseEndpoint, client: Client, folder: Path, statement: str
) -> None:
    sql = statement.format(key=folder / "key", folder=folder)

    with pytest.raises(ServerException) as refused:
        client.execute(sql)
    answers = [request(endpoint, method, sql, {}) for method in ("GET", "POST")]

    assert "secret" not in str(refused.value)
    assert str(refused.value.code) in {*DENIED, "60", "62"}
    for status, code, said in answers:
        assert status >= 400
        assert code in {*DENIED, "62"}
        assert "secret" not in said
    assert not (folder / "written").exists()
    assert client.execute("SELECT count() FROM kept") == [(0,)]


@pytest.mark.parametrize(
    "into",
    [
        "INSERT INTO kept/**/FROM/**/INFILE/**/'{key}' FORMAT LineAsString",
        "INSERT INTO kept/* SETTINGS '*/ FROM INFILE '{key}' -- FORMAT LineAsString",
        "INSERT INTO `kept\\`` SETTINGS '` FROM INFILE '{key}' -- FORMAT LineAsString",
        "INSERT INTO kept SETTINGS a = 1 FROM INFILE '{key}' FORMAT LineAsString",
    ],
)
def test_an_insert_that_names_a_file_beside_its_rows_is_refused(
    endpoint: ClickHouseEndpoint, client: Client, folder: Path, into: str
) -> None:
    sql = into.format(key=folder / "key")

    assert request(endpoint, "POST", f"{sql}\nrow\n", {})[1] in {"497", "62"}
    assert client.execute("SELECT count() FROM kept") == [(0,)]


def test_tables_of_a_folder_from_before_stay(tmp_path: Path) -> None:
    server = ClickHouseServer(tmp_path)
    server.data.mkdir(parents=True)
    before = (
        "import chdb, os, sys; engine = chdb.connect(sys.argv[1]);"
        "engine.query('CREATE TABLE default.old (a UInt8) ENGINE = MergeTree ORDER BY a');"
        "engine.query('INSERT INTO default.old VALUES (7)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", before, str(server.data)], check=True, timeout=60)  # noqa: S603
    try:
        for rows in ([(7,)], [(7,), (7,)]):
            endpoint = server.up()
            client = Client(endpoint.host, port=endpoint.port)
            found = client.execute("SELECT a FROM old")
            client.execute("INSERT INTO old VALUES", [(7,)])
            client.disconnect()
            assert found == rows
            server.down()
    finally:
        server.down()


def test_every_table_engine_that_reaches_out_is_refused(client: Client) -> None:
    names = {name for (name,) in client.execute("SELECT name FROM system.table_engines")}
    refused = set()
    for name in names:
        with pytest.raises(ServerException) as raised:
            client.execute(f"CREATE TABLE reaching (a UInt8) ENGINE = {name}('no', 'such', 'thing', 'here')")
        if raised.value.code == 497:
            refused.add(name)

    assert names - refused <= LOCAL_ENGINES


def test_what_a_text_says_of_files_is_no_matter(client: Client) -> None:
    assert client.execute("SELECT 'file', 'INTO OUTFILE' AS a -- to a page") == [("file", "INTO OUTFILE")]
    assert client.execute("SELECT count() FROM view(SELECT * FROM numbers(3))") == [(3,)]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_web_page_is_refused(endpoint: ClickHouseEndpoint, method: str, headers: dict[str, str]) -> None:
    assert request(endpoint, method, "SELECT 1", {}, **headers)[0] == 403


@pytest.mark.parametrize(
    "headers", [{"Host": "localhost"}, {"Host": "[::1]:8123"}, {"Sec_Fetch_Site": "none"}]
)
def test_this_machine_is_answered(endpoint: ClickHouseEndpoint, headers: dict[str, str]) -> None:
    assert request(endpoint, "GET", "SELECT 1", {}, **headers) == (200, "", "1\n")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO kept VALUES ('x')",
        "INSERT INTO kept SELECT 'x'",
        "WITH 'x' AS a INSERT INTO kept SELECT a",
        "CREATE TEMPORARY TABLE t (a UInt8)",
        "KILL QUERY WHERE 1",
        "SYSTEM START MERGES",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
    ],
)
def test_a_get_only_reads_whatever_its_address_says(
    endpoint: ClickHouseEndpoint, client: Client, statement: str
) -> None:
    assert request(endpoint, "GET", statement, {"readonly": "0"})[:2] == (400, "164")
    assert client.execute("SELECT count() FROM kept") == [(0,)]
