"""The embedded ClickHouse as a managed server: started, killed, frozen, misplaced and started again."""

import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import Error

from infra.embedded import ClickHouseEndpoint, ClickHouseServer, EmbeddedError, ServerDied, ServerNotReady

pytestmark = pytest.mark.clickhouse


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouseServer]:
    """Return a server that the test starts; it is ended afterwards."""
    server = ClickHouseServer(tmp_path)
    yield server
    server.down()


@contextmanager
def connected(endpoint: ClickHouseEndpoint) -> Iterator[Client]:
    client = Client(endpoint.host, port=endpoint.port, send_receive_timeout=60)
    try:
        yield client
    finally:
        client.disconnect()


def pid_of(server: ClickHouseServer) -> int:
    pid = server.status().pid
    assert pid is not None
    return pid


def kill(server: ClickHouseServer) -> None:
    os.kill(pid_of(server), signal.SIGKILL)
    while server.status().health != "dead":
        time.sleep(0.01)


def test_every_acknowledged_row_is_there_after_a_kill_under_load(server: ClickHouseServer) -> None:
    first = server.up()
    with connected(first) as client:
        client.execute(
            "CREATE TABLE t (writer UInt8, batch UInt32, n UInt8) ENGINE = MergeTree ORDER BY batch"
        )
    acknowledged: list[tuple[int, int]] = []
    enough = threading.Event()

    def write(writer: int) -> None:
        with connected(first) as own:
            for batch in itertools.count():
                try:
                    own.execute("INSERT INTO t VALUES", [(writer, batch, n) for n in range(100)])
                except (Error, OSError, EOFError):
                    return
                acknowledged.append((writer, batch))
                if len(acknowledged) > 60:
                    enough.set()

    with ThreadPoolExecutor(4) as pool:
        for writer in range(4):
            pool.submit(write, writer)
        assert enough.wait(60)
        kill(server)
    (server.data / "incoming" / "left").write_bytes(b"rows")

    second = server.up()

    with connected(second) as client:
        found = dict(client.execute("SELECT (writer, batch), count() FROM t GROUP BY 1"))
    assert second == first
    assert {batch: found.get(batch) for batch in acknowledged} == dict.fromkeys(acknowledged, 100)
    assert not list((server.data / "incoming").iterdir())


def test_addresses_and_data_survive_down_and_up_and_a_second_up_changes_nothing(
    server: ClickHouseServer,
) -> None:
    first = server.up()
    pid = pid_of(server)
    with connected(first) as client:
        client.execute("CREATE TABLE kept (a UInt8) ENGINE = MergeTree ORDER BY a")
        client.execute("INSERT INTO kept VALUES", [(7,)])
    assert server.up() == first
    assert pid_of(server) == pid

    server.down()
    server.down()
    down = server.status()

    assert (down.health, down.pid, down.endpoint) == ("down", None, first)
    assert not psutil.pid_exists(pid)
    assert server.up() == first
    with connected(first) as client:
        assert client.execute("SELECT a FROM kept") == [(7,)]


def test_addresses_that_somebody_took_are_replaced(server: ClickHouseServer) -> None:
    first = server.up()
    server.down()
    taken = [socket.create_server((first.host, port)) for port in (first.port, first.http_port)]
    try:
        second = server.up()
    finally:
        for one in taken:
            one.close()

    assert not {second.port, second.http_port} & {first.port, first.http_port}


def test_a_frozen_server_is_unreachable_and_up_says_so(server: ClickHouseServer, tmp_path: Path) -> None:
    endpoint, pid = server.up(), pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        status = server.status()
        with pytest.raises(ServerNotReady, match=f"the ClickHouse server .pid {pid}"):
            ClickHouseServer(tmp_path, start_seconds=0.1).up()
    finally:
        os.kill(pid, signal.SIGCONT)

    assert (status.health, status.pid) == ("unreachable", pid)
    assert server.up() == endpoint
    assert pid_of(server) == pid


def test_a_data_folder_that_another_process_has_is_refused_with_the_engines_words(
    server: ClickHouseServer, tmp_path: Path
) -> None:
    server.up()
    second = ClickHouseServer(tmp_path / "second")
    second.folder.mkdir(parents=True)
    second.data.symlink_to(server.data)

    with pytest.raises(ServerDied, match="Another process may have it open"):
        second.up()

    assert server.status().health == "ready"
    second.down()


def test_a_folder_of_any_name_will_do(tmp_path: Path) -> None:
    server = ClickHouseServer(tmp_path / "Bücher und 本's & <more>")
    try:
        with connected(server.up()) as client:
            client.execute("CREATE TABLE named (a UInt8) ENGINE = MergeTree ORDER BY a")
            client.execute("INSERT INTO named VALUES", [(1,)])
            assert client.execute("SELECT a FROM named") == [(1,)]
    finally:
        server.down()


def test_a_folder_that_the_engine_would_take_for_a_pattern_is_refused(tmp_path: Path) -> None:
    for name in ("a?b", "a*b", "a{1,2}"):
        with pytest.raises(EmbeddedError, match="choose a folder without"):
            ClickHouseServer(tmp_path / name)
