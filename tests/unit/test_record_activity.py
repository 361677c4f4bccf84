"""The hours that rows of the changelog tell of, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from confluent_kafka import Message

from models import profile
from schemas import topics
from schemas.profile import CLICK, HOUR_MS, HOURS, KINDS, OPEN, PURCHASE, UNITS, WEEK_HOURS, WEIGHT_ONE, empty
from streams.recording.batch import Batch
from streams.recording.rows import rows_of
from tests.support.record import unnamed

MIDNIGHT = 412_488  # 2017-01-21
VIEW, CART = KINDS.index("view"), KINDS.index("cart")
FIRST = (MIDNIGHT - 900) * HOUR_MS + 5
WRITTEN = 1_790_000_000_000


def _row(hour: int, *counted: tuple[int, int, int], first: int = FIRST, zone: bytes = b"") -> bytes:
    """A row as of an hour with these counters: kind, UTC hour, count."""
    row = empty(1)
    row["hour"], row["first"], row["zone"] = hour, first, zone
    for kind, at, count in counted:
        row["hourly"][0, kind, at % HOURS] = count
    return row.tobytes()


def _batch(*values: tuple[bytes, bytes | None], first: int = 0) -> Batch:
    name = topics.PROFILES.name
    messages = [
        Message(topic=name, partition=2, offset=n, key=key, value=value, timestamp=(2, WRITTEN + n))
        for n, (key, value) in enumerate(values, first)
    ]
    return Batch(name, "id", 2, messages)


def _told(*batches: Batch) -> list[dict[str, Any]]:
    """Every row of the table, in order, with its hour as UTC hours."""
    return [
        dict(zip(block.names, row, strict=True)) | {"hour": row[block.names.index("hour")] // 3600}
        for batch in batches
        for block in rows_of(batch, unnamed)[0]
        if block.table == "activity"
        for row in zip(*block.columns, strict=True)
    ]


def _kept(*batches: Batch) -> dict[tuple[str, int], dict[str, Any]]:
    """What the table keeps: of a recipient's hour the row of the latest record."""
    told = sorted(_told(*batches), key=lambda row: row["offset"])
    return {(row["recipient_id"], row["hour"]): row for row in told}


def test_a_ring_tells_of_the_last_48_hours_across_midnights() -> None:
    hours = [MIDNIGHT - 46, MIDNIGHT - 25, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 1]
    told = _told(_batch((b"ann", _row(MIDNIGHT + 1, *((VIEW, hour, 1) for hour in hours)))))
    assert sorted(row["hour"] for row in told) == hours
    assert {row["recipient_id"] for row in told} == {"ann"}


def test_a_row_tells_whose_hour_it_is_by_which_clock_and_which_record() -> None:
    row = _row(MIDNIGHT, (VIEW, MIDNIGHT - 3, 9), zone=b"Europe/Vienna")
    assert _told(_batch((b"ann", _row(MIDNIGHT)), (b"\xffe", row), first=70)) == [
        {
            "recipient_id": "\ufffde",
            "hour": MIDNIGHT - 3,
            "zone": "Europe/Vienna",
            "weight": 1.0,
            "clicks": 0.0,
            "purchases": 0,
            "first_event_at": FIRST,
            "topic": topics.PROFILES.name,
            "partition": 2,
            "offset": 71,
            "written_at": WRITTEN + 71,
        }
    ]


def test_every_row_of_a_batch_is_asked_and_an_hour_told_once_by_the_last_that_has_it() -> None:
    batch = _batch(
        (b"ann", _row(MIDNIGHT, (VIEW, MIDNIGHT, 1), (VIEW, MIDNIGHT - 40, 1))),
        (b"bob", _row(MIDNIGHT, (CART, MIDNIGHT, 1))),
        (b"ann", _row(MIDNIGHT + 9, (VIEW, MIDNIGHT, 2), (CLICK, MIDNIGHT, 3), zone=b"UTC")),
        (b"ann", _row(MIDNIGHT + 500, (PURCHASE, MIDNIGHT + 499, 2))),
        (b"bob", None),
    )
    told = [(r["recipient_id"], r["hour"], r["offset"], r["clicks"], r["zone"]) for r in _told(batch)]
    assert told == [
        ("ann", MIDNIGHT - 40, 0, 0, ""),
        ("bob", MIDNIGHT, 1, 0, ""),
        ("ann", MIDNIGHT, 2, 0.75, "UTC"),
        ("ann", MIDNIGHT + 499, 3, 0, ""),
    ]


