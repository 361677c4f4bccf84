"""A table on disk is as of a committed cut, or it is thrown away."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog.testing
from confluent_kafka import OFFSET_BEGINNING

from schemas.layouts import Layouts
from schemas.topics import DAY_MS
from streams.engine import rocks_tables
from streams.engine.kafka import Client
from streams.engine.rocks import DAMAGED, RocksFailed, RocksStore
from streams.engine.rocks_tables import RocksPlace, RocksTables
from streams.engine.snapshot import Snapshot
from streams.engine.store import Store

ROW = np.dtype([("version", "u1"), ("n", "<i8")])
LAYOUTS = Layouts("a row", (ROW,))
PARTITION = 2


class Kafka:
    """What the tables ask of Kafka."""

    def __init__(self) -> None:
        self.end = 100
        self.topic = "first"


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()

    class Reader:
        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(rocks_tables, "topic_id", lambda client, topic: kafka.topic)
    monkeypatch.setattr(rocks_tables, "bounds", lambda consumer, topic, partition: (0, kafka.end))
    monkeypatch.setattr(rocks_tables, "_LOCKED_S", 0.2)
    monkeypatch.setattr(Client, "reader", lambda self: Reader())
    return kafka


def _tables(folder: Path) -> RocksTables:
    place = RocksPlace(Client("nowhere:1", {}), "rows", LAYOUTS, lambda rows: rows["n"] < 10, folder, DAY_MS)
    return RocksTables(place, lambda rows: rows)


def _put(into: Store, *numbers: int) -> None:
    rows = np.array([(1, number) for number in numbers], ROW)
    keys = [f"r{number}".encode() for number in numbers]
    into.put_many(keys, rows, np.full(len(numbers), 5, np.int64))


def _numbers(store: Store) -> list[int]:
    return sorted(int(row["n"]) for _, _, rows in store.batches() for row in rows)


def _closed(found: Snapshot) -> None:
    assert isinstance(found.store, RocksStore)
    found.store.close()


@pytest.fixture
def kept(tmp_path: Path, kafka: Kafka) -> Path:
    """A folder as of cut 8, with rows 1 to 3 committed, and 4 written by a cut that did not commit."""
    found = _tables(tmp_path).newest(PARTITION, at_most=7)
    assert (found.number, found.changelog_offset, _numbers(found.store)) == (0, OFFSET_BEGINNING, [])
    found.store.committed(7)
    _put(found.store, 1, 2, 3)
    found.store.committed(8)
    _put(found.store, 4)
    found.store.delete_many([b"r1"])
    _closed(found)
    return tmp_path


def test_what_was_committed_is_there_and_what_was_not_is_not(kept: Path) -> None:
    found = _tables(kept).newest(PARTITION, at_most=8)
    assert (found.number, found.changelog_offset) == (8, 100)
    assert _numbers(found.store) == [1, 2, 3]
    assert len(found.store) == 3
    assert len(found.store.due(5)) == 3


def test_slots_are_never_given_twice(kept: Path) -> None:
    found = _tables(kept).newest(PARTITION, at_most=8)
    before = found.store.find([b"r1", b"r2", b"r3"])
    _put(found.store, 9)
    assert found.store.find([b"r9"])[0] > before.max()


def test_the_changelog_goes_on_where_it_ended_before_the_last_commit_but_one(
    tmp_path: Path, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.engine.rocks._ASK_EVERY_S", -1.0)
    found = _tables(tmp_path).newest(PARTITION, at_most=9)
    for number, end in ((9, 200), (10, 300), (11, 400)):
        kafka.end = end  # by a new owner, for all that this one knows when it asks
        found.store.committed(number)
    _closed(found)
    again = _tables(tmp_path).newest(PARTITION, at_most=11)
    assert (again.number, again.changelog_offset) == (11, 300)


def _refused(folder: Path, at_most: int = 8) -> str:
    with structlog.testing.capture_logs() as logs:
        found = _tables(folder).newest(PARTITION, at_most)
    assert (found.number, found.changelog_offset, len(found.store)) == (0, OFFSET_BEGINNING, 0)
    _closed(found)
    [said] = logs
    return str(said["error"])


def test_one_ahead_of_the_journal_is_thrown_away(kept: Path) -> None:
    assert "the journal ends at 7" in _refused(kept, at_most=7)


def test_one_of_a_changelog_that_is_no_more_is_thrown_away(kept: Path, kafka: Kafka) -> None:
    kafka.topic = "second"
    assert "another changelog" in _refused(kept)


def test_one_that_was_never_made_whole_is_thrown_away(tmp_path: Path, kafka: Kafka) -> None:
    found = _tables(tmp_path).newest(PARTITION, at_most=8)
    _put(found.store, *range(5000))
    _closed(found)
    assert "never made whole" in _refused(tmp_path)


def test_a_tail_that_was_read_in_part_is_read_again(kept: Path) -> None:
    found = _tables(kept).newest(PARTITION, at_most=9)
    _put(found.store, *range(3, 5000))
    _closed(found)
    again = _tables(kept).newest(PARTITION, at_most=9)
    assert (again.number, again.changelog_offset) == (8, 100)
    _put(again.store, *range(3, 5000))
    again.store.committed(9)
    assert _numbers(again.store) == list(range(1, 5000))
    assert len(again.store) == 4999


@pytest.mark.parametrize("kind", ["CURRENT", "MANIFEST", ".sst"])
def test_a_damaged_one_is_thrown_away(kept: Path, kind: str) -> None:
    if kind == ".sst":
        found = _tables(kept).newest(PARTITION, at_most=8)
        assert isinstance(found.store, RocksStore)
        found.store._db.flush()
        _closed(found)
    [victim, *_] = [path for path in (kept / str(PARTITION)).iterdir() if kind in path.name]
    victim.write_bytes(victim.read_bytes()[:10])
    assert "damaged" in _refused(kept)


def test_one_that_was_found_damaged_while_it_was_read_is_not_opened_again(kept: Path) -> None:
    (kept / str(PARTITION) / DAMAGED).touch()
    assert "damaged" in _refused(kept)


@pytest.fixture
def other_process(kept: Path) -> Iterator[None]:
    code = (
        "import sys; from rocksdict import Options, Rdict; db = Rdict(sys.argv[1], Options(raw_mode=True));"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(kept / str(PARTITION))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # noqa: S603
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        yield
        child.communicate()


def test_one_that_another_process_holds_is_left_to_it(kept: Path, other_process: None) -> None:
    tables = _tables(kept)
    found = tables.newest(PARTITION, at_most=8)
    assert (found.number, len(found.store)) == (0, 0), "of the changelog, in a folder of its own"
    found.store.committed(8)
    assert len(list(kept.iterdir())) == 2


def test_a_line_that_comes_back_with_other_rows_lets_go_of_its_folder_first(kept: Path) -> None:
    tables = _tables(kept)
    first = tables.newest(PARTITION, at_most=8)
    again = tables.newest(PARTITION, at_most=8)
    assert _numbers(again.store) == [1, 2, 3]
    assert first.store is not again.store


def test_one_that_stood_still_for_too_long_is_thrown_away(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time_ns() + 2 * DAY_MS * 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert "a deletion since may be compacted away" in _refused(kept)


def test_a_commit_that_ends_after_its_store_was_closed_does_no_damage(kept: Path) -> None:
    found = _tables(kept).newest(PARTITION, at_most=8)
    _closed(found)
    with pytest.raises(RocksFailed):
        found.store.committed(9)
    assert not (kept / str(PARTITION) / DAMAGED).exists()
