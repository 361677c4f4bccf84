"""A new version with another row comes worker by worker, while the stream runs; there is no way back."""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from schemas import topics
from schemas.profile import ROW_VERSION
from streams.engine.kafka import Client
from tests.support import faults, next_version, oracle, pipeline
from tests.support import stack as stacks
from tests.support.faults import PARTITIONS, Case, Traffic
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

EX_SOFTWARE = 70
HALF = PARTITIONS // 2


def _leave(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    assert faults.await_end(stack, worker) == 0, stack.log(worker)[-3000:]


def _stored(stack: Stack) -> list[bytes]:
    return [row for p in range(PARTITIONS) for row in pipeline.rows(stack.client, p).values()]


@pytest.fixture
def read_as_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle knows the rows of today: what the next version has written is read as that."""
    stored = pipeline.rows

    def rows(client: Client, partition: int) -> dict[str, bytes]:
        return {who: next_version.as_today(row) for who, row in stored(client, partition).items()}

    def in_this_process(*_: Any) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1)

    monkeypatch.setattr(pipeline, "ProcessPoolExecutor", in_this_process)
    monkeypatch.setattr(pipeline, "rows", rows)


@pytest.mark.parametrize("seed", faults.seeds(2, short=True))
def test_two_workers_are_replaced_one_after_the_other_by_the_next_version(
    case: Case, seed: int, request: pytest.FixtureRequest
) -> None:
    stack = case.stack
    stack.environment["OPPORTUNE_SNAPSHOT_EVERY"] = "0.5 s"
    first, second = stack.start_worker(), stack.start_worker()
    with Traffic.of(stack, seed):
        for worker in (first, second):
            faults.await_said(stack, worker, "line_taken_over", HALF)
        faults.await_cuts(stack, 5)
        _leave(stack, first)
        third = next_version.start(stack)
        faults.await_said(stack, third, "line_taken_over", HALF)
        faults.await_cuts(stack, 5)  # of both versions
        _leave(stack, second)
        fourth = next_version.start(stack)
        faults.await_said(stack, fourth, "line_taken_over", HALF)
        faults.await_cuts(stack, 5)
    stacks.await_quiet(stack)
    for worker in (third, fourth):
        assert "snapshot_refused" not in stack.log(worker), "those of today's version are brought up to date"
        _leave(stack, worker)

    rows = _stored(stack)
    versions = np.array([row[0] for row in rows])
    assert (versions == next_version.VERSION).any()
    upgraded = np.frombuffer(
        b"".join(row for row in rows if row[0] == next_version.VERSION), next_version.NEXT
    )
    assert upgraded["seen"].any(), "the step filled what the new version has more"
    request.getfixturevalue("read_as_today")
    assert oracle.violations(stack, case.rules) == []
    decided = pipeline.decoded(stack.client, topics.AUDIT.name, PARTITIONS)
    assert sum("campaign_version" in each["body"] for each in decided) > 10, "there was something to decide"


def test_a_partition_that_comes_back_to_the_version_before_ends_its_worker(case: Case) -> None:
    stack = case.stack
    newer = next_version.start(stack)
    with Traffic.of(stack, 0):
        faults.await_said(stack, newer, "line_taken_over", PARTITIONS)
        faults.await_until("rows", lambda: len(_stored(stack)) >= 50)
    stacks.await_quiet(stack)
    _leave(stack, newer)
    before = sorted(_stored(stack))

    older = stack.start_worker()
    assert faults.await_end(stack, older) == EX_SOFTWARE
    log = stack.log(older)
    assert "NewerRow" in log
    known = f"this program knows {ROW_VERSION}"
    assert f"a row has version {ROW_VERSION + 1}, {known}; deploy the newer program" in log
    assert sorted(_stored(stack)) == before, "it has written nothing"
