"""`infra/compose.yaml` and `infra/Dockerfile` beside the settings, the commands and the embedded servers.

Nothing here starts a container: this is what can be known without one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import ValidationError

from infra.embedded import jars, kafka
from schemas.settings import Settings
from streams.cli.main import application
from streams.replay import workers
from tests.support import containers, stack

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "Dockerfile"
COMPOSED = containers.composed()
SERVICES: dict[str, dict[str, Any]] = COMPOSED["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "opportune:local"}
WORKERS = {name: service for name, service in OURS.items() if service["command"][0] == "run"}
ADDRESSES = ("OPPORTUNE_BROKERS", "OPPORTUNE_CLICKHOUSE", "OPPORTUNE_RELAY")
# What a Kafka says of its addresses and folders is its own.
OWN = re.compile(r"(advertised\.)?listener.*|(inter\.broker|controller)\..*|log\.dirs|node\.id|process\..*")


def parse(*arguments: str) -> None:
    """Read a command line as `opportune` does, and run nothing."""
    command: Any = typer.main.get_command(application())
    context = command.make_context("opportune", list(arguments))
    name, found, rest = command.resolve_command(context, list(arguments))
    found.make_context(name, rest, parent=context)


@pytest.mark.parametrize("name", OURS)
def test_what_a_service_sets_are_settings_that_hold(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = OURS[name].get("environment", {})
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    found = Settings().model_dump()

    assert {v.removeprefix("OPPORTUNE_").lower() for v in environment} <= found.keys()


def test_a_setting_that_does_not_hold_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPPORTUNE_RELAY_TLS", "sometimes")

    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize("name", [n for n in OURS if "entrypoint" not in OURS[n] and n != "opportune"])
def test_what_a_service_runs_is_a_command_of_opportune(name: str) -> None:
    parse(*OURS[name]["command"])


def test_a_command_that_is_none_would_be_noticed() -> None:
    with pytest.raises(Exception, match="everything"):
        parse("run", "everything")


def test_the_sandbox_knows_the_options_it_is_given() -> None:
    sandbox = OURS["sandbox"]
    shown = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, *sandbox["entrypoint"][1:], "--help"], capture_output=True, text=True, check=True
    )

    options = [word for word in sandbox["command"] if word.startswith("--")]

    assert options == ["--host", "--port"]
    assert [option for option in options if option not in shown.stdout] == []


def test_there_is_one_worker_of_each_role() -> None:
    assert {name: service["command"][1] for name, service in WORKERS.items()} == {
        "decide": "decide",
        "deliver": "deliver",
        "record": "record",
    }


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_keeps_its_address_is_looked_at_and_may_drain(name: str) -> None:
    worker = WORKERS[name]
    environment = worker["environment"]

    assert worker["hostname"] == environment["OPPORTUNE_WORKER_ID"]
    assert f":{environment['OPPORTUNE_WEB_PORT']}/livez" in worker["healthcheck"]["test"][-1]
    assert worker["stop_grace_period"] == f"{workers._DRAIN_S:.0f}s"
    assert worker["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", [name for name in OURS if name != "sandbox"])
def test_no_service_starts_servers_inside_its_container(name: str) -> None:
    environment = OURS[name]["environment"]

    assert [environment[address].partition(":")[0] for address in ADDRESSES] == [
        "kafka",
        "clickhouse",
        "sandbox",
    ]


def test_services_wait_for_services_that_can_become_so() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            other = SERVICES[name]
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in other
            else:
                assert wanted["condition"] == "service_completed_successfully"
                assert other["restart"] == "no"


def test_only_deliver_reaches_the_sandbox_and_the_sandbox_reaches_nothing() -> None:
    on_it = {name for name, service in SERVICES.items() if "mail" in service.get("networks", [])}

    assert on_it == {"deliver", "sandbox"}
    assert SERVICES["sandbox"]["networks"] == ["mail"]
    assert COMPOSED["networks"]["mail"]["internal"] is True


def test_only_deliver_and_the_tools_hold_the_vault_and_its_key_is_on_a_volume_of_its_own() -> None:
    holders: dict[str, set[str]] = {"vault": set(), "vault-key": set()}
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            holders.get(volume.partition(":")[0], set()).add(name)

    assert holders == {"vault": {"deliver", "opportune"}, "vault-key": {"deliver", "opportune"}}


def test_only_the_tools_hold_the_key_that_signs_models() -> None:
    holders = {
        name for name in SERVICES if "models:/srv/opportune/models" in SERVICES[name].get("volumes", [])
    }

    assert holders == {"opportune"}
    assert "model-trust:/srv/opportune/model-trust:ro" in SERVICES["guard"]["volumes"]


@pytest.mark.parametrize("name", ["deliver", "opportune"])
def test_the_vault_and_its_key_are_on_their_volumes(name: str) -> None:
    environment = OURS[name]["environment"]
    targets = dict(volume.split(":") for volume in OURS[name]["volumes"])

    assert Path(environment["OPPORTUNE_VAULT"]).parent == Path(targets["vault"])
    assert Path(environment["OPPORTUNE_VAULT_KEY"]).parent == Path(targets["vault-key"])


def test_volumes_are_declared_and_our_image_owns_the_folders_they_are_mounted_on() -> None:
    made = re.search(r"mkdir -p (.*?)&&", DOCKERFILE.read_text(), re.DOTALL)
    assert made is not None
    mounts = [volume.split(":")[:2] for service in SERVICES.values() for volume in service.get("volumes", [])]
    ours = [volume.split(":")[1] for service in OURS.values() for volume in service.get("volumes", [])]

    assert {source for source, _ in mounts} == COMPOSED["volumes"].keys()
    assert set(ours) <= set(made[1].split())


def test_ports_are_published_to_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_kafka_is_of_the_embedded_ones_version_and_configured_like_it() -> None:
    service = SERVICES["kafka"]
    embedded = kafka.server_settings(Path("data"), {"client": 1, "controller": 2})
    like_it = {name: value for name, value in embedded.items() if not OWN.fullmatch(name)}

    assert service["image"] == f"apache/kafka:{jars.KAFKA}"
    assert len(like_it) > 10
    assert {
        name: service["environment"].get(f"KAFKA_{name.replace('.', '_').upper()}") for name in like_it
    } == like_it


def test_clickhouse_is_of_the_embedded_engines_version() -> None:
    engine = ".".join(version("chdb-core").split(".")[:2])

    assert SERVICES["clickhouse"]["image"] == f"clickhouse/clickhouse-server:{engine}"


def test_the_image_holds_every_package_and_all_it_is_built_from_is_sent() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    roots = {name for name in packages["find"]["include"] if "." not in name}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
        for source in line.split()
    }
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert roots <= copied
    assert copied == sent
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_image_is_of_a_python_that_the_project_takes_and_runs_as_nobody_special() -> None:
    text = DOCKERFILE.read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert f"ARG PYTHON=python:{project['requires-python'].removeprefix('>=')}-slim\n" in text
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${PYTHON}", "${PYTHON}"]
    assert "\nUSER opportune\n" in text


def test_an_unknown_stack_is_refused_and_the_known_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(containers.VARIABLE, "kubernetes")

    with (
        pytest.raises(containers.NoSuchStack, match="kubernetes.*embedded or containers"),
        stack.running(tmp_path),
    ):
        pass


def test_without_docker_the_tests_on_containers_skip_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(containers.VARIABLE, "containers")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody-listens.sock")
    containers._why_no_docker.cache_clear()
    try:
        with pytest.raises(pytest.skip.Exception, match="no Docker daemon answers"), stack.running(tmp_path):
            pass
    finally:
        containers._why_no_docker.cache_clear()


def test_compose_itself_reads_the_file() -> None:
    docker = shutil.which("docker")
    command = [docker or "docker", "compose", "--file", str(containers.COMPOSE), "config", "--quiet"]
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:  # noqa: S603
        pytest.skip("there is no docker compose here")

    read = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own file

    assert (read.returncode, read.stderr) == (0, "")
