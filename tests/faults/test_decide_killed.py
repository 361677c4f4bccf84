"""A decider killed at every step of a cut and of a take-over: the next one goes on, nothing lost or twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from streams.engine.failpoint import POINTS
from tests.support import faults, oracle
from tests.support import stack as stacks
from tests.support.faults import KILLED, Case, Traffic
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

_POINTS = [point for point in POINTS if point != "on_revoke"]
_TAKE_OVER = ("after_fence", "after_recover", "after_seek")


def _kill_at(stack: Stack, chance: random.Random, points: Sequence[str], static: dict[str, str]) -> None:
    """Kill one decider after the other, each at a visit of its point that is left to chance."""
    for point in points:
        visit = chance.randint(1, faults.PARTITIONS if point in _TAKE_OVER else 9)
        worker = stack.start_worker(OPPORTUNE_FAILPOINT=f"decide.{point}:kill@{visit}", **static)
        assert faults.await_end(stack, worker) == KILLED, stack.log(worker)[-3000:]


@pytest.mark.parametrize("seed", faults.seeds(1, short=True))
def test_a_decider_killed_at_some_failpoints(case: Case, seed: int) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    static = faults.static("decider")
    with Traffic.of(stack, seed):
        _kill_at(stack, chance, chance.sample(_POINTS, 4), static)
        last = stack.start_worker(**static)
        faults.await_said(stack, last, "line_taken_over", faults.PARTITIONS)
        faults.await_cuts(stack)
    stacks.await_quiet(stack)
    faults.terminate(stack, last)
    oracle.assert_decided(stack, case.rules, least=10)


@pytest.mark.parametrize("seed", faults.seeds(5))
def test_a_decider_killed_at_every_failpoint(case: Case, seed: int) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    static = faults.static("decider")
    with Traffic.of(stack, seed):
        _kill_at(stack, chance, chance.sample(_POINTS, len(_POINTS)), static)
        leaving = stack.start_worker(OPPORTUNE_FAILPOINT="decide.on_revoke:kill@2", **static)
        faults.await_said(stack, leaving, "line_taken_over", faults.PARTITIONS)
        last = stack.start_worker()
        assert faults.await_end(stack, leaving) == KILLED, stack.log(leaving)[-3000:]
        faults.await_cuts(stack)
    stacks.await_quiet(stack)
    faults.terminate(stack, last)
    oracle.assert_decided(stack, case.rules)
