"""Deciders that were frozen, lost their partitions, and wake up: nothing that they had begun is visible."""

from __future__ import annotations

import signal
import time
from typing import Final

import pytest

from schemas import topics
from tests.support import faults, oracle
from tests.support import stack as stacks
from tests.support.faults import PARTITIONS, Case, Keeper, Traffic

pytestmark = [pytest.mark.kafka, pytest.mark.faults]
_TOO_OLD_S: Final = (
    11.0  # records of a transaction have 10 s: the owner learns that first, and then of the fence
)


@pytest.mark.parametrize("seed", faults.seeds(5, short=True))
def test_an_owner_frozen_inside_its_transaction_is_fenced_when_it_wakes_up(case: Case, seed: int) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    point = chance.choice(("mid_produce", "after_produce"))
    visit = chance.randint(1, 12)
    with Traffic.of(stack, seed) as traffic:
        traffic.await_more(400)  # a backlog, so that the transaction holds much
        owner = stack.start_worker(OPPORTUNE_FAILPOINT=f"decide.{point}:stop@{visit}")
        faults.await_stopped(owner)
        taken_before = stack.log(owner).count("line_taken_over")
        successor = stack.start_worker()
        faults.await_said(stack, successor, "line_taken_over", PARTITIONS)
        faults.await_cuts(stack, 2)
        if seed % 2:
            time.sleep(_TOO_OLD_S)
        owner.send_signal(signal.SIGCONT)
        faults.await_said(stack, owner, "line_fenced")
        faults.await_until(
            "its partitions or its end",
            lambda: owner.poll() is not None or stack.log(owner).count("line_taken_over") > taken_before,
        )
        faults.await_cuts(stack, 2)
    stacks.await_quiet(stack)
    faults.terminate(stack, *(each for each in (owner, successor) if each.poll() is None))
    oracle.assert_decided(stack, case.rules)


@pytest.mark.parametrize("seed", faults.seeds(1))
def test_what_a_dead_owner_left_in_an_open_transaction_is_never_read(case: Case, seed: int) -> None:
    stack = case.stack
    with Traffic.of(stack, seed) as traffic:
        traffic.await_more(400)
        owner = stack.start_worker(OPPORTUNE_FAILPOINT="decide.after_produce:hang@3")
        faults.await_until(
            "records of an open transaction",
            lambda: any(oracle.uncommitted(stack.client, topics.JOURNAL.name, p) for p in range(PARTITIONS)),
        )
        owner.kill()
        successor = stack.start_worker()
        faults.await_said(stack, successor, "line_taken_over", PARTITIONS)
        faults.await_cuts(stack, 2)
    stacks.await_quiet(stack)
    faults.terminate(stack, successor)
    left = sum(oracle.uncommitted(stack.client, topics.JOURNAL.name, p) for p in range(PARTITIONS))
    assert left > 0, "they are still there, and aborted"
    oracle.assert_decided(stack, case.rules)


@pytest.mark.parametrize("seed", faults.seeds(5))
def test_of_two_deciders_one_is_frozen_and_at_times_the_other_killed_meanwhile(case: Case, seed: int) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    with Keeper(stack) as first, Keeper(stack) as second, Traffic.of(stack, seed):
        for keeper in (first, second):
            faults.await_said(stack, keeper.worker, "line_taken_over")
        for _ in range(2):
            one, other = chance.sample((first, second), 2)
            frozen = one.worker
            frozen.send_signal(signal.SIGSTOP)
            if chance.random() < 0.5:
                other.worker.kill()
            # What the frozen one owned goes on once its session is over.
            faults.await_cuts(stack, chance.randint(2, 5))
            frozen.send_signal(signal.SIGCONT)
            faults.await_cuts(stack, 2)
    stacks.await_quiet(stack)
    faults.terminate(stack, *(each.worker for each in (first, second) if each.worker.poll() is None))
    oracle.assert_decided(stack, case.rules)
