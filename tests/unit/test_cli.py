"""The command line's edges: bad settings and missing servers are told, not thrown."""

import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer

from schemas.settings import Settings
from streams.cli import expected
from streams.cli.main import COMMANDS, application
from streams.cluster import NoKafka
from streams.engine.kafka import KafkaUnavailable
from streams.web import PortTaken, listen

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "streams.cli.main", *command],
        env=os.environ | {"OPPORTUNE_STATE_DIR": str(folder), "COLUMNS": "300"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_each_command_is_there_when_only_its_own_modules_are() -> None:
    whole = typer.main.get_command(application()).commands  # type: ignore[attr-defined]
    assert set(whole) == COMMANDS.keys()
    for name in COMMANDS:
        assert name in typer.main.get_command(application(name)).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["lanes publish", "model guard", "model promote", "model ope"])
def test_a_group_has_the_commands_of_all_its_modules(tmp_path: Path, command: str) -> None:
    assert run(tmp_path, *command.split(), "--help").returncode == 0


def test_a_setting_of_the_wrong_kind_is_named_with_where_to_set_it(tmp_path: Path) -> None:
    told = run(tmp_path, "status", OPPORTUNE_PARTITIONS="many")
    assert told.returncode == 1
    assert "OPPORTUNE_PARTITIONS" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"partitons = 3", "no setting partitons; did you mean partitions?"),
        (b"partitions = ", "TOML"),
        (b"brokers = '\xff'", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: bytes, named: str) -> None:
    (tmp_path / "mine.toml").write_bytes(text)
    told = run(tmp_path, "status", OPPORTUNE_CONFIG=str(tmp_path / "mine.toml"))
    assert told.returncode == 1
    assert named in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("command", [["run", "decide"], ["explain", "ann"], ["reconcile"], ["report"]])
def test_without_kafka_every_command_says_how_to_get_one(tmp_path: Path, command: list[str]) -> None:
    told = run(tmp_path, *command)
    assert told.returncode == 1
    assert "opportune up" in told.stderr


def test_a_policy_with_a_mistake_names_file_and_field(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "odd.toml").write_text(
        'number = 1\nname = "odd"\nwhere = "x"\nwher = "y"\ndoc = ""'
    )
    told = run(tmp_path, "run", "decide", OPPORTUNE_POLICY_DIR=str(tmp_path), OPPORTUNE_BROKERS="127.0.0.1:1")
    assert told.returncode == 1
    assert "odd.toml" in told.stderr
    assert "wher" in told.stderr


def test_a_static_member_needs_a_fixed_port(tmp_path: Path) -> None:
    told = run(tmp_path, "run", "decide", OPPORTUNE_WORKER_ID="one")
    assert told.returncode == 1
    assert "web_port" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_config_that_is_not_there_is_an_error_and_not_the_defaults(tmp_path: Path) -> None:
    told = run(tmp_path, "status", OPPORTUNE_CONFIG=str(tmp_path / "nowhere.toml"))
    assert told.returncode == 1
    assert "nowhere.toml" in told.stderr


def test_a_config_that_is_a_folder_is_an_error_and_not_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "opportune.toml").mkdir()
    monkeypatch.chdir(tmp_path)
    told = run(tmp_path, "status", PYTHONPATH=str(ROOT))
    assert told.returncode == 1
    assert "opportune.toml is a folder" in told.stderr


@pytest.mark.parametrize("command", ["up", "status", "down", "run all"])
def test_a_state_folder_that_cannot_be_is_named(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    told = run(tmp_path / "file" / "state", *command.split(), OPPORTUNE_BROKERS="127.0.0.1:1")
    if command != "down":  # nothing is there
        assert told.returncode == 1
        assert f"{tmp_path / 'file' / 'state'}" in told.stderr
    assert "Traceback" not in told.stderr


def test_down_says_that_there_is_nothing_to_stop(tmp_path: Path) -> None:
    told = run(tmp_path / "nowhere", "down")
    assert told.returncode == 0
    assert f"There is no {tmp_path / 'nowhere'}" in told.stdout


def test_a_web_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} of 127.0.0.1: Address already in use"):
            listen(Settings(web_port=port))
    with listen(Settings(web_port=port)) as ours:
        assert ours.getsockname()[1] == port


def test_where_kafka_is_the_reason_it_is_said_where_to_look() -> None:
    assert "opportune status" in expected.told(KafkaUnavailable("no answer"))
    assert expected.told(NoKafka("run up")) == "run up"


def test_the_version_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"opportune {metadata.version('opportune')}\n"


def test_status_asks_servers_that_are_set_by_address_too(tmp_path: Path) -> None:
    nobody = dict.fromkeys(("OPPORTUNE_BROKERS", "OPPORTUNE_CLICKHOUSE", "OPPORTUNE_RELAY"), "127.0.0.1:1")
    told = run(tmp_path, "status", **nobody)
    assert told.returncode == 1
    assert told.stdout.count("unreachable") == 3
    assert "Traceback" not in told.stderr
