"""When a line makes a cut, and when it must not."""

from dataclasses import replace
from typing import Any

import pytest

from schemas import topics
from schemas.profile import ROW
from streams.agents.decide import Decider
from streams.engine import line as line_module
from streams.engine.batch import Batch
from streams.engine.control import Clock, Control
from streams.engine.cut import Cut, Handled
from streams.engine.journal import Entry
from streams.engine.kafka import Client, Record
from streams.engine.line import Line, Spec
from streams.engine.store import SlabStore
from tests.support.cuts import PARTITIONS, POLICY

NOW = 1_700_000_000_000


@pytest.fixture
def line() -> Line:
    decider = Decider(POLICY, PARTITIONS)
    store = SlabStore(ROW)
    spec = Spec(
        "test",
        Client("nowhere:1", {}),
        ("a", "b"),
        "rows",
        topics.JOURNAL.name,
        True,
        decider,
        10,
        0.05,
        lambda: store,
    )
    entry = Entry(0, 7, NOW, 2, decider.policy(Control()), 0, None, False)
    made = Line(spec, 0, store, entry, {"a": 5, "b": 0})
    made.warm("a", 5)
    made.warm("b", 0)
    return made


def record(offset: int) -> Any:
    return Record(offset, 0, b"ann", b"", ())


def control(version: int, **clock: Any) -> Control:
    return Control(version, clock=Clock("scaled", NOW, 0, 0.0, **clock))


def test_what_a_cut_left_undone_makes_the_next_one_at_once(line: Line) -> None:
    line.buffer("a", Batch.of([record(5)]))
    cut = line.next_cut(control(2), 0)
    assert cut is not None
    figures = dict.fromkeys(("decided", "withheld", "released", "dropped", "pending"), 0)
    line.stage(cut, Handled(figures=figures, more=True))
    line.in_flight = None  # as once it has committed
    assert line.next_cut(control(2), 0) is not None


def test_without_cause_there_is_no_cut(line: Line) -> None:
    assert line.next_cut(control(2), 0) is None


def test_records_make_a_cut_that_goes_on_from_the_last(line: Line) -> None:
    line.buffer("a", Batch.of([record(5), record(8)]))
    cut = line.next_cut(control(2), 0)
    assert isinstance(cut, Cut)
    assert (cut.number, cut.before, cut.now) == (8, NOW, NOW)
    assert cut.next_offsets == {"a": 9, "b": 0}
    assert line.next_cut(control(2), 0) is None, "one is in flight"


def test_a_change_of_control_makes_a_cut(line: Line) -> None:
    assert line.next_cut(control(3), 0) is not None


def test_control_never_goes_back_or_a_pause_would_not_hold_across_a_hand_over(line: Line) -> None:
    line.buffer("a", Batch.of([record(5)]))
    assert line.next_cut(control(1), 0) is None
    assert line.next_cut(control(2), 0) is not None


def test_time_never_goes_back(line: Line) -> None:
    line.buffer("a", Batch.of([record(5)]))
    cut = line.next_cut(Control(2, clock=Clock("scaled", NOW - 1000, 0, 0.0)), 0)
    assert cut is not None
    assert cut.now == NOW


def test_the_first_cut_waits_until_it_is_known_what_every_topic_held(line: Line) -> None:
    line.cold = {"b"}
    line.buffer("a", Batch.of([record(5)]))
    assert line.next_cut(control(2), 0) is None
    line.warm("b", 3)
    cut = line.next_cut(control(2), 0)
    assert cut is not None
    assert cut.next_offsets["b"] == 3, "behind the markers"


def test_a_backlog_of_one_topic_takes_no_more_than_its_share(line: Line) -> None:
    line.buffer("a", Batch.of([record(n) for n in range(5, 40)]))
    line.buffer("b", Batch.of([record(0)]))
    cut = line.next_cut(control(2), 0)
    assert cut is not None
    assert {topic: len(records) for topic, records in cut.records.items()} == {"a": 10, "b": 1}
    assert not line.wants("a")
    assert line.wants("b")


def test_a_topic_that_was_held_goes_on_when_half_of_what_waited_is_taken(line: Line) -> None:
    line.buffer("a", Batch.of([record(n) for n in range(5, 15)]))
    assert not line.wants("a"), "as much waits as a cut may take"
    line.held = {"a"}
    line.buffers["a"].take(3)
    assert not line.wants("a")
    line.buffers["a"].take(3)
    assert line.wants("a")


def test_a_topic_of_few_large_records_is_held_too(line: Line) -> None:
    large = Record(5, 0, b"ann", bytes(9 * 1024 * 1024), ())
    line.buffer("a", Batch.of([large]))
    assert not line.wants("a")


class Quiet:
    """Effects that give nothing and want nothing."""

    def wanting(self, partition: int, store: Any, now: int) -> bool:
        return False

    def feedback(self, partition: int, resumed: Any) -> None: ...

    def begin(self, partition: int, effects: Any, since: float) -> None: ...


class Uptime:
    """The machine's uptime, in seconds."""

    now = 1000.0

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(line: Line, monkeypatch: pytest.MonkeyPatch) -> Uptime:
    """The clock of a line with effects."""
    made = Uptime()
    monkeypatch.setattr(line_module, "uptime", lambda: made.now)
    effects: Any = Quiet()
    line.spec = replace(line.spec, effects=effects)
    return made


def test_a_line_with_effects_lets_records_gather_for_a_moment_unless_a_cut_is_full_or_work_is_left(
    line: Line, clock: Uptime
) -> None:
    offset = 5

    def arrive(count: int) -> Cut | None:
        nonlocal offset
        line.buffer("a", Batch.of([record(offset + n) for n in range(count)]))
        offset += count
        cut = line.next_cut(control(2), 0)
        line.in_flight = None
        return cut

    assert arrive(1) is not None
    assert arrive(9) is None
    assert arrive(1) is not None, "full"
    assert arrive(1) is None
    clock.passes(0.2)
    assert arrive(0) is not None
    assert arrive(0) is None
    line._more = True  # said by the cut that was handled last
    assert arrive(0) is not None


def test_records_gather_for_longer_where_a_cut_takes_long_but_not_for_ever(line: Line, clock: Uptime) -> None:
    def makes_a_cut_after(seconds: float) -> bool:
        clock.passes(seconds)
        return line.next_cut(control(2), 0) is not None

    def takes(seconds: float) -> None:
        clock.passes(seconds)
        line.settled()

    line.buffer("a", Batch.of([record(5 + n) for n in range(9)]))
    assert makes_a_cut_after(1.0)
    takes(0.08)
    line.buffer("a", Batch.of([record(14)]))
    assert not makes_a_cut_after(0.07)
    assert makes_a_cut_after(0.02)
    takes(5.0)
    line.buffer("a", Batch.of([record(15)]))
    assert makes_a_cut_after(0.0), "it has taken longer than records ever gather"
    takes(0.01)
    line.buffer("a", Batch.of([record(16)]))
    assert not makes_a_cut_after(0.08)
    assert makes_a_cut_after(0.02)
