"""Turns: who is handled with whom, and who is waited for."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from streams.engine.batch import Batch, Buffer
from streams.engine.control import Control
from streams.engine.cut import Cut
from streams.engine.line import Line
from streams.engine.turns import FULL, should_wait, turns

CONTROL = Control()


def _batch(size: int) -> Batch:
    return Batch(np.arange(size), np.zeros(size, np.int64), [b"k"] * size, [b"v"] * size, None)


@dataclass
class Waiting:
    """As much of a line as a turn looks at."""

    partition: int
    records: int
    now: int = 1000
    plan: str | None = None
    fenced: bool = False
    in_flight: Cut | None = None
    spec: Any = field(default_factory=lambda: SimpleNamespace(effects=None))
    buffers: dict[str, Buffer] = field(default_factory=lambda: {"clicks": Buffer()})

    def __post_init__(self) -> None:
        self.buffers["clicks"].add(_batch(self.records))

    def next_cut(self, control: Control, wall: int) -> Cut | None:
        if self.in_flight is not None or not self.records:
            return None
        taken = {"clicks": self.buffers["clicks"].take(self.records)}
        self.in_flight = Cut(
            self.partition, 1, self.now, self.now, control, 0, self.plan, bool(self.plan), taken, {}
        )
        return self.in_flight


def _lines(*lines: Waiting) -> list[Line]:
    return cast("list[Line]", list(lines))


def _partitions(found: list[list[Cut]]) -> list[list[int]]:
    return [[cut.partition for cut in cuts] for cuts in found]


def test_lines_with_cause_are_handled_together_and_idle_ones_are_passed_over() -> None:
    lines = iter(_lines(Waiting(0, 10), Waiting(1, 0), Waiting(2, 30)))
    assert _partitions(turns(lines, CONTROL)) == [[0, 2]]
    assert turns(lines, CONTROL) == []


def test_cuts_of_different_moments_are_not_handled_together() -> None:
    lines = iter(_lines(Waiting(0, 10), Waiting(1, 10, now=2000), Waiting(2, 10)))
    assert _partitions(turns(lines, CONTROL)) == [[0, 2], [1]]


def test_a_planned_and_a_large_cut_are_handled_alone_the_light_ones_first() -> None:
    lines = iter(_lines(Waiting(0, 10), Waiting(1, FULL), Waiting(2, 10)))
    assert _partitions(turns(lines, CONTROL)) == [[0], [1]]
    assert _partitions(turns(lines, CONTROL)) == [[2]]
    planned = iter(_lines(*(Waiting(partition, 10, plan="history") for partition in range(3))))
    assert _partitions(turns(planned, CONTROL)) == [[0], [1], [2]]


def test_a_cut_of_a_line_with_effects_is_made_when_it_is_its_turn_and_handled_alone() -> None:
    sends = SimpleNamespace(effects=object())
    first, second = Waiting(0, 10, spec=sends), Waiting(1, 10, spec=sends)
    lines = iter(_lines(first, second))
    assert _partitions(turns(lines, CONTROL)) == [[0]]
    assert second.in_flight is None, "or it would be old by then"
    assert _partitions(turns(lines, CONTROL)) == [[1]]


def test_a_turn_that_is_full_leaves_the_other_lines_to_the_next() -> None:
    lines = iter(_lines(*(Waiting(partition, FULL // 2 - 100) for partition in range(5))))
    assert _partitions(turns(lines, CONTROL)) == [[0, 1, 2]]
    assert _partitions(turns(lines, CONTROL)) == [[3, 4]]


def test_lines_that_commit_are_waited_for_while_little_waits() -> None:
    busy, fenced = Waiting(0, 10), Waiting(1, 10, fenced=True)
    for line in (busy, fenced):
        line.next_cut(CONTROL, 0)
    assert should_wait(_lines(busy, Waiting(2, 10)))
    assert not should_wait(_lines(busy, Waiting(2, FULL - 500), Waiting(3, 500)))
    assert not should_wait(_lines(fenced, Waiting(2, 10)))
    assert not should_wait(_lines(Waiting(2, 10)))
