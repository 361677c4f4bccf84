"""What servers that never ran say and write, and what their folders are for."""

from pathlib import Path

import pytest

from infra.embedded import ClickHouseEndpoint, ClickHouseServer, SandboxServer
from infra.embedded.process import write_record

SERVERS = (ClickHouseServer, SandboxServer)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_never_ran_is_down_and_nothing_is_written(
    kind: type[ClickHouseServer] | type[SandboxServer], tmp_path: Path
) -> None:
    status = kind(tmp_path / "state").status()

    assert (status.health, status.endpoint, status.pid, status.uptime) == ("down", None, None, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", SERVERS)
def test_down_before_the_first_up_changes_nothing(
    kind: type[ClickHouseServer] | type[SandboxServer], tmp_path: Path
) -> None:
    server = kind(tmp_path)

    server.down()

    assert server.status().health == "down"


def test_a_clickhouse_has_an_address_for_each_protocol(tmp_path: Path) -> None:
    server = ClickHouseServer(tmp_path)
    server.folder.mkdir()
    write_record(server.folder / "ports.json", {"native": 21001, "http": 21002})

    endpoint = server.status().endpoint

    assert endpoint == ClickHouseEndpoint("127.0.0.1", 21001, 21002)
    assert str(endpoint) == "127.0.0.1:21001"


def test_a_sandbox_keeps_its_mail_in_its_own_folder(tmp_path: Path) -> None:
    assert SandboxServer(tmp_path).status().data == tmp_path / "sandbox"
