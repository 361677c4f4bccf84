"""Kafka and ClickHouse in containers: the images and the configuration of `infra/compose.yaml`.

`OPPORTUNE_TEST_STACK=containers` chooses them. Where no Docker daemon answers, what needs them is skipped.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

import infra

VARIABLE = "OPPORTUNE_TEST_STACK"
COMPOSE = Path(infra.__file__).parent / "compose.yaml"
START = "/tmp/start-kafka"  # noqa: S108 - in the container, which only this test has


class NoSuchStack(ValueError):
    """OPPORTUNE_TEST_STACK names no stack."""


def chosen() -> bool:
    """Whether tests run on containers; else on the embedded servers. Raises `NoSuchStack`."""
    stack = os.environ.get(VARIABLE, "embedded")
    if stack not in ("embedded", "containers"):
        raise NoSuchStack(f"{VARIABLE} is {stack!r}; set it to embedded or containers, or unset it")
    return stack == "containers"


@contextmanager
def kafka() -> Iterator[str]:
    """The address of a fresh Kafka, which is gone at the end. Skips the test where no Docker is."""
    _skip_without_docker()
    # The broker must say where it is reached, and that is known only once its container has started.
    waiting = f"until [ -s {START} ]; do sleep 0.1; done; . {START}"
    container = _container("kafka").with_exposed_ports(9092).with_command(["sh", "-c", waiting])
    with container:
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(9092)}"
        advertised = f"INTERNAL://localhost:19092,HOST://{address}"
        start = f"export KAFKA_ADVERTISED_LISTENERS={advertised}\nexec /etc/kafka/docker/run\n"
        container.copy_into_container(start.encode(), START)
        LogMessageWaitStrategy("Kafka Server started").wait_until_ready(container)
        yield address


@contextmanager
def clickhouse() -> Iterator[str]:
    """The address of a fresh ClickHouse, which is gone at the end. Skips the test where no Docker is."""
    _skip_without_docker()
    container = _container("clickhouse").with_exposed_ports(9000, 8123)
    with container.waiting_for(HttpWaitStrategy(8123, "/ping")):
        yield f"{container.get_container_host_ip()}:{container.get_exposed_port(9000)}"


def composed() -> dict[str, Any]:
    """What `infra/compose.yaml` says."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def _container(service: str) -> DockerContainer:
    found = composed()["services"][service]
    return DockerContainer(found["image"], env=dict(found["environment"]))


def _skip_without_docker() -> None:
    if reason := _why_no_docker():
        pytest.skip(f"{VARIABLE}=containers, but no Docker daemon answers: {reason}")


@cache
def _why_no_docker() -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker-py drops the socket that did not connect
        try:
            client = DockerClient()
            client.client.ping()
            client.client.close()
        except DockerException as error:
            reason = str(error)
        else:
            return None
        gc.collect()
    return reason
