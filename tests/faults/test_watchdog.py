"""Workers that get nowhere end by themselves, and say what they waited for; others are let be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from infra.embedded import KafkaServer
from schemas import codec, topics
from tests.support import containers
from tests.support import stack as stacks
from tests.support.probes import await_ready, probe, wait_until
from tests.support.stack import PATIENCE_S, Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

PARTITIONS = 2
WATCHDOG_S = 5


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stacks.running(tmp_path_factory.mktemp("watchdog"), PARTITIONS) as running:
        running.environment["OPPORTUNE_WATCHDOG"] = f"{WATCHDOG_S} s"
        yield running


def _click(stack: Stack) -> None:
    """One click on each partition."""
    producer = Producer(stack.client.config())
    now = time.time_ns() // 1_000_000
    record = {"recipient_id": "ann", "event_id": None, "occurred_at": now, "kind": "view"}
    value = codec.encode(topics.CLICKS.name, record)
    for partition in range(PARTITIONS):
        producer.produce(topics.CLICKS.name, value, b"ann", partition, headers=[("rekeyed", b"1")])
    producer.flush()


def _failure(stack: Stack, worker: subprocess.Popen[bytes]) -> dict[str, Any]:
    """How a worker failed, once it has."""
    assert worker.wait(PATIENCE_S) == 70, stack.log(worker)[-3000:]
    lines = [line for line in stack.log(worker).splitlines() if '"worker_failed"' in line]
    assert len(lines) == 1
    found: dict[str, Any] = json.loads(lines[0])
    return found


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0


def _outlast(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    """Let more time pass than the watchdog gives to whoever gets nowhere."""
    until = time.monotonic() + WATCHDOG_S + 2
    wait_until(lambda: time.monotonic() > until, stack, worker)
    assert probe(stack, worker, "livez") == (200, {"ok": True, "why": []})


@pytest.mark.parametrize(
    ("point", "waited_for"),
    [
        ("before_handle", "its event loop, which is blocked"),
        ("after_produce", "to be committed"),
        ("after_recover", "its take-over to end"),
        ("after_fetch", "its event loop, which is blocked"),
    ],
)
def test_a_worker_that_hangs_ends_and_says_what_it_waited_for(
    stack: Stack, point: str, waited_for: str
) -> None:
    _click(stack)
    worker = stack.start_worker(OPPORTUNE_FAILPOINT=f"decide.{point}:hang")
    failure = _failure(stack, worker)
    assert failure["error_kind"] == "Stalled"
    assert failure["role"] == "decide"
    assert waited_for in failure["error"]
    assert "failpoint.py" in failure["trace"], "it shows where the thread hangs"


def test_an_idle_and_a_paused_worker_are_let_be(stack: Stack) -> None:
    worker = stack.start_worker()
    await_ready(stack, worker)
    stacks.await_quiet(stack)  # what those that hung have left
    _outlast(stack, worker)

    assert stack.run("pause", "--why", "a test").returncode == 0
    _click(stack)
    stacks.await_quiet(stack)
    _outlast(stack, worker)
    assert stack.run("resume", "--why", "a test").returncode == 0
    _stop(worker)


def test_a_worker_that_was_frozen_is_let_be(stack: Stack) -> None:
    worker = stack.start_worker()
    await_ready(stack, worker)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(WATCHDOG_S + 2)
    worker.send_signal(signal.SIGCONT)
    _click(stack)
    stacks.await_quiet(stack)
    await_ready(stack, worker)
    _stop(worker)


def test_a_worker_that_kafka_keeps_waiting_lives_and_goes_on(stack: Stack) -> None:
    if containers.chosen():
        pytest.skip("a broker in a container is frozen in another way")
    kafka = KafkaServer(stack.settings.state_dir, stack.settings.cache_dir / "jars").status().pid
    assert kafka is not None
    worker = stack.start_worker()
    await_ready(stack, worker)
    os.kill(kafka, signal.SIGSTOP)
    try:
        wait_until(lambda: probe(stack, worker, "readyz")[0] == 503, stack, worker)
        assert probe(stack, worker, "readyz")[1]["why"] == ["Kafka does not answer"]
        _outlast(stack, worker)
    finally:
        os.kill(kafka, signal.SIGCONT)
    await_ready(stack, worker)
    _click(stack)
    stacks.await_quiet(stack)
    _stop(worker)


def test_transaction_markers_are_no_work(stack: Stack) -> None:
    """What DELIVER aborts or writes elsewhere leaves offsets behind that hold no record."""
    producer = Producer(stack.client.config(transactional_id="markers"))
    producer.init_transactions(PATIENCE_S)
    worker = stack.start_worker()
    await_ready(stack, worker)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        producer.produce(topics.DELIVERY.name, b"never seen", b"ann", partition)
    producer.flush()
    producer.abort_transaction(PATIENCE_S)
    wait_until(lambda: "waiting_seconds" in stack.metrics(worker), stack, worker)
    _outlast(stack, worker)
    _outlast(stack, worker)
    _stop(worker)
