"""Worked examples of docs/decisions.md, computed by hand, held against the plain reference."""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import policy_files
from tests.reference import features, timing
from tests.reference.cuts import RefRecord
from tests.reference.recompute import cut_order, paused_at, recompute
from tests.reference.state import Recipient, Slot, pack, unpack
from tests.reference.world import (
    ATTRIBUTES,
    CLICKS,
    CONSENT,
    DAY,
    DELIVERY,
    HOUR,
    MINUTE,
    NOON_HOUR,
    NOW,
    POLICY,
    PURCHASES,
    Body,
    World,
    at,
    attributes,
    buy,
    click,
    consent,
    delivery,
)


@pytest.fixture
def world() -> World:
    return World()


# Section 5


def test_windows_of_hours_and_days_include_the_current_one() -> None:
    day = NOON_HOUR // 24
    recipient = Recipient(
        hour=NOON_HOUR,
        hourly={("search", NOON_HOUR): 1, ("search", NOON_HOUR - 5): 2, ("search", NOON_HOUR - 6): 4},
        daily={("cart", day): 1, ("cart", day - 6): 2, ("cart", day - 7): 4, ("cart", day - 29): 8},
        revenue={day - 13: 5, day - 14: 7},
        last={"open": NOW - 90 * MINUTE},
        first=NOW - 15 * MINUTE,
    )
    values = features.features(recipient, NOW)
    assert [values[f"searches_{w}"] for w in ("1h", "6h", "24h", "48h")] == [1, 3, 7, 7]
    assert [values[f"carts_{w}"] for w in ("7d", "14d", "30d")] == [3, 7, 15]
    assert [values[f"revenue_{w}"] for w in ("7d", "14d", "30d")] == [0, 5, 12]
    assert (values["hours_since_open"], values["hours_since_first"]) == (1.5, 0.25)
    assert values["hours_since_view"] is None
    assert (values["purchases_per_cart_30d"], values["purchases_per_view_7d"]) == (0, None)
    assert len(values) == 7 * 7 + 3 + 8 + 4 * 3


def test_a_segment_holds_where_its_sql_is_true_and_null_is_not() -> None:
    values: dict[str, features.Value] = {"hours_since_view": None, "views_7d": 5}
    assert not features.holds("hours_since_view >= 0", values)
    assert not features.holds("NOT (hours_since_view >= 0)", values)
    assert features.holds("views_7d >= 5 AND hours_since_view IS NULL", values)
    assert not features.holds("VIEWS_7D > 5", values)


def test_the_real_policys_segments_can_be_asked() -> None:
    policy = policy_files.load(Path(__file__).parents[2] / "infra" / "policy")
    recipient = Recipient(hour=NOON_HOUR, last={"purchase": NOW - 504 * HOUR}, first=NOW - 504 * HOUR)
    holding = features.holding(policy, recipient, NOW)
    assert {s.name for s in policy.segments if s.number in holding} == {"lapsing"}


# Section 6


def test_a_row_is_due_at_the_earliest_of_its_times() -> None:
    recipient = Recipient(hour=NOON_HOUR)
    assert timing.due_at(recipient, NOW, paused=False) == at("2024-03-07T00:00")
    recipient.last["view"] = NOW
    assert timing.due_at(recipient, NOW, paused=False) == at("2024-03-06T13:00")
    slot = Slot(False, 0, NOW + MINUTE, NOW + 2 * MINUTE, uuid.UUID(int=1))
    recipient.slots[3] = slot
    assert timing.due_at(recipient, NOW, paused=False) == NOW + MINUTE
    assert timing.due_at(recipient, NOW, paused=True) == NOW + 2 * MINUTE
    slot.released = True
    slot.expires_at = NOW - 50 * MINUTE
    assert timing.due_at(recipient, NOW, paused=True) == NOW + 10 * MINUTE


# The whole

EVENTS = st.one_of(
    st.builds(
        click,
        st.sampled_from(("view", "open", "cart")),
        st.integers(NOW - 3 * DAY, NOW),
        event_id=st.sampled_from((None, "a", "b", "c")),
    ),
    st.builds(buy, st.integers(0, 2**32), st.integers(NOW - 36 * DAY, NOW)),
    st.builds(consent, st.sampled_from(("granted", "withdrawn")), st.integers(0, 5)),
    st.builds(attributes, zone=st.sampled_from((None, "America/New_York", "Asia/Kolkata", "Mars"))),
    st.builds(delivery, st.sampled_from(("sent", "bounced")), permanent=st.booleans()),
)


