"""Snapshots in files: what is taken is loaded, what is unfit is refused with its reason."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing

from schemas.layouts import Layouts
from schemas.topics import DAY_MS
from streams.engine import snapshot_file, snapshots
from streams.engine.kafka import Client
from streams.engine.snapshot_file import SUFFIX, UNFINISHED, Header
from streams.engine.snapshots import FileSnapshots, Place, Taken
from streams.engine.store import NEVER, SlabStore

ONE = np.dtype([("version", "u1"), ("count", "<i8")])
TWO = np.dtype([("version", "u1"), ("kind", "S3"), ("count", "<i8")])
NOW = 1_700_000_000_000
WEEK = 7 * DAY_MS


def _fill_kind(old: np.ndarray, new: np.ndarray) -> None:
    new["kind"] = np.where(old["count"] > 5, b"big", b"few")


FIRST = Layouts("a row", (ONE,))
SECOND = Layouts("a row", (ONE, TWO), (_fill_kind,))


def _slab(count: int) -> SlabStore:
    slab, rows = SlabStore(ONE), np.zeros(count, ONE)
    rows["version"], rows["count"] = 1, np.arange(count)
    slab.put_many([f"r{n}".encode() for n in range(count)], rows, np.full(count, NEVER))
    return slab


@dataclass
class Line:
    """A line that stands still."""

    store: Any
    partition: int = 3
    number: int = 8
    clean: bool = True


@dataclass
class Kept:
    """Snapshots in a folder, of a Kafka that is not there."""

    folder: Path
    place: Place
    ends: Iterator[tuple[int, int]] = field(default_factory=lambda: itertools.repeat((500, 8)))

    def snapshots(self, **change: Any) -> FileSnapshots:
        made = FileSnapshots(replace(self.place, **change))
        made._topic_id = "topic"
        made._bound = lambda partition: next(self.ends)  # type: ignore[method-assign]
        return made

    def write(self, number: int = 8, taken_at: int = NOW, **change: Any) -> Path:
        slab = _slab(20)
        header = Header("app", 3, number, 500, "topic", 1, snapshot_file.fingerprint(ONE), 20, taken_at)
        path = self.folder / "3" / f"{number:020}-{taken_at:013}{SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        snapshot_file.write(path, replace(header, **change), slab.freeze())
        return path


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(snapshots, "_now", lambda: NOW)
    nowhere = Client("nowhere:1", {})
    return Kept(tmp_path, Place(nowhere, "app", "rows", "journal", FIRST, tmp_path, 100, 3, WEEK))


def _counts(store: Any) -> dict[bytes, int]:
    return {
        k: int(row["count"]) for _, keys, rows in store.batches() for k, row in zip(keys, rows, strict=True)
    }


def _refusal(kept: Kept, at_most: int = 8, **change: Any) -> str:
    with structlog.testing.capture_logs() as logs:
        assert kept.snapshots(**change).newest(3, at_most) is None
    [said] = logs
    assert said["event"] == "snapshot_refused"
    return str(said["error"])


def test_what_was_written_is_loaded(kept: Kept) -> None:
    kept.write()
    found = kept.snapshots().newest(3, at_most=8)
    assert found is not None
    assert (found.number, found.changelog_offset) == (8, 500)
    assert _counts(found.store) == _counts(_slab(20))


def test_an_empty_table_has_a_snapshot_too(kept: Kept) -> None:
    header = Header("app", 3, 8, 500, "topic", 1, snapshot_file.fingerprint(ONE), 0, NOW)
    path = kept.folder / f"x{SUFFIX}"
    snapshot_file.write(path, header, SlabStore(ONE).freeze())
    store = SlabStore(ONE)
    assert snapshot_file.read(path, FIRST, store) == header
    assert len(store) == 0


def test_of_several_the_newest_that_the_journal_knows_is_taken(kept: Kept) -> None:
    for number in (5, 8, 11):
        kept.write(number)
    with structlog.testing.capture_logs() as logs:
        found = kept.snapshots().newest(3, at_most=9)
    assert found is not None
    assert found.number == 8
    assert "the journal ends at 9" in logs[0]["error"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"app": "other"}, "is of other/3"),
        ({"partition": 4}, "is of app/4"),
        ({"topic_id": "older"}, "made anew"),
        ({"number": 9}, "the journal ends at 8"),
        ({"version": 2}, "this program knows 1"),
        ({"layout": "else"}, "another layout"),
        ({"format": 2}, "has format 2"),
        ({"keys": 19}, "checksum"),
        ({"taken_at": NOW - WEEK - 1}, "days old"),
        ({"taken_at": NOW + WEEK + 1}, "days old"),
    ],
)
def test_one_that_is_not_of_this_table_as_it_is_is_refused(
    kept: Kept, change: dict[str, Any], why: str
) -> None:
    kept.write(**change)
    assert why in _refusal(kept)


def test_a_byte_changed_anywhere_is_noticed(kept: Kept) -> None:
    path = kept.write()
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert kept.snapshots().newest(3, at_most=8) is None, f"byte {place}"


def test_a_file_cut_off_anywhere_is_noticed(kept: Kept) -> None:
    path = kept.write()
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert kept.snapshots().newest(3, at_most=8) is None, f"{size} bytes"
    path.write_bytes(whole + b"x")
    assert kept.snapshots().newest(3, at_most=8) is None, "more than it should be"


def test_rows_of_an_older_version_are_brought_up_to_date(kept: Kept) -> None:
    kept.write()
    found = kept.snapshots(layouts=SECOND).newest(3, at_most=8)
    assert found is not None
    [(_, _, rows)] = found.store.batches()
    assert rows.dtype == TWO
    assert (rows["version"] == 2).all()
    assert rows["count"].tolist() == list(range(20))
    assert rows["kind"].tolist() == [b"few"] * 6 + [b"big"] * 14


async def _settle_until(kept: FileSnapshots, line: Line, told: list[Any], count: int) -> None:
    """Make cuts until so many snapshots are told of."""
    async with asyncio.timeout(30):
        while len(told) < count:
            line.number += 1
            kept.settled(line)
            await asyncio.sleep(0.005)


def test_snapshots_are_taken_of_committed_cuts_while_cuts_are_made(kept: Kept) -> None:
    kept.ends = ((500 + n, 9) for n in itertools.count())
    (kept.folder / "3").mkdir()
    (kept.folder / "3" / f"left{UNFINISHED}").touch()
    made, told = kept.snapshots(every_ms=0), list[tuple[int, Taken | None]]()
    made.tell = lambda partition, taken: told.append((partition, taken))
    line = Line(_slab(50), number=7)
    asyncio.run(_settle_until(made, line, told, 3))
    found = kept.snapshots().newest(3, at_most=10**9)
    assert found is not None
    assert 9 <= found.number <= line.number, "not before the cut that the journal told"
    assert _counts(found.store) == _counts(line.store)
    assert not list((kept.folder / "3").glob(f"*{UNFINISHED}"))


def test_a_former_owner_behind_the_journal_takes_none(kept: Kept) -> None:
    kept.ends = iter([(500, 20), (501, 9)])
    made, told = kept.snapshots(every_ms=0), list[Any]()
    made.tell = lambda partition, taken: told.append(taken)
    behind, line = Line(_slab(5), partition=3, number=8), Line(_slab(5), partition=4, number=9)

    async def run() -> None:
        async with asyncio.timeout(30):
            made.settled(behind)
            while made._request is None:
                await asyncio.sleep(0.005)
            made.settled(behind)
            made.release(3)  # it learns at last
            while not told[1:]:
                made.settled(line)
                await asyncio.sleep(0.005)

    asyncio.run(run())
    assert told[0] is None
    assert isinstance(told[1], Taken)
    assert not (kept.folder / "3").exists()
    assert len(list((kept.folder / "4").iterdir())) == 1


def test_the_newest_two_are_kept_and_of_the_last_days_one_each(kept: Kept) -> None:
    hours = [0, 1, 2, 20, 30, 31, 50, 54, 75, 80, 120]
    for hour in hours:
        kept.write(number=1000 - hour, taken_at=NOW - NOW % DAY_MS + 12 * 3_600_000 - hour * 3_600_000)
    kept.snapshots()._prune(kept.folder / "3", NOW)
    left = sorted(1000 - int(path.name.partition("-")[0]) for path in (kept.folder / "3").iterdir())
    assert left == [0, 1, 20, 50], "of today, yesterday and the day before"


def test_a_header_says_what_it_is_of(kept: Kept) -> None:
    path = kept.write()
    raw = path.read_bytes()
    start = raw.index(b"{")
    fields = json.JSONDecoder().raw_decode(raw[start:].decode("latin1"))[0]
    assert (fields["app"], fields["number"], fields["taken_at"]) == ("app", 8, NOW)
    assert snapshot_file.head(path).keys == 20


def test_of_topics_made_anew_the_new_snapshots_are_kept_though_their_cuts_begin_again(kept: Kept) -> None:
    for number, taken_at in ((900, NOW - 3), (950, NOW - 2), (3, NOW - 1)):
        kept.write(number, taken_at)
    kept.snapshots()._prune(kept.folder / "3", NOW)
    left = sorted(int(path.name.partition("-")[0]) for path in (kept.folder / "3").iterdir())
    assert left == [3, 950]
