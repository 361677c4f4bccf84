"""Worked examples of docs/decisions.md, computed by hand, held against the plain reference."""

import dataclasses
import uuid

import numpy as np
import pytest

from schemas.profile import ROW
from tests.reference import clock
from tests.reference.state import Recipient, Slot, pack, unpack
from tests.reference.world import (
    HOUR,
    NOON_HOUR,
    NOW,
    World,
    at,
)


@pytest.fixture
def world() -> World:
    return World()


# The row


def full_recipient() -> Recipient:
    return Recipient(
        hour=NOON_HOUR,
        saturated=True,
        hourly={("view", NOON_HOUR): 3, ("purchase", NOON_HOUR - 47): 1},
        daily={("open", NOON_HOUR // 24 - 34): 255},
        revenue={NOON_HOUR // 24: 2**32 - 1},
        active=[*range(167), 65535],
        last={"view": NOW, "purchase": 7},
        first=7,
        zone="America/Argentina/ComodRivadavia",
        locale="en-US",
        provider="gmail",
        place="US-OH",
        consent={"mail": 1, "tracking": 2},
        consent_version={"mail": 9, "tracking": -1},
        suppressed=2,
        segments={0, 63, 64, 127},
        segments_version=5,
        cooldown={63: 8},
        sent=[(1, 3), (2, 4)],
        slots=[
            None,
            Slot(False, 63, 11, 12, uuid.UUID(int=0)),
            Slot(True, 0, 21, 22, uuid.UUID(int=2**128 - 1), "gmail", 7, 2, 3),
            *[None] * 5,
        ],
        recent=[2**64 - 1, 1],
    )


def test_a_row_is_the_same_after_packing_and_unpacking() -> None:
    assert unpack(pack(full_recipient())) == full_recipient()


def test_every_field_of_a_recipient_reaches_the_bytes() -> None:
    recipient = full_recipient()
    for field in dataclasses.fields(Recipient):
        lacking = dataclasses.replace(recipient, **{field.name: getattr(Recipient(hour=0), field.name)})
        assert pack(lacking) != pack(recipient), field.name


def test_packed_rings_and_lists_stand_where_the_layout_says() -> None:
    row = np.frombuffer(pack(full_recipient()), ROW)[0]
    assert row["version"] == 4
    assert row["hourly"][0, NOON_HOUR % 48] == 3
    assert row["daily"][5, (NOON_HOUR // 24 - 34) % 35] == 255
    assert list(row["sent_at"]) == [0] * 10 + [1, 2]
    assert list(row["sent_campaign"]) == [0] * 10 + [3, 4]
    assert list(row["recent"][-3:]) == [0, 2**64 - 1, 1]
    assert [int(word) for word in row["segments"]] == [1 | 1 << 63, 1 | 1 << 63]
    assert row["pending"][0].tobytes() == bytes(50)
    assert row["pending"][2]["decision"].tobytes() == b"\xff" * 16


def test_only_the_latest_twelve_releases_and_eight_hashes_are_kept() -> None:
    recipient = Recipient(hour=0)
    for n in range(1, 15):
        recipient.remember_sent(n * 1000 - 999, n, goes=0)
        recipient.remember_event(n)
    assert recipient.sent == [(n, n) for n in range(3, 15)]
    assert recipient.recent == list(range(7, 15))


# Clock


@pytest.mark.parametrize(
    ("zone", "utc", "expected"),
    [
        ("UTC", "1970-01-01T00:00", 72),
        ("UTC", "1970-01-05T00:00", 0),
        ("America/New_York", "2024-03-10T06:00", 6 * 24 + 1),
        ("America/New_York", "2024-03-10T07:00", 6 * 24 + 3),  # 02:00 does not exist
        ("America/New_York", "2024-11-03T05:00", 6 * 24 + 1),
        ("America/New_York", "2024-11-03T06:00", 6 * 24 + 1),  # 01:00 comes twice
        ("America/New_York", "2024-11-03T07:00", 6 * 24 + 2),
        ("Asia/Kolkata", "2024-03-06T12:00", 2 * 24 + 17),  # 17:30
        ("America/St_Johns", "2024-01-01T00:00", 6 * 24 + 20),  # Sunday 20:30
    ],
)
def test_local_hours_of_the_week_follow_the_zone(zone: str, utc: str, expected: int) -> None:
    assert clock.local_week_hour(zone, at(utc) // HOUR) == expected


def test_weeks_begin_on_monday() -> None:
    sunday, monday = at("2024-03-10T23:00") // HOUR, at("2024-03-11T00:00") // HOUR
    assert clock.week_of_hour(monday) == clock.week_of_hour(sunday) + 1
    assert clock.week_of_hour(monday + 167) == clock.week_of_hour(monday)
