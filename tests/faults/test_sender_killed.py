"""A sender killed around each message's hand-over: nothing is mailed twice, and what is not known is told."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from schemas import topics
from streams.engine.failpoint import SENDER_POINTS
from tests.support import faults, mail, oracle
from tests.support.faults import KILLED
from tests.support.mail import command
from tests.support.pipeline import decoded
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

_LANES = '[default]\nrate = "10/s"\n'
_MESSAGES = 400
_OF_ITS_LINE = ("after_begin", "after_produce", "after_commit", "after_settle")


@pytest.mark.parametrize("seed", faults.seeds(5))
def test_a_sender_killed_at_every_failpoint_mails_nothing_twice(tmp_path: Path, seed: int) -> None:
    chance = faults.chance_of(seed)
    points = [*SENDER_POINTS, *_OF_ITS_LINE]
    chance.shuffle(points)
    with mail.running(tmp_path, _MESSAGES, lanes=_LANES) as stack:
        commands = [command(f"lane{i % 3}", i) for i in range(_MESSAGES)]
        mail.produce(stack, topics.COMMANDS.name, commands)
        static = faults.static("sender")
        for point in points:
            failpoint = f"deliver.{point}:kill@{chance.randint(1, 12)}"
            worker = stack.start_worker("deliver", OPPORTUNE_FAILPOINT=failpoint, **static)
            assert faults.await_end(stack, worker) == KILLED, stack.log(worker)[-3000:]
        last = stack.start_worker("deliver", **static)
        dispatches = {each["dispatch_id"] for each in commands}
        mail.await_ended(stack, dispatches)
        faults.terminate(stack, last)
        oracle.assert_mailed(stack, dispatches)
        kinds = Counter(outcome["kind"] for outcome in mail.outcomes(stack))
        assert 0 < kinds["unknown"] == _unknown_in_flight(stack), kinds
        assert kinds["delivered"] + kinds["unknown"] == _MESSAGES, kinds


def _unknown_in_flight(stack: Stack) -> int:
    """How many outcomes were not known by the journal, never more of a cut than were in flight before it."""
    entries = decoded(stack.client, topics.DELIVER_JOURNAL.name, mail.PARTITIONS)
    for before, entry in pairwise(sorted(entries, key=lambda entry: (entry["partition"], entry["number"]))):
        in_flight = before["in_flight"] if before["partition"] == entry["partition"] else 0
        assert entry["unknown"] <= in_flight, (before, entry)
    return sum(entry["unknown"] for entry in entries)
