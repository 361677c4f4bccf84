"""Probes and lag figures of real workers, in each state that they pass through."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from schemas import codec, topics
from streams.engine.ends import Ends
from tests.support import record
from tests.support import stack as stacks
from tests.support.probes import await_ready, probe, wait_until
from tests.support.stack import PATIENCE_S, Stack

pytestmark = pytest.mark.kafka

PARTITIONS = 2


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stacks.running(tmp_path_factory.mktemp("health"), PARTITIONS) as running:
        yield running


def _click(stack: Stack, partition: int) -> None:
    producer = Producer(stack.client.config())
    now = time.time_ns() // 1_000_000
    fields = {"recipient_id": "ann", "event_id": None, "occurred_at": now, "kind": "view"}
    value = codec.encode(topics.CLICKS.name, fields)
    producer.produce(topics.CLICKS.name, value, b"ann", partition, headers=[("rekeyed", b"1")])
    producer.flush()


def test_a_worker_lives_at_once_and_is_ready_when_it_serves(stack: Stack) -> None:
    worker = stack.start_worker()
    wait_until(lambda: probe(stack, worker, "livez")[0] == 200, stack, worker)
    await_ready(stack, worker)
    assert probe(stack, worker, "readyz") == (200, {"ok": True, "why": []})
    assert stack.metrics(worker).count("opportune_waiting_seconds{") == PARTITIONS + 1, "and the worker's own"
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0


def test_a_worker_whose_take_over_hangs_lives_is_not_ready_and_then_does_not_live(stack: Stack) -> None:
    worker = stack.start_worker(OPPORTUNE_FAILPOINT="decide.after_recover:hang", OPPORTUNE_WATCHDOG="20 s")

    def says(page: str, what: str) -> bool:
        status, body = probe(stack, worker, page)
        return status == 503 and any(re.search(what, why) for why in body["why"])

    wait_until(lambda: says("readyz", "partition . is being taken over"), stack, worker)
    assert probe(stack, worker, "livez")[0] == 200
    wait_until(lambda: says("livez", "partition . has waited .* for its take-over"), stack, worker)
    assert worker.wait(PATIENCE_S) == 70


def test_lag_and_waiting_are_told_of_each_partition(stack: Stack) -> None:
    worker = stack.start_worker(OPPORTUNE_FAILPOINT="decide.after_produce:hang", OPPORTUNE_WATCHDOG="30 s")
    await_ready(stack, worker)
    assert 'opportune_lag_seconds{partition="0"} 0.0' in stack.metrics(worker)
    _click(stack, 0)

    def told(name: str, labels: str) -> float:
        found = re.search(rf"^{name}{{{labels}}} (.*)$", stack.metrics(worker), re.MULTILINE)
        return float(found[1]) if found else 0.0

    clicks = f'partition="0",topic="{topics.CLICKS.name}"'
    wait_until(lambda: told("opportune_lag_seconds", 'partition="0"') > 1, stack, worker)
    wait_until(lambda: told("opportune_waiting_seconds", 'partition="0"') > 1, stack, worker)
    wait_until(lambda: told("opportune_lag_offsets", clicks) >= 1, stack, worker)
    assert told("opportune_waiting_seconds", 'partition="1"') == 0
    assert worker.wait(PATIENCE_S) == 70


def test_kafka_tells_records_from_markers(stack: Stack) -> None:
    topic, ends = topics.DELIVERY.name, Ends(stack.client, every_s=1.0)
    producer = Producer(stack.client.config(transactional_id="markers"))
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    producer.produce(topic, b"never seen", b"ann", 0)
    producer.flush()
    producer.abort_transaction(PATIENCE_S)
    plain = Producer(stack.client.config())
    plain.produce(topic, b"seen", b"ann", 1)
    plain.flush()

    deadline = time.monotonic() + PATIENCE_S
    while not (ends.beyond(topic, 0, 0) and ends.beyond(topic, 1, 0)):
        assert time.monotonic() < deadline
        ends.ask([(topic, 0), (topic, 1)])
        time.sleep(0.05)
    assert ends.answers(0)
    assert ends.answers(1)
    assert ends.holds(topic, 0, 0) is False
    assert ends.holds(topic, 1, 0) is True
    assert ends.beyond(topic, 0, 0) == 0, "it is known now that only markers are there"
    assert ends.beyond(topic, 1, 0) == 1


def test_a_recorder_answers_too(stack: Stack) -> None:
    with record.clickhouse(stack):
        recorder = stack.start_worker("record")
        await_ready(stack, recorder)
        assert probe(stack, recorder, "livez") == (200, {"ok": True, "why": []})
        recorder.send_signal(signal.SIGTERM)
        assert recorder.wait(PATIENCE_S) == 0
