"""The holes of plain Faust, each shown on a plain agent; our engine comes through the same disturbance.

A worker counts the records of each key and answers every one (`tests.support.counting`). Each hole is where
Faust acknowledges, flushes or commits what it has not done; the engine has one transaction and its journal.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import topics
from tests.support import stack as stacks
from tests.support.counting import LARGE, PADDING, TROUBLED, Way
from tests.support.counting_runs import Run, plain
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

PARTITIONS = 2
WORKER_FAILED = 70
NEVER_S = 3600.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stacks.running(Path(tmp_path_factory.mktemp("holes")), PARTITIONS) as running:
        yield running


# A: a rebalance forgets what was acknowledged and not yet committed


def _a_second_worker_joins(run: Run) -> None:
    """All is answered and stored and, by plain Faust, not yet committed; its interval widens that moment.

    It counts nearly all of it twice: the one record that its recovery may lose (`Run.begin_group`) besides.
    """
    run.begin_group()
    for partition in range(PARTITIONS):
        run.produce(*plain(20), partition=partition)
    run.start(instance="one", commit_s=NEVER_S)
    for partition in range(PARTITIONS):
        run.await_answer_to_the_last(partition)
    run.wait_until(
        "all stored", lambda: all(max(run.rows(p).values(), default=0) >= 20 for p in range(PARTITIONS))
    )
    run.start(instance="two", commit_s=NEVER_S)
    run.await_members(2)
    for partition in range(PARTITIONS):
        run.produce(*plain(1), partition=partition)
        run.await_answer_to_the_last(partition)
    run.kill()


def test_plain_faust_counts_twice_what_a_rebalance_found_uncommitted(stack: Stack) -> None:
    run = Run(stack, "rebalance", "plain")
    _a_second_worker_joins(run)
    last = [max(answer.count for answer in run.answers() if answer.partition == p) for p in range(PARTITIONS)]
    assert max(last) > 21, "there are 21 records to count"


def test_the_engine_counts_once_across_a_rebalance(stack: Stack) -> None:
    run = Run(stack, "rebalance", "cut")
    _a_second_worker_joins(run)
    run.assert_exactly_once()


# B: a commit passes the record at the head that is still in flight


def test_plain_faust_commits_past_a_record_in_flight_and_loses_it(stack: Stack) -> None:
    run = Run(stack, "in-flight", "plain")
    run.start(way="two_at_once", fault="hang")
    run.produce(*plain(10))
    run.await_group_at(10)
    run.produce(TROUBLED, *plain(9))
    run.await_group_at(20)
    assert run.lost() == [10], "it is still in flight"
    run.kill()
    run.succeed(way="two_at_once")
    assert run.lost() == [10]


def test_the_engine_writes_nothing_past_a_cut_in_flight(stack: Stack) -> None:
    run = Run(stack, "in-flight", "cut")
    run.produce(*plain(10))  # before the start, so that the first cut holds them all
    run.start(failpoint="after_produce:hang@2")
    run.wait_until("the first cut", lambda: len(run.answers()) == 10)
    appended = run.appended(run.outputs)
    run.produce(TROUBLED)
    run.wait_until("the second cut in flight", lambda: run.appended(run.outputs) > appended)
    run.produce(*plain(9))
    run.await_group_at(10)
    assert run.lost() == [*range(10, 20)]
    assert [entry.next_offsets() for entry in run.journal(0)] == [{run.source: 10}]
    assert run.group_offset() == 10
    run.kill()
    run.succeed()
    run.assert_exactly_once()


# C: an exception in the agent acknowledges what it did not handle


@pytest.mark.parametrize(("way", "lost"), [("each", [5]), ("batches", [*range(10)])])
def test_plain_faust_commits_what_an_exception_left_unhandled(
    stack: Stack, way: Way, lost: list[int]
) -> None:
    run = Run(stack, f"exception-{way.replace('_', '-')}", "plain")
    run.produce(*plain(5), TROUBLED, *plain(4))  # before the start, so that one batch holds them all
    run.start(way=way, fault="raise")
    run.await_group_at(10)
    run.kill()
    run.succeed(way=way)
    assert run.lost() == lost


def test_the_engine_ends_at_an_exception_and_its_successor_handles_the_cut(stack: Stack) -> None:
    run = Run(stack, "exception", "cut")
    run.produce(*plain(5), TROUBLED, *plain(4))
    assert run.start(fault="raise").wait(stacks.PATIENCE_S) == WORKER_FAILED
    assert run.journal(0) == []
    assert run.group_offset() is None
    assert run.answers() == []
    run.succeed()
    run.assert_exactly_once()


# D: flush gives up after 100 ms without progress, and the commit goes on


def test_plain_faust_commits_while_outputs_and_changelog_wait_in_its_buffer(stack: Stack) -> None:
    """The output topic has no leader, here because it is not there yet; all else waits behind its record."""
    run = Run(stack, "flush", "plain", outputs_exist=False)
    run.produce(*plain(50))
    run.start(way="soon")
    run.await_group_at(50)
    run.kill()
    run.create_outputs()
    run.succeed(way="soon")
    assert run.lost() == [*range(50)]
    assert [answer.count for answer in run.answers()] == [2], "the changelog had got one of 50 rows"


def test_the_engine_commits_nothing_while_an_output_cannot_be_delivered(stack: Stack) -> None:
    run = Run(stack, "flush", "cut", outputs_exist=False)
    appended = run.appended(topics.JOURNAL.name)
    run.produce(*plain(50))
    run.start()
    run.wait_until("a transaction under way", lambda: run.appended(topics.JOURNAL.name) > appended)
    assert run.journal(0) == []
    assert run.group_offset() is None
    run.kill()
    run.create_outputs()
    run.succeed()
    run.assert_exactly_once()


# E: a delivery that failed does not stop the commit

TOO_SMALL = len(PADDING) // 4
LARGE_ENOUGH = len(PADDING) * 4


def _an_output_is_refused(run: Run) -> subprocess.Popen[bytes]:
    """Let one output be larger than its topic takes, alone in its batch."""
    run.produce(*plain(3))
    worker = run.start()
    run.await_answer_to_the_last()
    run.produce(LARGE)
    return worker


def test_plain_faust_commits_although_an_output_was_refused(stack: Stack) -> None:
    run = Run(stack, "refused", "plain", output_bytes=TOO_SMALL)
    _an_output_is_refused(run)
    run.await_group_at(4)
    run.kill()
    run.allow_outputs_of(LARGE_ENOUGH)
    run.succeed()
    assert run.lost() == [3]


def test_the_engine_ends_where_an_output_is_refused_and_commits_nothing(stack: Stack) -> None:
    run = Run(stack, "refused", "cut", output_bytes=TOO_SMALL)
    worker = _an_output_is_refused(run)
    assert worker.wait(stacks.PATIENCE_S) == WORKER_FAILED
    assert run.lost() == [3]
    assert [entry.next_offsets() for entry in run.journal(0)] == [{run.source: 3}]
    run.allow_outputs_of(LARGE_ENOUGH)
    run.succeed()
    run.assert_exactly_once()


# F: a commit that failed counts as made


def _its_first_commit_is_refused(run: Run) -> None:
    """The refusal is a stub: a real one comes with a rebalance, whose other hole (A) would hide this one.

    The plain worker keeps no table here: recovering it may lose the very record that is handled again.
    """
    run.begin_group()
    run.produce(*plain(1))
    run.start(way="batches", fault="commit_refused")
    run.wait_until("a refused commit", lambda: "commit refused" in run.log())


def test_plain_faust_never_makes_up_for_a_commit_that_failed(stack: Stack) -> None:
    run = Run(stack, "commit", "plain")
    _its_first_commit_is_refused(run)
    run.produce(*plain(1), partition=1)
    run.await_group_at(2, partition=1)
    assert run.group_offset() == 1, "the next commit passes over it"
    run.stop()
    assert run.group_offset() == 1, "and so does an orderly stop"
    run.succeed(way="batches")
    assert [answer.offset for answer in run.answers() if answer.partition == 0] == [1, 1, 2]


def test_the_engine_tells_the_group_again_and_goes_by_its_journal(stack: Stack) -> None:
    run = Run(stack, "commit", "cut")
    _its_first_commit_is_refused(run)
    run.await_group_at(2)
    run.stop()
    run.succeed()
    run.assert_exactly_once()
