"""Workers killed and brought back: what is written is what an undisturbed run would have written."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from schemas import topics
from streams.replay import session
from tests.support import stack as stacks
from tests.support.pipeline import decoded, rows
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

PARTITIONS = 4


def _written(stack: Stack) -> dict[str, Any]:
    """Everything that DECIDE has written, as a read-committed consumer sees it."""
    audit = decoded(stack.client, topics.AUDIT.name, PARTITIONS)
    return {
        "rows": {p: rows(stack.client, p) for p in range(PARTITIONS)},
        "audit": Counter(map(repr, audit)),
        "commands": Counter(repr(c) for c in decoded(stack.client, topics.COMMANDS.name, PARTITIONS)),
        "journal": Counter(repr(entry) for entry in decoded(stack.client, topics.JOURNAL.name, PARTITIONS)),
    }


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _loaded(folder: Path, days: int, households: int) -> list[int]:
    """Load a plan into a broker's folder, to be copied: in both runs the records have the same timestamps."""
    with stacks.running(folder, PARTITIONS) as stack:
        return stacks.load(stack, days, households)


def _undisturbed(folder: Path, ends: list[int]) -> dict[str, Any]:
    with stacks.running(folder, PARTITIONS) as stack:
        stack.start_worker()
        stacks.await_plan(stack, ends)
        return _written(stack)


def _killed_at_random(folder: Path, ends: list[int], kills: int, seed: int) -> dict[str, Any]:
    """Run the same plan with a worker that is killed -9 at random moments while it works."""
    chance = random.Random(seed)  # noqa: S311 - moments of a test, not secrets
    with stacks.running(folder, PARTITIONS) as stack:
        follower = session.JournalReader(stack.client, PARTITIONS, from_start=True)
        total = sum(ends)
        for number in range(kills):
            worker = stack.start_worker()
            # Moments are places in the plan, so that each kill meets a worker at work.
            place = total * (number + chance.random()) / (kills + 1)
            reached: dict[int, int] = {}
            deadline = time.monotonic() + stacks.PATIENCE_S
            while sum(reached.values()) < place and time.monotonic() < deadline:
                for entry in follower.poll(0.05):
                    reached[entry.partition] = entry.plan_offset
                follower_done = sum(reached.values()) >= total
                if follower_done or worker.poll() is not None:
                    break
            time.sleep(chance.random() * 0.2)
            _kill(worker)
            follower.close()
            follower = session.JournalReader(stack.client, PARTITIONS, from_start=True)
        follower.close()
        stack.start_worker()
        stacks.await_plan(stack, ends)
        return _written(stack)


def _assert_kills_change_nothing(folder: Path, days: int, households: int, kills: int, seed: int) -> None:
    ends = _loaded(folder / "undisturbed", days, households)
    shutil.copytree(folder / "undisturbed", folder / "killed")
    expected = _undisturbed(folder / "undisturbed", ends)
    found = _killed_at_random(folder / "killed", ends, kills, seed)
    for what in expected:
        assert found[what] == expected[what], f"{what} differ"
    assert sum(expected["commands"].values()) > 20, "there was something to send"


def test_a_worker_killed_while_it_loads_writes_what_an_undisturbed_one_writes(tmp_path: Path) -> None:
    _assert_kills_change_nothing(tmp_path, days=12, households=150, kills=3, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_a_worker_killed_ten_times_writes_what_an_undisturbed_one_writes(tmp_path: Path) -> None:
    _assert_kills_change_nothing(tmp_path, days=40, households=300, kills=10, seed=2)


def test_an_ordinary_hand_over_keeps_the_rows_of_partitions_that_stay(tmp_path: Path) -> None:
    with stacks.running(tmp_path, PARTITIONS) as stack:
        ends = stacks.load(stack, days=6, households=80)
        first = stack.start_worker()
        stacks.await_plan(stack, ends)
        stack.start_worker()
        deadline = time.monotonic() + stacks.PATIENCE_S
        while stack.log(first).count('"kept": true') < PARTITIONS // 2:
            assert time.monotonic() < deadline, stack.log(first)[-3000:]
            time.sleep(0.2)
        taken = [line for line in stack.log(first).splitlines() if '"kept": true' in line]
        assert len(taken) == PARTITIONS // 2, "half of the partitions stayed"
        assert all('"changelog_records": 0' in line for line in taken), "their rows were not read again"
