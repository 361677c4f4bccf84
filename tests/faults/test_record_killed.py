"""A recorder killed at every step of a batch: each record is a row, once."""

from __future__ import annotations

import pytest

from streams.engine.failpoint import RECORD_POINTS
from tests.support import faults, oracle
from tests.support import record as support
from tests.support.faults import KILLED, Case
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse, pytest.mark.faults]

_MONTH_MS = 31 * 86_400_000
_VISITS = {"before_insert": 6, "after_insert": 6, "before_commit": 1}


def _write(stack: Stack, count: int, first: int) -> None:
    """Records of three months, so that a batch is several blocks."""
    records = [support.delivery(first + n, str(n % 200)) for n in range(count)]
    support.write_audit(stack, [r | {"at": r["at"] + n % 3 * _MONTH_MS} for n, r in enumerate(records)])


@pytest.mark.parametrize("seed", faults.seeds(5))
def test_a_recorder_killed_at_every_failpoint_records_each_record_once(case: Case, seed: int) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    points = [*RECORD_POINTS] * 2
    chance.shuffle(points)
    static, total = faults.static("recorder"), 0
    with support.clickhouse(stack) as house:
        for point in points:
            more = chance.randint(200, 900)
            _write(stack, more, total)
            total += more
            visit = chance.randint(1, _VISITS[point])
            recorder = stack.start_worker(
                "record", OPPORTUNE_FAILPOINT=f"record.{point}:kill@{visit}", **static
            )
            assert faults.await_end(stack, recorder) == KILLED, stack.log(recorder)[-3000:]
        last = stack.start_worker("record", **static)
        support.await_landed(stack, last)
        faults.terminate(stack, last)
        oracle.assert_recorded(stack, house)
        assert len(list(house.audit().all())) == total
