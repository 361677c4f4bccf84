"""A sender killed around each message's hand-over: nothing is mailed twice, and what is not known is told."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from schemas import topics
from schemas.dispatch import State
from streams.engine.failpoint import SENDER_POINTS
from tests.support import faults, mail, oracle
from tests.support.faults import KILLED
from tests.support.mail import command
from tests.support.pipeline import decoded
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

_LANES = '[default]\nrate = "10/s"\n'
_POINTS = (*SENDER_POINTS, "after_begin", "after_produce", "after_commit", "after_settle")


@pytest.mark.parametrize("seed", faults.seeds(5))
def test_a_sender_killed_at_every_failpoint_mails_nothing_twice(tmp_path: Path, seed: int) -> None:
    _killed(tmp_path, seed, kills=len(_POINTS), messages=500)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", faults.seeds(1))
def test_a_sender_killed_twenty_times_under_load_mails_nothing_twice(tmp_path: Path, seed: int) -> None:
    _killed(tmp_path, seed, kills=20, messages=1500)


def _killed(folder: Path, seed: int, kills: int, messages: int) -> None:
    """Kill senders one after the other, each at a failpoint, while messages go and wait."""
    chance = faults.chance_of(seed)
    points = [point for _ in range(0, kills, len(_POINTS)) for point in chance.sample(_POINTS, len(_POINTS))]
    with mail.running(folder, messages, lanes=_LANES) as stack:
        commands = [command(f"lane{i % 3}", i) for i in range(messages)]
        mail.produce(stack, topics.COMMANDS.name, commands)
        static = faults.static("sender")
        for point in points[:kills]:
            failpoint = f"deliver.{point}:kill@{chance.randint(1, 12)}"
            worker = stack.start_worker("deliver", OPPORTUNE_FAILPOINT=failpoint, **static)
            assert faults.await_end(stack, worker) == KILLED, stack.log(worker)[-3000:]
        assert State.WAITING in mail.states(stack).values(), "there was something to send all the time"
        last = stack.start_worker("deliver", **static)
        dispatches = {each["dispatch_id"] for each in commands}
        mail.await_ended(stack, dispatches)
        faults.terminate(stack, last)
        oracle.assert_mailed(stack, dispatches)
        kinds = Counter(outcome["kind"] for outcome in mail.outcomes(stack))
        assert 0 < kinds["unknown"] == _unknown_in_flight(stack), kinds
        assert kinds["delivered"] + kinds["unknown"] == messages, kinds


def _unknown_in_flight(stack: Stack) -> int:
    """How many outcomes were not known by the journal, never more of a cut than were in flight before it."""
    entries = decoded(stack.client, topics.DELIVER_JOURNAL.name, mail.PARTITIONS)
    for before, entry in pairwise(sorted(entries, key=lambda entry: (entry["partition"], entry["number"]))):
        in_flight = before["in_flight"] if before["partition"] == entry["partition"] else 0
        assert entry["unknown"] <= in_flight, (before, entry)
    return sum(entry["unknown"] for entry in entries)
