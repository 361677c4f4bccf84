"""Answers to probes, as far as they need no Kafka."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from schemas.profile import ROW
from streams.agents.decide import Decider
from streams.engine.batch import Batch
from streams.engine.control import Clock, Control
from streams.engine.inspection import Inspection, Signs
from streams.engine.journal import Entry, Tally
from streams.engine.kafka import Client, Record
from streams.engine.line import Line, Spec
from streams.engine.store import SlabStore
from streams.recording.figures import Figures
from tests.support.cuts import PARTITIONS, POLICY

NOW = 1_700_000_000_000


class FakeEnds:
    """Kafka's ends, as a test tells them."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, int], int] = {}
        self.asked: set[tuple[str, int]] = set()
        self.silent = False

    def ask(self, places: Sequence[tuple[str, int]]) -> None:
        self.asked = set(places)

    def answers(self, partition: int | None) -> bool:
        return not self.silent

    def beyond(self, topic: str, partition: int, offset: int) -> int:
        return max(0, self.at.get((topic, partition), 0) - offset)


class Worker:
    """A worker that owns partition 0 and has its line."""

    def __init__(self) -> None:
        decider, store = Decider(POLICY, PARTITIONS), SlabStore(ROW)
        self.spec = Spec(
            "test",
            Client("nowhere:1", {}),
            ("a", "b"),
            "rows",
            "journal",
            True,
            decider,
            10,
            1.0,
            lambda: store,
        )
        entry = Entry(0, 7, NOW, 2, decider.policy(Control()), topics=[Tally("a", 5), Tally("b", 0)])
        self.line = Line(self.spec, 0, store, entry, {"a": 5, "b": 0})
        for topic, offset in (("a", 5), ("b", 0)):
            self.line.warm(topic, offset)
        self.control = Control(2, clock=Clock("scaled", NOW, 0, 0.0))
        self.consumer = SimpleNamespace(
            spec=self.spec,
            lines={0: self.line},
            assignment=lambda: {TP("a", 0), TP("b", 0)},
            control=SimpleNamespace(at=lambda _: self.control),
        )
        self.app: Any = SimpleNamespace(
            consumer=self.consumer,
            consumer_generation_id=4,
            rebalancing=False,
            rebalancing_count=1,
            should_stop=False,
        )
        self.ends = FakeEnds()
        self.signs = Signs()
        self.inspection = Inspection(self.app, self.signs, cast(Any, self.ends))

    def waits(self) -> list[str]:
        return [wait.what for wait in self.inspection.look()]

    def receive(self, *offsets: int) -> None:
        self.line.buffer("a", Batch.of([Record(n, NOW + n, b"ann", b"", ()) for n in offsets]))


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_an_idle_line_waits_for_nothing(worker: Worker) -> None:
    assert worker.waits() == []
    assert worker.inspection.ready().status == 200
    assert worker.ends.asked == {("a", 0), ("b", 0)}


def test_records_that_are_here_wait_for_a_cut_and_a_cut_for_its_commit(worker: Worker) -> None:
    worker.receive(5, 8)
    assert worker.waits() == ["a cut of the 2 records that it holds"]
    worker.line.next_cut(worker.control, 0)
    assert worker.waits() == ["cut 8 to be handled"]


def test_records_wait_for_their_hour_where_a_plan_tells_it(worker: Worker) -> None:
    worker.control = Control(2, clock=Clock("plan", plan_id="p"))
    worker.receive(5, 8)
    assert worker.waits() == []


def test_records_that_kafka_has_are_waited_for_unless_enough_are_here(worker: Worker) -> None:
    worker.ends.at["a", 0] = 6
    (wait,) = worker.inspection.look()
    assert (wait.topic, wait.partition, wait.offset) == ("a", 0, 5)
    worker.line.held.add("a")
    assert worker.waits() == []


def test_a_partition_without_a_line_is_being_taken_over(worker: Worker) -> None:
    worker.consumer.lines.clear()
    (before,) = worker.inspection.look()
    assert before.what == "its take-over to end"
    worker.signs.recovering()
    (after,) = worker.inspection.look()
    assert before.mark != after.mark, "reading its table is a step forward"
    assert worker.inspection.ready().body() == {"ok": False, "why": ["partition 0 is being taken over"]}


@pytest.mark.parametrize(
    ("change", "waits_for", "why"),
    [
        ({"rebalancing": True}, ["its group to settle"], "the group is settling"),
        ({"consumer_generation_id": 0}, ["its group to settle"], "the group is settling"),
        ({"should_stop": True}, ["its drain to end"], "the worker drains"),
    ],
)
def test_a_worker_that_is_not_at_work_is_not_ready(
    worker: Worker, change: dict[str, Any], waits_for: list[str], why: str
) -> None:
    vars(worker.app).update(change)
    assert worker.waits() == waits_for
    assert worker.inspection.ready().why == [why]


def test_without_kafka_or_with_a_fenced_line_it_is_not_ready(worker: Worker) -> None:
    worker.ends.silent = True
    worker.line.fenced = True
    assert worker.inspection.ready().why == ["partition 0 is fenced", "Kafka does not answer"]


def test_lag_counts_from_the_last_committed_cut(worker: Worker) -> None:
    worker.ends.at["a", 0] = 12
    worker.receive(5, 8)
    (idle,) = worker.inspection.lags()
    assert idle.offsets == {"a": 7, "b": 0}
    assert idle.seconds > 0
    worker.line.next_cut(worker.control, 0)
    (in_flight,) = worker.inspection.lags()
    assert in_flight.offsets == {"a": 7, "b": 0}, "what is in flight has not committed"
    assert in_flight.seconds >= idle.seconds


def test_lag_counts_from_the_start_before_the_first_cut_has_committed(worker: Worker) -> None:
    worker.line.entry = worker.line.committed = None
    worker.ends.at["a", 0] = 12
    worker.receive(5, 8)
    assert worker.line.next_cut(worker.control, 0) is not None
    (lag,) = worker.inspection.lags()
    assert lag.offsets == {"a": 7, "b": 0}


def _get(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}") as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def test_a_recorder_answers_probes_and_gives_its_metrics() -> None:
    figures = Figures()
    port = figures.serve(0, "127.0.0.1", 60.0)
    assert _get(port, "livez") == (200, '{"ok": true, "why": []}')
    assert _get(port, "readyz")[0] == 503

    figures.owns(3)
    assert _get(port, "readyz")[0] == 200
    figures.waiting(True)
    status, body = _get(port, "readyz")
    assert (status, json.loads(body)["why"]) == (503, ["ClickHouse takes no rows"])
    assert _get(port, "livez")[0] == 200, "a restart would not bring ClickHouse back"
    assert "opportune_record_waiting 1.0" in _get(port, "metrics")[1]


def test_a_recorder_whose_loop_stands_still_is_not_alive() -> None:
    figures = Figures()
    assert figures.live(60.0).status == 200
    assert figures.live(-1.0).status == 503
