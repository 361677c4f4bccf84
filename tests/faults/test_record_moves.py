"""What a recorder stands on moves under it: its partitions, and the topics themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from infra.embedded import ClickHouseServer
from schemas import topics
from sinks.clickhouse.query import ask
from streams import cluster, events, reading, restore
from streams.engine.kafka import KafkaUnavailable
from streams.recording.figures import Figures
from streams.recording.landing import Landing
from streams.recording.recorder import GROUP, Recorder
from streams.recording.rows import RECORDED
from streams.warehouse import Warehouse
from tests.support import record as support
from tests.support import stack as stacks
from tests.support.stack import PATIENCE_S, Stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse, pytest.mark.faults]

PARTITIONS = 3
NAME = topics.AUDIT.name
_DAY_MS = 86_400_000


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Stack, Warehouse]]:
    with stacks.running(tmp_path, PARTITIONS) as stack, support.clickhouse(stack) as house:
        yield stack, house


def _write(stack: Stack, count: int, first: int = 0) -> None:
    # Every 300 go to the recipients of the 300 before, so to the same offsets, a day later.
    records = [support.delivery(n, str(n % 300)) for n in range(first, first + count)]
    support.write_audit(stack, [r | {"at": support.AT + r["cut"] // 300 * _DAY_MS} for r in records])


def _count(house: Warehouse) -> int:
    return int(ask(house.address, house.views, "SELECT count() FROM delivery").rows[0][0])


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _delete(stack: Stack, name: str) -> None:
    admin = AdminClient(stack.client.config())  # by name: it takes what is under way with it when it goes
    admin.delete_topics([name])[name].result(30)


def _make_anew(stack: Stack, name: str) -> None:
    _delete(stack, name)

    def made() -> bool:
        try:
            return name in cluster.create_topics(stack.client, stack.settings)
        except KafkaUnavailable:  # it is still being deleted
            return False

    _await(made, f"{name} was not made anew")


def test_a_rebalance_while_clickhouse_is_away_leaves_the_recorder_recording(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    recorder = stack.start_worker("record")
    _write(stack, 300)
    support.await_landed(stack, recorder)
    server = ClickHouseServer(stack.settings.state_dir)
    server.down()
    _write(stack, 300, 300)
    _await(lambda: "clickhouse_away" in stack.log(recorder), stack.log(recorder))
    # A second recorder would not start without ClickHouse: what matters is that somebody joins and leaves.
    other = Consumer(
        stack.client.config(
            group_id=GROUP,
            enable_auto_commit=False,
            partition_assignment_strategy="range",
            session_timeout_ms=int(stacks.SESSION_TIMEOUT_S * 1000),
        )
    )
    other.subscribe([topic.name for topic in RECORDED])

    def joined() -> bool:
        other.poll(0.1)
        return bool(other.assignment())

    _await(joined, "nobody joined")
    before = stack.log(recorder).count("partitions_assigned")
    other.close()
    _await(lambda: stack.log(recorder).count("partitions_assigned") > before, stack.log(recorder))
    server.up()
    support.await_landed(stack, recorder)
    _write(stack, 300, 600)
    support.await_landed(stack, recorder)
    assert _count(house) == 900
    assert support.stored_twice(house) == 0


def test_topics_made_anew_stop_a_restore_and_their_records_are_added_to_the_trail(
    running: tuple[Stack, Warehouse],
) -> None:
    stack, house = running
    for first in (0, 300):
        _write(stack, 300, first)
        recorder = stack.start_worker("record")
        support.await_landed(stack, recorder)
        recorder.terminate()
        assert recorder.wait(30) == 0
        assert _count(house) == first + 300
        _make_anew(stack, NAME)
        with pytest.raises(restore.WouldLose, match="delivery has .* rows of records that audit.records/"):
            restore.Restore(stack.client, house, support.unnamed).refuse_loss()
    assert sum(part.high for part in reading.parts(stack.client.reader(), NAME)) == 0


def test_what_kafka_says_to_a_recorder_is_in_its_log(running: tuple[Stack, Warehouse]) -> None:
    stack, house = running
    missing = topics.DEAD_LETTERS.name
    _delete(stack, missing)
    deadline = time.monotonic() + PATIENCE_S
    figures = Figures()
    with capture_logs() as told:

        def stopping() -> bool:
            return time.monotonic() > deadline or any(e["event"] == events.KAFKA_ERROR for e in told)

        Recorder(
            stack.client,
            stack.settings,
            lambda wait: Landing(house.connect, house.stored, support.unnamed, figures, wait),
            lambda letters: None,
            figures,
            stopping,
        ).run()
    errors = [each for each in told if each["event"] == events.KAFKA_ERROR]
    assert [(each["topic"], each["error_kind"]) for each in errors] == [(missing, "UNKNOWN_TOPIC_OR_PART")]
    assert errors[0].keys() <= events.ALLOWED_KEYS | {"log_level"}
