"""The table's sources gone: what a worker keeps is rebuilt, and without its changelog it does not go on."""

from __future__ import annotations

import shutil

import pytest

from schemas import topics
from tests.support import faults, oracle
from tests.support import stack as stacks
from tests.support.faults import PARTITIONS, Case, Traffic

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

_EX_SOFTWARE = 70
_KEPT = ("workers", "snapshots")


@pytest.mark.parametrize("seed", faults.seeds(1))
def test_a_decider_whose_state_folder_is_gone_rebuilds_its_table(case: Case, seed: int) -> None:
    stack = case.stack
    with Traffic.of(stack, seed) as traffic:
        first = stack.start_worker()
        traffic.await_more(2500)
        faults.await_cuts(stack, 3)
        first.kill()
        first.wait()
        for name in _KEPT:
            shutil.rmtree(stack.settings.state_dir / name, ignore_errors=True)
        second = stack.start_worker()
        faults.await_said(stack, second, "line_taken_over", PARTITIONS)
        traffic.await_more(200)
    stacks.await_quiet(stack)
    faults.terminate(stack, second)
    taken = faults.said(stack, second, "line_taken_over")
    assert all(int(str(line["changelog_records"])) >= int(str(line["keys"])) > 0 for line in taken)
    oracle.assert_decided(stack, case.rules)


@pytest.mark.parametrize("made_anew", [False, True])
@pytest.mark.parametrize("seed", faults.seeds(1))
def test_a_decider_whose_changelog_was_deleted_refuses_to_start(
    case: Case, seed: int, made_anew: bool
) -> None:
    stack = case.stack
    with Traffic.of(stack, seed) as traffic:
        first = stack.start_worker()
        traffic.await_more(2500)
        faults.await_cuts(stack, 3)
        faults.terminate(stack, first)
    for name in _KEPT:
        shutil.rmtree(stack.settings.state_dir / name, ignore_errors=True)
    before = faults.cuts(stack)
    faults.delete(stack, topics.PROFILES.name, made_anew=made_anew)
    second = stack.start_worker()
    assert faults.await_end(stack, second, 60) == _EX_SOFTWARE, stack.log(second)[-3000:]
    assert topics.PROFILES.name in stack.log(second), "it says which topic is lost"
    assert faults.cuts(stack) == before, "and has decided nothing on an empty table"
