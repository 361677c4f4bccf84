"""The mail sandbox as a managed server: started, killed, frozen and started again."""

import os
import signal
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.embedded import Endpoint, SandboxServer, ServerNotReady

MESSAGE = "X-Opportune-Dispatch: 6ba7b810-9dad-11d1-80b4-00c04fd430c8\nSubject: hello\n\nhello\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SandboxServer]:
    """Return a server that the test starts; it is ended afterwards."""
    server = SandboxServer(tmp_path)
    yield server
    server.down()


def send(endpoint: Endpoint) -> None:
    with smtplib.SMTP(endpoint.host, endpoint.port, timeout=60) as client:
        client.sendmail("hello@opportune.example", ["someone@mail.example"], MESSAGE)


def pid_of(server: SandboxServer) -> int:
    pid = server.status().pid
    assert pid is not None
    return pid


def test_what_is_sent_is_kept_over_a_kill_and_the_address_too(server: SandboxServer) -> None:
    first = server.up()
    send(first)
    os.kill(pid_of(server), signal.SIGKILL)
    while server.status().health != "dead":
        time.sleep(0.01)

    second = server.up()
    send(second)

    assert second == first
    assert server.status().health == "ready"
    assert len(list(server.data.rglob("*.eml"))) == 2


def test_down_ends_the_process_and_keeps_the_address(server: SandboxServer) -> None:
    first = server.up()
    pid = pid_of(server)

    server.down()

    assert not psutil.pid_exists(pid)
    assert (server.status().health, server.status().endpoint) == ("down", first)
    assert server.up() == first


def test_a_frozen_sandbox_is_unreachable_and_up_says_so(server: SandboxServer, tmp_path: Path) -> None:
    server.up()
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        status = server.status()
        with pytest.raises(ServerNotReady, match=f"the mail sandbox .pid {pid}"):
            SandboxServer(tmp_path, start_seconds=0.1).up()
    finally:
        os.kill(pid, signal.SIGCONT)

    assert (status.health, status.pid) == ("unreachable", pid)


def test_a_server_that_is_discarded_leaves_nothing_and_starts_anew(server: SandboxServer) -> None:
    send(server.up())
    pid = pid_of(server)
    server.discard()
    assert not psutil.pid_exists(pid)
    assert not server.folder.exists()
    server.up()
    assert list(server.folder.rglob("*.eml")) == []