@given(st.lists(EVENTS, max_size=12), st.integers(0, 12), st.integers(0, 40 * HOUR))
def test_a_cut_split_in_two_of_one_now_gives_the_same(events: list[Body], place: int, later: int) -> None:
    worlds = (World(), World())
    whole, parts = worlds
    results = [whole.cut(NOW, *events)], [parts.cut(NOW, *events[:place]), parts.cut(NOW, *events[place:])]
    for world, outcome in zip(worlds, results, strict=True):
        outcome.append(world.cut(NOW + later))
    assert pack(whole.ann) == pack(parts.ann)
    assert pack(unpack(pack(whole.ann))) == pack(whole.ann)
    audits = [[body for result in outcome for body in result.audit] for outcome in results]
    assert audits[0] == audits[1]


# Recomputing


def test_cut_order_is_timestamp_then_rank_then_offset_with_timestamps_made_non_decreasing() -> None:
    def record(topic: str, offset: int, timestamp: int) -> RefRecord:
        return RefRecord(topic, 0, offset, b"ann", b"", {}, timestamp)

    sources = {
        CLICKS: [record(CLICKS, 0, 99), record(CLICKS, 1, 5), record(CLICKS, 2, 3), record(CLICKS, 3, 6)],
        CONSENT: [record(CONSENT, 0, 5), record(CONSENT, 1, 7)],
    }
    zero = dict.fromkeys((CONSENT, ATTRIBUTES, PURCHASES, CLICKS, DELIVERY), 0)
    order = cut_order(sources, zero | {CLICKS: 1}, zero | {CLICKS: 4, CONSENT: 1})
    assert [(r.topic, r.offset) for r in order] == [(CONSENT, 0), (CLICKS, 1), (CLICKS, 2), (CLICKS, 3)]


def test_the_last_pause_below_the_version_is_in_force() -> None:
    control: list[dict[str, Any]] = [
        {"offset": 0, "change": {"mode": "real"}},
        {"offset": 1, "change": {"paused": True}},
        {"offset": 2, "change": {"paused": False, "lane": "gmail"}},
        {"offset": 3, "change": {"paused": False, "lane": None}},
    ]
    assert [paused_at(control, version) for version in range(5)] == [False, False, True, True, False]


def test_recomputing_from_the_journal_gives_the_rows_that_handling_gave() -> None:
    world = World()
    del world.reference.recipients[0]["ann"]
    first = [world.record(consent()), world.record(click()), world.record(click()), world.record(click())]
    second = [world.record(attributes(zone="Europe/Paris"))]
    world.cut(NOW, *first)
    world.cut(NOW + 30 * HOUR, *second, paused=True)

    def entry(number: int, now: int, version: int, **ends: int) -> dict[str, Any]:
        topics = {"clicks": CLICKS, "consent": CONSENT, "attributes": ATTRIBUTES}
        tallies = [{"topic": topics[name], "next_offset": end} for name, end in ends.items()]
        return {
            "partition": 0,
            "number": number,
            "now": datetime.fromtimestamp(now / 1000, UTC),
            "control_version": version,
            "history": False,
            "topics": tallies,
        }

    sources: dict[str, list[RefRecord]] = {}
    for record in [*first, *second]:
        sources.setdefault(record.topic, []).append(record)
    journal = [
        entry(1, NOW, 0, consent=2, clicks=5),
        entry(2, NOW + 30 * HOUR, 1, consent=2, clicks=5, attributes=6),
    ]
    control: list[dict[str, Any]] = [{"offset": 0, "change": {"paused": True}}]
    reference, results = recompute(POLICY, 0, 1, sources, journal, control)
    assert reference.rows(0) == world.reference.rows(0)
    assert [result.fates[CLICKS]["decided"] for result in results] == [1, 0]
    assert results[1].kinds("ann")[0] == "release withheld"  # it expired while paused
