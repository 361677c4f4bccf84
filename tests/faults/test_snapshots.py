"""Snapshots: a restart reads the changelog's tail, and a snapshot that is unfit changes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas import topics
from schemas.profile import LAYOUTS, ROW
from schemas.topics import DAY_MS
from streams.engine import snapshot_file
from streams.engine.kafka import read_all
from streams.engine.snapshot_file import SUFFIX
from streams.engine.store import SlabStore
from tests.support import faults, oracle
from tests.support import stack as stacks
from tests.support.faults import KILLED, PARTITIONS, Case, Traffic
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]


@pytest.fixture
def often(case: Case) -> Iterator[Case]:
    """A case whose workers take snapshots all the time."""
    case.stack.environment["OPPORTUNE_SNAPSHOT_EVERY"] = "0.2 s"
    yield case


def _files(stack: Stack, partition: int) -> list[Path]:
    folder = stack.settings.state_dir / "snapshots" / "opportune-decide" / str(partition)
    return sorted(folder.glob(f"*{SUFFIX}"))


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _newest(stack: Stack) -> list[int | None]:
    """Cut of the newest snapshot of each partition."""
    return [_number(files[-1]) if (files := _files(stack, p)) else None for p in range(PARTITIONS)]


def _killed_with_snapshots(stack: Stack) -> None:
    """A worker has lived until it had two snapshots of every partition that is not empty, and is dead."""
    worker = stack.start_worker()

    def taken() -> bool:
        assert worker.poll() is None, stack.log(worker)[-3000:]
        return all(len(_files(stack, p)) == 2 and _keys(_files(stack, p)[0]) for p in range(PARTITIONS))

    faults.await_until("snapshots", taken)
    worker.kill()
    worker.wait()


def _keys(path: Path) -> int:
    try:
        return snapshot_file.head(path).keys
    except snapshot_file.Unfit:  # thrown away for a newer one
        return 0


def _taken_over(stack: Stack, worker: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """What a worker has said of its take-overs, by partition."""
    faults.await_said(stack, worker, "line_taken_over", PARTITIONS)
    return sorted(faults.said(stack, worker, "line_taken_over"), key=lambda said: str(said["partition"]))


def _refused(stack: Stack, worker: subprocess.Popen[bytes]) -> dict[object, str]:
    return {each["partition"]: str(each["error"]) for each in faults.said(stack, worker, "snapshot_refused")}


def _changelog(stack: Stack, partition: int) -> int:
    consumer = stack.client.reader()
    try:
        return sum(1 for _ in read_all(consumer, topics.PROFILES.name, partition))
    finally:
        consumer.close()


def _assert_right(case: Case) -> None:
    """Everything that was decided after the restart came of rows that a snapshot gave."""
    stacks.await_quiet(case.stack)
    oracle.assert_decided(case.stack, case.rules, least=10)


@pytest.mark.parametrize("seed", faults.seeds(2, short=True))
def test_a_restart_reads_a_snapshot_and_of_the_changelog_only_the_tail(often: Case, seed: int) -> None:
    stack = often.stack
    with Traffic.of(stack, seed):
        _killed_with_snapshots(stack)
        expected, records = _newest(stack), [_changelog(stack, p) for p in range(PARTITIONS)]
        second = stack.start_worker()
        taken = _taken_over(stack, second)
        assert [said["snapshot"] for said in taken] == expected
        assert all(said["changelog_records"] < count for said, count in zip(taken, records, strict=True))
        assert not _refused(stack, second)
        faults.await_cuts(stack, 10)
        faults.await_until("metrics", lambda: "opportune_snapshot_bytes{" in stack.metrics(second))
    _assert_right(often)


@pytest.mark.parametrize("point", ["mid_write", "before_rename"])
@pytest.mark.parametrize("seed", faults.seeds(2, short=True))
def test_a_worker_that_dies_while_it_writes_one_leaves_the_one_before(
    often: Case, point: str, seed: int
) -> None:
    stack, visit = often.stack, faults.chance_of(seed).randint(2, 3 * PARTITIONS)
    with Traffic.of(stack, seed):
        dying = stack.start_worker(OPPORTUNE_FAILPOINT=f"snapshot.{point}:kill@{visit}")
        assert faults.await_end(stack, dying) == KILLED, stack.log(dying)[-3000:]
        expected = _newest(stack)
        second = stack.start_worker()
        assert [said["snapshot"] for said in _taken_over(stack, second)] == expected
        assert any(expected)
        assert not _refused(stack, second), "under its name it is whole"
        faults.await_cuts(stack, 10)
    _assert_right(often)


def _rewritten(path: Path, **change: Any) -> None:
    """The same rows, whole, with another header, and therefore under another name."""
    store = SlabStore(ROW)
    header = replace(snapshot_file.read(path, LAYOUTS, store), **change)
    path.unlink()
    name = f"{header.number:020}-{header.taken_at:013}{SUFFIX}"
    snapshot_file.write(path.with_name(name), header, store.freeze())


def test_snapshots_that_are_unfit_are_refused_and_the_rows_are_right_all_the_same(often: Case) -> None:
    stack = often.stack
    with Traffic.of(stack, 0):
        _killed_with_snapshots(stack)
        damaged, cut_off, ahead, old = (_files(stack, p) for p in range(PARTITIONS))
        whole = damaged[-1].read_bytes()
        damaged[-1].write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
        cut_off[-1].write_bytes(cut_off[-1].read_bytes()[:-50])
        for path in ahead:
            _rewritten(path, number=_number(path) + 10**6)
        for path in old:
            _rewritten(path, taken_at=int(path.stem.partition("-")[2]) - 15 * DAY_MS)
        expected = [_number(damaged[0]), _number(cut_off[0]), None, None]

        second = stack.start_worker()
        assert [said["snapshot"] for said in _taken_over(stack, second)] == expected
        for partition, why in enumerate(("damaged", "damaged", "the journal ends at", "days old")):
            assert why in _refused(stack, second)[partition]
        faults.await_cuts(stack, 10)
    _assert_right(often)
