"""Deciders told to stop under load, and others that join and leave all the time."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support import faults, oracle
from tests.support import stack as stacks
from tests.support.faults import PARTITIONS, Case, Traffic

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

_JOINS_EVERY_S = 3.0
_STORM_S = 60.0


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.soak)])
@pytest.mark.parametrize("seed", faults.seeds(1, short=True))
def test_a_decider_told_to_stop_under_load_drains_and_the_next_repeats_nothing(
    case: Case, seed: int, times: int
) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    with Traffic.of(stack, seed) as traffic:
        for _ in range(times):
            worker = stack.start_worker()
            faults.await_said(stack, worker, "line_taken_over", chance.randint(1, PARTITIONS))
            traffic.await_more(chance.randint(1, 200))
            faults.terminate(stack, worker)
        last = stack.start_worker()
        faults.await_said(stack, last, "line_taken_over", PARTITIONS)
        traffic.await_more(200)
    stacks.await_quiet(stack)
    faults.terminate(stack, last)
    oracle.assert_decided(stack, case.rules)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", faults.seeds(1))
def test_a_second_decider_joins_and_leaves_every_three_seconds_and_the_first_goes_on(
    case: Case, seed: int
) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    with Traffic.of(stack, seed):
        first = stack.start_worker()
        faults.await_said(stack, first, "line_taken_over", PARTITIONS)
        storm_ends = time.monotonic() + _STORM_S
        while time.monotonic() < storm_ends:
            guest = stack.start_worker()
            time.sleep(_JOINS_EVERY_S)
            guest.send_signal(chance.choice((signal.SIGTERM, signal.SIGKILL)))
            faults.await_end(stack, guest, 60)
        faults.await_cuts(stack, 2)
    stacks.await_quiet(stack)
    assert first.poll() is None, stack.log(first)[-3000:]
    faults.terminate(stack, first)
    oracle.assert_decided(stack, case.rules)
