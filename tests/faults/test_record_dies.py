"""Recorders killed, ClickHouse gone and frozen: every record is a row, and none is twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.embedded import ClickHouseServer
from schemas import topics
from sinks.clickhouse.query import ask
from streams import reading, restore
from streams.engine.kafka import read_batches
from streams.recording.batch import Batch
from streams.recording.figures import Figures
from streams.recording.identity import topic_ids
from streams.recording.landing import Landing
from streams.recording.recorder import GROUP
from streams.warehouse import Warehouse
from tests.support import faults, oracle
from tests.support import record as support
from tests.support import stack as stacks
from tests.support.stack import PATIENCE_S, Stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse, pytest.mark.faults]

PARTITIONS = 3
RECIPIENTS = 200
NAME = topics.AUDIT.name


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Stack, Warehouse]]:
    with stacks.running(tmp_path, PARTITIONS) as stack, support.clickhouse(stack) as house:
        yield stack, house


def _write(stack: Stack, count: int, first: int = 0) -> None:
    records = [support.delivery(first + n, str(n % RECIPIENTS)) for n in range(count)]
    # Several months, so that a batch is several blocks.
    support.write_audit(stack, [r | {"at": r["at"] + n % 3 * 35 * 86_400_000} for n, r in enumerate(records)])


def _count(house: Warehouse) -> int:
    return int(ask(house.address, house.views, "SELECT count() FROM delivery").rows[0][0])


def _await(condition: Callable[[], bool], stack: Stack, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, stack.log(child)[-3000:]
        time.sleep(0.05)


@dataclass(frozen=True)
class _Grown:
    """Whether more rows than so many are in."""

    house: Warehouse
    least: int

    def __call__(self) -> bool:
        return _count(self.house) > self.least


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _assert_each_once(stack: Stack, house: Warehouse, count: int) -> None:
    assert _count(house) == count
    assert len(list(reading.audit_reader(stack.client).all())) == count
    oracle.assert_recorded(stack, house)


def test_a_recorder_that_is_killed_again_and_again_records_each_record_once(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    chance = random.Random(11)  # noqa: S311 - moments of a test, not secrets
    total, kills = 24_000, 6
    _write(stack, total)
    # A static member is back at once; another would wait for the dead one's session.
    static = faults.static("recorder")
    for number in range(kills):
        recorder = stack.start_worker("record", **static)
        _write(stack, 500, total)
        total += 500
        _await(_Grown(house, number * 4000), stack, recorder)
        time.sleep(chance.random() * 0.4)
        _kill(recorder)
    last = stack.start_worker("record", **static)
    support.await_landed(stack, last)
    _assert_each_once(stack, house, total)


def _commit(group: Consumer, said: TopicPartition) -> None:
    """Commit an offset, once the broker, which has just started, coordinates the group."""
    while True:
        try:
            group.commit(offsets=[said], asynchronous=False)
            return
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_COORDINATOR:
                raise
            time.sleep(0.1)


def test_a_recorder_killed_between_insert_and_commit_is_followed_by_the_same_batch(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    _write(stack, 900)
    landing = Landing(house.connect, house.stored, support.unnamed, Figures(), time.sleep)
    consumer = stack.client.reader()
    group = Consumer(stack.client.config(group_id=GROUP, enable_auto_commit=False))
    # By hand what a recorder does up to its death: it says the end of its batch, and inserts it.
    for partition in range(PARTITIONS):
        messages = [m for found in read_batches(consumer, NAME, partition) for m in found][:200]
        batch = Batch(NAME, topic_ids(stack.client, [NAME])[NAME], partition, messages)
        said = TopicPartition(NAME, partition, batch.first, json.dumps({"until": batch.until}))
        _commit(group, said)
        landing.land(batch)
    landing.close()
    group.close()
    consumer.close()
    assert _count(house) == 200 * PARTITIONS
    recorder = stack.start_worker("record")
    support.await_landed(stack, recorder)
    _assert_each_once(stack, house, 900)


def test_of_two_recorders_one_is_killed_and_the_other_records_the_rest(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    first, second = stack.start_worker("record"), stack.start_worker("record")
    half = [f'"partitions": {count}' for count in (5, 10)]
    _await(lambda: all(any(h in stack.log(each) for h in half) for each in (first, second)), stack, first)
    _write(stack, 9_000)
    _await(lambda: _count(house) > 0, stack, second)
    _kill(first)
    _write(stack, 500, 9_000)
    support.await_landed(stack, second)
    _assert_each_once(stack, house, 9_500)


def test_a_recorder_waits_for_a_clickhouse_that_is_away_and_stays_in_its_group(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    server = ClickHouseServer(stack.settings.state_dir)
    recorder = stack.start_worker("record")
    _write(stack, 300)
    support.await_landed(stack, recorder)
    server.down()
    _write(stack, 5_000, 300)
    _await(lambda: "opportune_record_waiting 1.0" in stack.metrics(recorder), stack, recorder)
    time.sleep(stacks.SESSION_TIMEOUT_S + 2)
    with pytest.raises(restore.RecorderRuns):
        restore.Restore(stack.client, house, support.unnamed)
    assert recorder.poll() is None
    assert "opportune_record_unacked_rows 0.0" not in stack.metrics(recorder)
    assert "opportune_record_lag_seconds 0.0" not in stack.metrics(recorder)
    server.up()
    support.await_landed(stack, recorder)
    _assert_each_once(stack, house, 5_300)
    _await(lambda: "opportune_record_unacked_rows 0.0" in stack.metrics(recorder), stack, recorder)
    assert "opportune_record_waiting 0.0" in stack.metrics(recorder)
    assert stack.log(recorder).count("clickhouse_away") == 1, "told once, not at every try"


def test_a_recorder_that_waits_for_clickhouse_ends_when_it_is_told_to(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    recorder = stack.start_worker("record")
    _await(lambda: "partitions_assigned" in stack.log(recorder), stack, recorder)
    server = ClickHouseServer(stack.settings.state_dir)
    server.down()
    _write(stack, 1_000)
    _await(lambda: "clickhouse_away" in stack.log(recorder), stack, recorder)
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(30) == 0
    server.up()
    successor = stack.start_worker("record")
    support.await_landed(stack, successor)
    _assert_each_once(stack, house, 1_000)


@pytest.mark.soak
def test_an_insert_that_a_frozen_clickhouse_takes_after_its_timeout_counts_once(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    recorder = stack.start_worker("record")
    _write(stack, 300)
    support.await_landed(stack, recorder)
    pid = ClickHouseServer(stack.settings.state_dir).status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        _write(stack, 2_000, 300)
        _await(lambda: "clickhouse_away" in stack.log(recorder), stack, recorder)
    finally:
        os.kill(pid, signal.SIGCONT)
    support.await_landed(stack, recorder)
    _assert_each_once(stack, house, 2_300)


def test_a_recorder_of_which_clickhouse_takes_no_row_stops_before_it_empties_the_topic(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, _ = running
    support.write_audit(stack, [support.delivery(n, "1", dispatch_id="no id") for n in range(150)])
    recorder = stack.start_worker("record")
    assert recorder.wait(60) == 70, stack.log(recorder)[-3000:]
    assert "EverythingRefused" in stack.log(recorder)
    assert sum(part.high for part in reading.parts(stack.client.reader(), topics.DEAD_LETTERS.name)) == 0


def test_records_that_retention_took_before_they_were_recorded_stop_a_recorder_and_a_restore(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    _write(stack, 300)
    recorder = stack.start_worker("record")
    support.await_landed(stack, recorder)
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(30) == 0
    _write(stack, 300, 300)
    consumer = stack.client.reader()
    ends = [TopicPartition(NAME, part.partition, part.high) for part in reading.parts(consumer, NAME)]
    consumer.close()
    admin = AdminClient(stack.client.config())
    for future in admin.delete_records(ends).values():
        future.result(30)
    _write(stack, 300, 600)
    again = stack.start_worker("record")
    assert again.wait(60) == 70, stack.log(again)[-3000:]
    assert "RecordsLost" in stack.log(again)
    assert _count(house) == 300
    with pytest.raises(restore.WouldLose, match="delivery has .* rows of records that audit.records/"):
        restore.Restore(stack.client, house, support.unnamed).refuse_loss()
    assert _count(house) == 300