def test_what_comes_late_to_an_hour_is_told_with_it() -> None:
    early = _batch((b"ann", _row(MIDNIGHT, (CLICK, MIDNIGHT - 5, 1))))
    late = _batch(
        (b"ann", _row(MIDNIGHT + 30, (CLICK, MIDNIGHT - 5, 8), (PURCHASE, MIDNIGHT - 5, 3))), first=1
    )
    [row] = _kept(late, early).values()
    assert (row["clicks"], row["purchases"], row["weight"], row["offset"]) == (2, 3, 1, 1)


def test_batches_that_are_cut_otherwise_leave_the_same_hours() -> None:
    chance = np.random.default_rng(3)
    values = []
    for hour in np.sort(chance.integers(MIDNIGHT, MIDNIGHT + 200, 60)).tolist():
        numbers = zip(
            *chance.integers([[0], [0], [1]], [[len(KINDS)], [HOURS], [9]], (3, 9)).tolist(), strict=True
        )
        counted = [(kind, hour - ago, count) for kind, ago, count in numbers]
        values.append((b"r%d" % chance.integers(5), _row(hour, *counted)))
    whole = _kept(_batch(*values))
    assert len(whole) > 100
    for place in (1, 20, 59):
        assert _kept(_batch(*values[:place]), _batch(*values[place:], first=place)) == whole


def test_hours_of_two_months_are_two_blocks() -> None:
    february = MIDNIGHT + 11 * 24
    batch = _batch((b"ann", _row(february, (VIEW, february - 1, 1), (VIEW, february, 1))))
    blocks = [block for block in rows_of(batch, unnamed)[0] if block.table == "activity"]
    assert [(block.months, len(block)) for block in blocks] == [(564, 1), (565, 1)]


def test_a_recipient_without_behaviour_and_one_that_is_no_more_tell_of_no_hour() -> None:
    assert _told(_batch((b"ann", _row(MIDNIGHT, first=0)), (b"bob", None))) == []


def test_an_hour_of_an_open_or_of_machines_weighs_less() -> None:
    counted = [
        (OPEN, MIDNIGHT, 4),
        (CLICK, MIDNIGHT - 1, 1),
        (OPEN, MIDNIGHT - 2, 1),
        (VIEW, MIDNIGHT - 3, 1),
    ]
    counted += [(OPEN, MIDNIGHT - 4, 255), (CLICK, MIDNIGHT - 4, 2)]
    told = _told(_batch((b"ann", _row(MIDNIGHT, *counted))))
    assert {row["hour"] - MIDNIGHT: row["weight"] * 256 for row in told} == {
        0: 77,
        -1: 64,
        -2: 19,
        -3: 256,
        -4: 128,
    }


def test_weights_are_those_that_the_profile_has_in_its_own_hours_of_the_week() -> None:
    chance, count = np.random.default_rng(8), 400
    row = np.sort(chance.integers(0, 20, count))
    kind = chance.choice([CLICK, OPEN, VIEW], count, p=[0.4, 0.5, 0.1])
    hour = MIDNIGHT - chance.integers(0, HOURS, count)
    events = profile.Events(
        row=row,
        position=np.arange(count),
        kind=kind,
        at=hour * HOUR_MS,
        amount=np.zeros(count, np.int64),
        zone=np.full(count, b"UTC", "S32"),
        counts=np.ones(count, np.bool_),
        life=row,
        weight=np.where(UNITS[kind] > 1, chance.choice([1, 2, 4], count), 1),
    )
    rows = empty(20)
    profile.roll(rows, MIDNIGHT * HOUR_MS)
    added = profile.additions(rows, events, MIDNIGHT * HOUR_MS)
    profile.add(rows, events, added)
    profile.add_activity(rows, row, added.slot, added.weight)

    told = _told(_batch(*((b"%d" % n, each.tobytes()) for n, each in enumerate(rows))))
    weights = np.zeros((20, WEEK_HOURS))
    for each in told:
        weights[int(each["recipient_id"]), (each["hour"] + 72) % WEEK_HOURS] = each["weight"] * WEIGHT_ONE
    assert len(told) > 200
    assert {0 < weight < WEIGHT_ONE for weight in weights[weights > 0]} == {True, False}
    assert weights.tolist() == rows["active"].tolist()
