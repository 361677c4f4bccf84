"""Worked examples of docs/decisions.md, computed by hand, held against the plain reference."""

import dataclasses
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, ids
from schemas import policy as policies
from schemas.profile import ROW, Consent, Suppression
from tests.reference import clock, features, records, timing, triggers
from tests.reference.cuts import RefRecord, RefResult, Work
from tests.reference.recompute import cut_order, paused_at, recompute
from tests.reference.rules import RefCut, Reference
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
    bodies,
    buy,
    campaign,
    click,
    consent,
    delivery,
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
        entered={0: 5, 7: 6},
        cooldown={63: 8},
        sent=[(1, 3), (2, 4)],
        slots=[
            None,
            Slot(False, 63, 11, 12, uuid.UUID(int=0)),
            Slot(True, 0, 21, 22, uuid.UUID(int=2**128 - 1), "gmail"),
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
    assert row["version"] == 1
    assert row["hourly"][0, NOON_HOUR % 48] == 3
    assert row["daily"][5, (NOON_HOUR // 24 - 34) % 35] == 255
    assert list(row["sent_at"]) == [0, 0, 0, 0, 1, 2]
    assert list(row["sent_campaign"]) == [0, 0, 0, 0, 3, 4]
    assert list(row["recent"][-3:]) == [0, 2**64 - 1, 1]
    assert [int(word) for word in row["segments"]] == [1 | 1 << 63, 1 | 1 << 63]
    assert row["pending"][0].tobytes() == bytes(46)
    assert row["pending"][2]["decision"].tobytes() == b"\xff" * 16


def test_only_the_latest_six_releases_and_twelve_hashes_are_kept() -> None:
    recipient = Recipient(hour=0)
    for n in range(1, 15):
        recipient.remember_sent(n, n)
        recipient.remember_event(n)
    assert recipient.sent == [(n, n) for n in range(9, 15)]
    assert recipient.recent == list(range(3, 15))


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


# Section 1


def raw(key: bytes | None, value: bytes | None, topic: str = CLICKS) -> RefRecord:
    return RefRecord(topic, 0, 1, key, value)


def encoded(topic: str = CLICKS, **fields: Any) -> bytes:
    body: dict[str, Any] = {"recipient_id": "ann", "occurred_at": NOW}
    if topic == CLICKS:
        body["kind"] = "view"
    if topic == PURCHASES:
        body["amount"] = 1
    return codec.encode(topic, body | fields)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (raw(None, b"x" * 65_537), "oversized"),
        (raw(None, b"x" * 65_536), "malformed"),
        (raw(b"ann", None), "malformed"),
        (raw(None, encoded()[:-1]), "malformed"),
        (raw(None, b"\0\0\0\0\x63"), "unknown_schema"),
        (raw(None, encoded(recipient_id="")), "key_mismatch"),
        (raw(b"bob", encoded()), "key_mismatch"),
        (raw(b"", encoded(recipient_id="", occurred_at=0)), "invalid"),
        (raw(("ü" * 64 + "u").encode(), encoded(recipient_id="ü" * 64 + "u")), "invalid"),
        (raw(("ü" * 64).encode(), encoded(recipient_id="ü" * 64)), None),
        (raw(b"ann", encoded(event_id="")), "invalid"),
        (raw(b"ann", encoded(event_id="e" * 65)), "invalid"),
        (raw(b"ann", encoded(event_id="ü" * 64)), None),
        (raw(b"ann", encoded(PURCHASES, amount=-1), PURCHASES), "invalid"),
        (raw(b"ann", encoded(PURCHASES, amount=0), PURCHASES), None),
        (raw(b"ann", encoded(ATTRIBUTES, zone="Mars/Olympus"), ATTRIBUTES), "invalid"),
        (raw(b"ann", encoded(ATTRIBUTES, locale="123456789"), ATTRIBUTES), "invalid"),
        (raw(b"ann", encoded(ATTRIBUTES, place="üüüüü"), ATTRIBUTES), "invalid"),
        (raw(b"ann", encoded(ATTRIBUTES, provider="1234567890123"), ATTRIBUTES), "invalid"),
        (raw(b"ann", encoded(ATTRIBUTES, provider="123456789012", place="üüüü"), ATTRIBUTES), None),
        (raw(b"ann", encoded(occurred_at=NOW - 35 * DAY - 1)), "too_late"),
        (raw(b"ann", encoded(occurred_at=NOW - 35 * DAY)), None),
        (raw(b"ann", encoded(occurred_at=NOW + 5 * MINUTE + 1)), "too_early"),
        (raw(b"ann", encoded(occurred_at=NOW + 5 * MINUTE)), None),
    ],
)
def test_the_first_dead_letter_reason_that_applies_decides(record: RefRecord, reason: str | None) -> None:
    assert records.dead_letter_reason(record, NOW) == reason


def test_dead_letters_are_counted_and_create_no_row(world: World) -> None:
    record = RefRecord(CLICKS, 0, 9, b"bob", b"rubbish")
    result = world.cut(NOW, record)
    assert result.dead == [(CLICKS, 9, "malformed")]
    assert result.fates[CLICKS] == dict.fromkeys(result.fates[CLICKS], 0) | {
        "consumed": 1,
        "dead_lettered": 1,
    }
    assert set(world.reference.rows(0)) == {"ann"}
    assert result.touched == set()


def elsewhere(recipient_id: str, partitions: int) -> int:
    record = RefRecord(CLICKS, 0, 0, recipient_id.encode(), b"")
    return next(
        p
        for p in range(partitions)
        if records.is_elsewhere(dataclasses.replace(record, partition=p), partitions)
    )


def test_an_unknown_recipient_of_another_partition_is_rekeyed_once_and_a_known_one_stays() -> None:
    reference = Reference(POLICY, 2)
    partition = elsewhere("bob", 2)
    record = RefRecord(CLICKS, partition, 5, b"bob", encoded(recipient_id="bob"))
    origin = {
        "origin-topic": CLICKS.encode(),
        "origin-partition": b"1",
        "origin-offset": b"7",
        "rekeyed": b"1",
    }
    again = dataclasses.replace(record, offset=6, headers=origin)
    first = reference.handle(RefCut(partition, 1, NOW, NOW, 0, False, False, [record, again]))
    assert first.rekeyed == [(CLICKS, 5)]
    assert first.dead == [(CLICKS, 6, "misrouted_twice")]
    assert reference.rows(partition) == {}

    reference.load(partition, {"bob": pack(Recipient(hour=NOW // HOUR))})
    second = reference.handle(RefCut(partition, 2, NOW, NOW, 0, False, False, [record]))
    assert second.fates[CLICKS]["no_trigger"] == 1


def test_the_partition_is_kafkas_murmur2_of_the_key() -> None:
    # murmur2("abc") of Kafka's Java client is 479470107, which is odd.
    record = RefRecord(CLICKS, 1, 0, b"abc", b"")
    assert not records.is_elsewhere(record, 2)
    assert records.is_elsewhere(dataclasses.replace(record, partition=0), 2)


def test_a_rekeyed_record_keeps_the_event_id_of_its_origin() -> None:
    origin = {
        "origin-topic": CLICKS.encode(),
        "origin-partition": b"1",
        "origin-offset": b"7",
        "rekeyed": b"1",
    }
    event = records.read(RefRecord(CLICKS, 0, 3, b"ann", encoded(), origin))
    assert event.event_id == ids.event_id(CLICKS, 1, 7)
    assert event.hash == records.event_hash(ids.event_id(CLICKS, 1, 7))
    assert (event.cause.body["partition"], event.cause.body["offset"]) == (0, 3)
    plain = records.read(RefRecord(CLICKS, 0, 3, b"ann", encoded()))
    assert plain.event_id == ids.event_id(CLICKS, 0, 3)
    assert plain.hash is None


def test_a_repeated_event_is_filtered_until_twelve_others_have_come(world: World) -> None:
    result = world.cut(NOW, click("open", event_id="e"), click("open", event_id="e"), buy(event_id="e"))
    assert (result.fates[CLICKS]["no_trigger"], result.fates[CLICKS]["filtered"]) == (1, 1)
    assert result.fates[PURCHASES]["filtered"] == 1
    world.cut(NOW, *[click("open", event_id=f"other {n}") for n in range(11)])
    assert world.cut(NOW, click("open", event_id="e")).fates[CLICKS]["filtered"] == 1
    world.cut(NOW, click("open"), click("open", event_id="the twelfth"))
    assert world.cut(NOW, click("open", event_id="e")).fates[CLICKS]["no_trigger"] == 1


def test_events_without_an_id_are_never_duplicates(world: World) -> None:
    assert world.cut(NOW, click("open"), click("open")).fates[CLICKS]["no_trigger"] == 2
    assert world.ann.recent == []


def test_a_hash_is_xxh3_and_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert records.event_hash("a") == 16629034431890738719
    monkeypatch.setattr("xxhash.xxh3_64_intdigest", lambda _: 0)
    assert records.event_hash("a") == 1


def test_a_consent_that_is_not_newer_is_stale(world: World) -> None:
    result = world.cut(NOW, consent("withdrawn", 2), consent("granted", 2), consent("granted", 1, "tracking"))
    assert (result.fates[CONSENT]["no_trigger"], result.fates[CONSENT]["filtered"]) == (2, 1)
    assert world.ann.consent == {"mail": Consent.WITHDRAWN, "tracking": Consent.GRANTED}
    assert [body["state"] for body in bodies(result, "consent")] == ["withdrawn", "granted"]


def test_a_filtered_record_creates_a_row(world: World) -> None:
    topic, body, headers = delivery("sent", "nowhere")
    result = world.cut(NOW, (topic, body | {"recipient_id": "bob"}, headers))
    assert result.fates[DELIVERY]["filtered"] == 1
    assert world.reference.rows(0)["bob"] == pack(Recipient(hour=NOW // HOUR))
    assert result.touched == {"bob"}


def test_a_record_is_late_when_it_is_more_than_an_hour_old_and_took_effect(world: World) -> None:
    events = [
        click("open", NOW - HOUR, event_id="on time"),
        click("open", NOW - HOUR - 1, event_id="late"),
        click("open", NOW - HOUR - 1, event_id="late"),
    ]
    assert world.cut(NOW, *events).fates[CLICKS]["late"] == 1


# Section 2


def test_rolling_clears_what_left_the_rings_and_fades_once_a_week() -> None:
    recipient = Recipient(hour=at("2024-03-10T23:00") // HOUR, active=[1000] + [65535] + [1] + [0] * 165)
    old, day = recipient.hour, recipient.hour // 24
    recipient.hourly = {("view", old): 1, ("view", old - 47): 2}
    recipient.daily = {("view", day): 3, ("view", day - 34): 4}
    recipient.revenue = {day - 34: 5}
    timing.roll(recipient, old)
    assert recipient.active[0] == 1000
    timing.roll(recipient, old + 1)
    assert recipient.hourly == {("view", old): 1}
    assert recipient.daily == {("view", day): 3}
    assert recipient.revenue == {}
    assert recipient.active[:4] == [947, 62095, 0, 0]  # 947.51, 62095.05, 0.95
    timing.roll(recipient, old + 1 + 168)
    assert recipient.active[0] == 897  # 947 * 62096 / 65536 = 897.29
    assert recipient.hourly == {}


def test_a_new_row_starts_at_the_hour_of_the_cut(world: World) -> None:
    topic, body, headers = attributes(locale="de")
    world.cut(NOW, (topic, body | {"recipient_id": "bob"}, headers))
    assert world.reference.rows(0)["bob"] == pack(Recipient(hour=NOW // HOUR, locale="de"))


def test_a_row_that_was_only_due_and_did_not_change_is_left_as_it_stood(world: World) -> None:
    world.ann.active[0] = 1000
    stood = pack(world.ann)
    result = world.cut(NOW + 7 * DAY)
    assert pack(world.ann) == stood
    assert result.touched == set()
    world.cut(NOW + 7 * DAY, attributes(locale="de"))
    assert (world.ann.hour, world.ann.active[0]) == (NOW // HOUR + 168, 947)


def test_a_due_send_is_released_on_the_lane_of_the_provider(world: World) -> None:
    dispatch_id = world.wait(NOW + HOUR, NOW + DAY)
    world.ann.provider = "gmail"
    assert world.cut(NOW + HOUR - 1).commands == []
    result = world.cut(NOW + HOUR)
    assert result.commands == [
        {
            "dispatch_id": dispatch_id,
            "decision_id": str(uuid.UUID(int=1)),
            "recipient_id": "ann",
            "campaign": "look_again",
            "template": "look_again_template",
            "purpose": "mail",
            "channel": "mail",
            "lane": "gmail",
            "due_at": NOW + HOUR,
            "released_at": NOW + HOUR,
            "expires_at": NOW + DAY,
            "history": False,
        }
    ]
    [release] = bodies(result, "release")
    assert (release["outcome"], release["reason"], release["lane"]) == ("released", "released", "gmail")
    assert world.ann.sent == [(NOW + HOUR, 0)]
    assert world.ann.slots[0] == Slot(True, 0, NOW + HOUR, NOW + DAY, uuid.UUID(int=1), "gmail")
    assert result.touched == {"ann"}


def test_released_history_frees_the_slot_at_once_and_uses_the_other_lane(world: World) -> None:
    world.wait(NOW + HOUR, NOW + DAY)
    [command] = world.cut(NOW + HOUR, history=True).commands
    assert (command["history"], command["lane"]) == (True, "other")
    assert world.ann.slots[0] is None
    assert world.ann.sent == [(NOW + HOUR, 0)]


def test_a_released_send_is_closed_an_hour_after_expiry(world: World) -> None:
    world.wait(NOW + HOUR, NOW + 2 * HOUR)
    world.cut(NOW + HOUR)
    assert world.cut(NOW + 3 * HOUR - 1).audit == []
    result = world.cut(NOW + 3 * HOUR)
    assert result.kinds("ann") == ["closure unconfirmed"]
    assert world.ann.slots[0] is None


def test_a_pending_send_expires_even_while_paused(world: World) -> None:
    world.wait(NOW + HOUR, NOW + 2 * HOUR)
    result = world.cut(NOW + 2 * HOUR, paused=True)
    [release] = bodies(result, "release")
    assert (release["outcome"], release["reason"], release["lane"]) == ("withheld", "expired", None)
    assert world.ann.slots[0] is None


def test_nothing_is_released_while_paused_and_what_is_overdue_goes_when_the_pause_ends(world: World) -> None:
    world.wait(NOW + HOUR, NOW + DAY)
    assert world.cut(NOW + HOUR, paused=True).audit == []
    assert world.reference.due_at(0, "ann", NOW + HOUR, True) == at("2024-03-07T00:00")
    result = world.cut(NOW + HOUR + 1)
    assert [c["due_at"] for c in result.commands] == [NOW + HOUR]


@pytest.mark.parametrize(
    ("suppressed", "consented", "reason"),
    [
        (Suppression.BOUNCED, Consent.UNKNOWN, "suppressed"),
        (Suppression.NONE, Consent.UNKNOWN, "no_consent"),
        (Suppression.NONE, Consent.WITHDRAWN, "no_consent"),
    ],
)
def test_a_release_without_leave_is_withheld(
    world: World, suppressed: Suppression, consented: Consent, reason: str
) -> None:
    world.wait(NOW + HOUR, NOW + DAY)
    world.ann.suppressed = suppressed
    world.ann.consent["mail"] = consented
    assert [body["reason"] for body in bodies(world.cut(NOW + HOUR), "release")] == [reason]
    assert world.ann.slots[0] is None


def test_of_two_due_sends_the_earlier_goes_and_the_cap_defers_the_other(world: World) -> None:
    world.wait(NOW + 2 * MINUTE, NOW + 2 * DAY, index=0)
    world.wait(NOW + MINUTE, NOW + 2 * DAY, index=1, number=1)
    result = world.cut(NOW + HOUR)
    assert result.kinds("ann") == ["release released", "release deferred"]
    assert [c["campaign"] for c in result.commands] == ["come_back"]
    deferred = bodies(result, "release")[1]
    assert (deferred["reason"], deferred["due_at"], deferred["lane"]) == (
        "frequency_cap",
        NOW + 17 * HOUR,
        None,
    )
    slot = world.ann.slots[0]
    assert slot is not None
    assert (slot.pending, slot.due_at) == (True, NOW + 17 * HOUR)


def test_a_release_exactly_a_window_after_the_last_is_within_the_cap(world: World) -> None:
    world.ann.sent = [(NOW + HOUR - 16 * HOUR, 0)]
    world.wait(NOW + HOUR, NOW + DAY)
    assert len(world.cut(NOW + HOUR).commands) == 1


def test_a_cap_of_two_waits_for_the_second_newest_release() -> None:
    contact = POLICY.contact.model_copy(update={"cap": 2})
    world = World(POLICY.model_copy(update={"contact": contact}))
    world.ann.sent = [(NOW - 3 * HOUR, 0), (NOW - 2 * HOUR, 0), (NOW - HOUR, 0)]
    world.wait(NOW + MINUTE, NOW + 2 * DAY)
    [release] = bodies(world.cut(NOW + MINUTE), "release")
    assert release["due_at"] == NOW + 14 * HOUR


def test_a_deferral_beyond_expiry_is_a_refusal(world: World) -> None:
    world.ann.sent = [(NOW - HOUR, 0)]
    world.wait(NOW + MINUTE, NOW + 15 * HOUR)
    [release] = bodies(world.cut(NOW + MINUTE), "release")
    assert (release["outcome"], release["reason"]) == ("withheld", "frequency_cap")
    assert release["due_at"] == NOW + MINUTE
    assert world.ann.slots[0] is None


@pytest.mark.parametrize(
    ("now", "resumes"),
    [
        ("2024-03-09T10:30", "2024-03-09T13:00"),  # EST: 08:00 is 13:00 UTC
        ("2024-03-10T10:30", "2024-03-10T12:00"),  # EDT from this morning on
        ("2024-11-03T04:30", "2024-11-03T13:00"),  # EST from this morning on
        ("2024-03-10T02:00", "2024-03-10T12:00"),  # Saturday 21:00 is quiet already
    ],
)
def test_quiet_hours_defer_to_the_first_hour_that_is_not_quiet_there(now: str, resumes: str) -> None:
    world = World(now=at(now) - MINUTE)
    world.ann.zone = "America/New_York"
    world.wait(at(now), at(now) + DAY)
    [release] = bodies(world.cut(at(now)), "release")
    assert (release["outcome"], release["reason"]) == ("deferred", "quiet_hours")
    assert release["due_at"] == at(resumes)


def test_the_last_minute_before_quiet_hours_is_not_quiet() -> None:
    world = World(now=at("2024-03-06T20:00"))
    world.wait(at("2024-03-06T20:59"), NOW + DAY)
    assert len(world.cut(at("2024-03-06T20:59")).commands) == 1


def test_time_passing_enters_a_segment_at_the_latest_evaluation_time(world: World) -> None:
    world.cut(NOW, click("view", NOW))
    assert world.cut(NOW + 19 * HOUR).audit == []  # 07:30
    assert world.cut(NOW + 20 * HOUR - 1).audit == []  # 08:29:59, still short of 20 hours
    result = world.cut(NOW + 22 * HOUR)  # 10:30; the evaluation times passed are 09:00 and 10:00
    due_at = at("2024-03-07T10:00")
    [transition] = bodies(result, "transition")
    assert (transition["segment"], transition["entered"]) == ("rested", True)
    assert transition["definition"] == POLICY.segment("rested").definition
    expected = {"topic": None, "partition": None, "offset": None, "event_id": None, "due_at": due_at}
    assert transition["cause"] == expected
    [decision] = bodies(result, "decision")
    cause = f"due/enter:rested/{due_at}"
    assert decision["decision_id"] == str(ids.decision_id(cause, "ann", "come_back", 1))
    assert decision["cause"] == expected
    assert world.ann.entered == {1: (NOW + 22 * HOUR) // MINUTE}
    assert result.fates[CLICKS]["decided"] == 0


def test_between_evaluation_times_nothing_is_evaluated(world: World) -> None:
    world.ann.last["view"] = NOW - 21 * HOUR
    world.cut(NOW + 29 * MINUTE)
    assert world.ann.segments == set()
    world.cut(NOW + 30 * MINUTE)
    assert world.ann.segments == {1}


def test_full_hours_count_up_to_fifty_after_the_last_event_and_midnights_always() -> None:
    recipient = Recipient(hour=0, last={"view": at("2024-03-06T12:00")})
    assert timing.next_evaluation(recipient, at("2024-03-06T11:00")) == at("2024-03-06T13:00")
    assert timing.next_evaluation(recipient, at("2024-03-08T13:00")) == at("2024-03-08T14:00")
    assert timing.next_evaluation(recipient, at("2024-03-08T14:00")) == at("2024-03-09T00:00")
    assert timing.next_evaluation(Recipient(hour=0), NOW) == at("2024-03-07T00:00")
    assert timing.latest_evaluation(recipient, NOW, NOW) is None
    assert timing.latest_evaluation(recipient, at("2024-03-06T14:00"), at("2024-03-06T14:59")) is None
    assert timing.latest_evaluation(recipient, at("2024-03-06T13:59"), at("2024-03-06T14:00")) is not None
    assert timing.latest_evaluation(Recipient(hour=0), NOW, NOW + 3 * DAY) == at("2024-03-09T00:00")


# Section 3


def test_an_event_counts_in_its_own_hour_and_day(world: World) -> None:
    when = NOW - 47 * HOUR - 30 * MINUTE
    world.cut(NOW, click("view", when), click("view", when - 1), click("cart", NOW + 5 * MINUTE))
    day = NOON_HOUR // 24
    assert world.ann.hourly == {("view", NOON_HOUR - 47): 1, ("cart", NOON_HOUR): 1}
    assert world.ann.daily == {("view", day - 2): 2, ("cart", day): 1}


def test_an_event_of_the_next_hour_counts_in_the_current_one() -> None:
    now = at("2024-03-06T23:58")
    world = World(now=now)
    world.cut(now, click("view", now + 3 * MINUTE))
    assert world.ann.hourly == {("view", now // HOUR): 1}
    assert world.ann.daily == {("view", now // DAY): 1}
    assert world.ann.last == {"view": now + 3 * MINUTE}


def test_an_event_older_than_the_rings_only_moves_first_and_last(world: World) -> None:
    world.cut(NOW, buy(100, NOW - 35 * DAY))
    assert (world.ann.hourly, world.ann.daily, world.ann.revenue) == ({}, {}, {})
    assert (world.ann.first, world.ann.last) == (NOW - 35 * DAY, {"purchase": NOW - 35 * DAY})
    assert sum(world.ann.active) == 0


def test_last_only_grows_and_first_only_shrinks(world: World) -> None:
    world.cut(NOW, click("view", NOW - HOUR), click("view", NOW - 2 * HOUR), click("cart", NOW))
    assert world.ann.last == {"view": NOW - HOUR, "cart": NOW}
    assert world.ann.first == NOW - 2 * HOUR


def test_a_counter_stops_at_255_and_says_so(world: World) -> None:
    world.cut(NOW, *[click("scroll")] * 255)
    assert (world.ann.hourly["scroll", NOON_HOUR], world.ann.saturated) == (255, False)
    world.cut(NOW, click("scroll"))
    assert (world.ann.hourly["scroll", NOON_HOUR], world.ann.saturated) == (255, True)


def test_revenue_stops_at_its_maximum_and_says_so(world: World) -> None:
    world.cut(NOW, buy(2**32 - 1))
    assert not world.ann.saturated
    world.cut(NOW, buy(1))
    assert (world.ann.revenue[NOON_HOUR // 24], world.ann.saturated) == (2**32 - 1, True)


def test_an_active_hour_counts_once_with_its_heaviest_kind(world: World) -> None:
    s = 2 * 24 + 12
    world.cut(NOW, click("open"))
    assert world.ann.active[s] == 77
    world.cut(NOW, click("open"), click("view"))
    assert world.ann.active[s] == 256
    world.cut(NOW, click("cart"), buy(), click("open"))
    assert world.ann.active[s] == 256
    world.cut(NOW, click("open", NOW - HOUR))
    assert world.ann.active[s - 1] == 77
    assert sum(world.ann.active) == 256 + 77


def test_an_active_hour_stands_in_the_zone_of_that_moment_and_saturates(world: World) -> None:
    world.ann.active[2 * 24 + 7] = 65_400
    world.cut(NOW, attributes(zone="America/New_York"), click("view"))
    assert world.ann.active[2 * 24 + 7] == 65_535
    assert world.ann.active[2 * 24 + 12] == 0
    assert not world.ann.saturated


def test_attributes_replace_only_what_they_say(world: World) -> None:
    world.cut(NOW, attributes(zone="Europe/Paris", locale="fr", provider="gmail", place="FR-75"))
    world.cut(NOW, attributes(locale=""))
    assert (world.ann.zone, world.ann.locale) == ("Europe/Paris", "")
    assert (world.ann.provider, world.ann.place) == ("gmail", "FR-75")


def test_a_segment_is_entered_by_the_event_that_fulfils_it_and_sets_off_its_campaign(world: World) -> None:
    result = world.cut(NOW, click("view"), click("view"), click("view"), click("view"))
    assert (result.fates[CLICKS]["decided"], result.fates[CLICKS]["no_trigger"]) == (1, 3)
    [transition] = bodies(result, "transition")
    cause = transition["cause"]
    assert (transition["segment"], cause["topic"], cause["offset"], cause["due_at"]) == (
        "viewers",
        CLICKS,
        3,
        None,
    )
    [decision] = bodies(result, "decision")
    event_id = ids.event_id(CLICKS, 0, 3)
    assert decision["cause"]["event_id"] == event_id
    assert decision["decision_id"] == str(ids.decision_id(event_id, "ann", "look_again", 1))
    assert (world.ann.segments, world.ann.entered) == ({0}, {0: NOW // MINUTE})


def test_leaving_a_segment_clears_the_time_of_entry(world: World) -> None:
    world.ann.segments, world.ann.entered = {0, 9}, {0: 5}
    result = world.cut(NOW, click("scroll"))
    left = [(body["segment"], body["entered"]) for body in bodies(result, "transition")]
    assert left == [("viewers", False), ("buyers", False)]
    assert (world.ann.segments, world.ann.entered) == (set(), {})


def test_an_event_sets_off_the_campaigns_of_its_kind_by_number() -> None:
    extra = (campaign(3, "zero", event="purchase"), campaign(4, "bought", enter="buyers"))
    world = World(POLICY.model_copy(update={"campaigns": (*reversed(extra), *POLICY.campaigns)}))
    result = world.cut(NOW, buy())
    assert [body["campaign"] for body in bodies(result, "decision")] == ["thank_you", "zero", "bought"]
    assert result.kinds("ann")[0] == "transition buyers"
    assert result.fates[PURCHASES]["decided"] == 1


def test_withdrawn_consent_frees_pending_and_recalls_released_slots(world: World) -> None:
    world.wait(NOW + HOUR, NOW + 2 * DAY, index=0)
    released = world.wait(NOW + MINUTE, NOW + DAY, index=1)
    world.cut(NOW + MINUTE)
    now = NOW + 2 * MINUTE
    result = world.cut(now, consent("withdrawn", 5))
    assert result.kinds("ann") == ["consent withdrawn", "release withheld", "closure withdrawn"]
    assert [body["reason"] for body in bodies(result, "release")] == ["withdrawn"]
    assert result.recalls == [
        {
            "dispatch_id": released,
            "recipient_id": "ann",
            "lane": "other",
            "reason": "withdrawn",
            "recalled_at": now,
            "expires_at": NOW + DAY,
        }
    ]
    assert world.ann.slots == [None] * 8


def test_withdrawing_another_purpose_frees_nothing(world: World) -> None:
    world.wait(NOW + HOUR, NOW + DAY)
    world.cut(NOW, consent("withdrawn", 5, "tracking"))
    assert world.ann.slots[0] is not None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("sent", "confirmed"),
        ("delivered", "confirmed"),
        ("bounced", "failed"),
        ("expired", "failed"),
        ("recalled", "failed"),
        ("unknown", "failed"),
        ("complained", "failed"),
        ("unsubscribed", "failed"),
        ("deferred", None),
    ],
)
def test_delivery_closes_the_slot_of_its_dispatch(world: World, kind: str, reason: str | None) -> None:
    dispatch_id = world.wait(NOW + MINUTE, NOW + DAY)
    world.cut(NOW + MINUTE)
    result = world.cut(NOW + 2 * MINUTE, delivery(kind, dispatch_id))
    assert result.fates[DELIVERY]["no_trigger"] == 1
    assert [body["reason"] for body in bodies(result, "closure")] == ([reason] if reason else [])
    assert (world.ann.slots[0] is None) == (reason is not None)
    suppressing = {"complained": Suppression.COMPLAINED, "unsubscribed": Suppression.UNSUBSCRIBED}
    assert world.ann.suppressed == suppressing.get(kind, Suppression.NONE)


def test_a_permanent_bounce_suppresses_withdraws_every_slot_and_is_never_replaced(world: World) -> None:
    first = world.wait(NOW + MINUTE, NOW + DAY, index=0)
    world.wait(NOW + HOUR, NOW + 2 * DAY, index=1)
    world.cut(NOW + MINUTE)
    bounce = delivery("bounced", first, permanent=True)
    result = world.cut(NOW + 2 * MINUTE, bounce, delivery("complained"), delivery("bounced"))
    assert result.kinds("ann") == ["closure failed", "consent suppressed", "release withheld"]
    assert result.recalls == []
    [suppression] = bodies(result, "consent")
    assert (suppression["purpose"], suppression["version"], suppression["reason"]) == (
        "suppression",
        0,
        "bounced",
    )
    assert world.ann.suppressed == Suppression.BOUNCED
    assert result.fates[DELIVERY]["no_trigger"] == 3


def test_an_unknown_dispatch_is_filtered_unless_it_suppresses(world: World) -> None:
    result = world.cut(
        NOW,
        delivery("bounced", "nowhere"),
        delivery("sent"),
        delivery("unsubscribed", "nowhere"),
    )
    assert (result.fates[DELIVERY]["filtered"], result.fates[DELIVERY]["no_trigger"]) == (1, 2)
    assert world.ann.suppressed == Suppression.UNSUBSCRIBED


# Section 4


def decided(world: World, now: int = NOW) -> dict[str, Any]:
    """The decision of the campaign `thank_you`, set off by a purchase of a viewer."""
    result = world.cut(now, click("view", now), click("view", now), click("view", now), buy(when=now))
    return next(body for body in bodies(result, "decision") if body["campaign"] == "thank_you")


def viewer(cooldown: int = 2**32 - 1) -> World:
    """A world in which entering `viewers` decides nothing, for its campaign rests."""
    world = World()
    world.ann.cooldown[0] = cooldown
    return world


def test_a_scheduled_send_takes_the_first_free_slot_and_starts_the_cooldown() -> None:
    world = viewer()
    world.wait(NOW + 30 * DAY, NOW + 31 * DAY, index=0)
    decision = decided(world)
    assert (decision["outcome"], decision["reason"], decision["tier"]) == ("scheduled", "scheduled", "prior")
    assert decision["expires_at"] == NOW + DAY
    slot = world.ann.slots[1]
    assert slot is not None
    assert slot == Slot(False, 2, decision["due_at"], NOW + DAY, uuid.UUID(decision["decision_id"]), "")
    assert world.ann.cooldown[2] == (NOW + 7 * DAY) // MINUTE
    jitter = int.from_bytes(slot.decision.bytes[8:16], "big") % 2_700_000
    assert slot.due_at % HOUR == jitter


def test_a_cooldown_is_rounded_up_to_minutes_and_ends_on_its_minute() -> None:
    world = viewer()
    decided(world, NOW + 1)
    assert world.ann.cooldown[2] == (NOW + 7 * DAY) // MINUTE + 1
    world = viewer()
    world.ann.cooldown[2] = NOW // MINUTE + 1
    assert decided(world)["reason"] == "cooldown"
    world = viewer()
    world.ann.cooldown[2] = NOW // MINUTE
    assert decided(world)["reason"] == "scheduled"


def test_the_first_gate_that_fails_gives_the_reason() -> None:
    world = World()
    for index in range(8):
        world.wait(NOW + 30 * DAY, NOW + 31 * DAY, index=index)
    world.ann.cooldown[2] = 2**32 - 1
    world.ann.suppressed = Suppression.COMPLAINED
    world.ann.consent = {}

    def reason() -> str:
        [decision] = bodies(world.cut(NOW, buy()), "decision")
        withheld = ("due_at", "expires_at", "tier", "score", "runner_up_at", "runner_up_score", "propensity")
        assert (decision["outcome"], {decision[name] for name in withheld}) == ("withheld", {None})
        return str(decision["reason"])

    assert reason() == "suppressed"
    world.ann.suppressed = Suppression.NONE
    assert reason() == "no_consent"
    world.ann.consent["mail"] = Consent.GRANTED
    assert reason() == "not_in_audience"
    world.ann.hourly["view", NOON_HOUR] = 3
    world.ann.segments = {0, 9}
    assert reason() == "cooldown"
    world.ann.cooldown[2] = 0
    assert reason() == "pending_full"
    world.ann.slots[7] = None
    assert reason_of_scheduled(world) == "scheduled"


def reason_of_scheduled(world: World) -> str:
    return str(bodies(world.cut(NOW, buy()), "decision")[0]["reason"])


def test_no_hour_before_expiry_is_expired_all_quiet_is_quiet_and_all_capped_is_frequency_cap() -> None:
    def reason(expiry: str, now: int, sent: int) -> str:
        short = campaign(2, "thank_you", expiry=expiry, event="purchase")
        world = World(POLICY.model_copy(update={"campaigns": (short,)}), now=now)
        world.ann.sent = [(sent, 0)]
        return str(bodies(world.cut(now, buy(when=now)), "decision")[0]["reason"])

    night = at("2024-03-06T21:30")
    assert reason("30 min", NOW, NOW) == "expired"
    assert reason("8 h", night, night) == "quiet_hours"
    assert reason("8 h", NOW, NOW) == "frequency_cap"
    assert reason("8 h", NOW, NOW - 16 * HOUR) == "scheduled"


def test_candidates_are_the_24_hours_to_come_outside_quiet_hours(world: World) -> None:
    reason, allowed = triggers._hours_left(_work(world), world.ann, uuid.UUID(int=0), NOW + 2 * DAY)
    assert reason is None
    assert [c.hour - NOON_HOUR for c in allowed] == [*range(1, 9), *range(20, 25)]
    assert all(c.due_at == c.hour * HOUR for c in allowed)


def test_an_hour_is_left_only_if_it_is_before_expiry_and_a_whole_window_after_the_last_release(
    world: World,
) -> None:
    second = (NOON_HOUR + 2) * HOUR
    world.ann.sent = [(second - 16 * HOUR, 0)]
    expires_at = (NOON_HOUR + 4) * HOUR
    _, allowed = triggers._hours_left(_work(world), world.ann, uuid.UUID(int=0), expires_at)
    assert [c.hour - NOON_HOUR for c in allowed] == [2, 3]


def test_on_a_spring_forward_day_quiet_hours_end_an_hour_earlier_in_utc() -> None:
    now = at("2024-03-10T01:30")  # Saturday 20:30 in New York
    world = World(now=now)
    world.ann.zone = "America/New_York"
    _, allowed = triggers._hours_left(_work(world, now), world.ann, uuid.UUID(int=0), now + 2 * DAY)
    assert allowed[0].hour == at("2024-03-10T12:00") // HOUR  # 08:00 EDT
    assert len(allowed) == 13  # 08:00 to 20:00 EDT, that is 12:00 to 00:00 UTC


def test_pending_sends_block_the_hours_within_a_window_of_them_on_both_sides(world: World) -> None:
    world.wait((NOON_HOUR + 24) * HOUR, NOW + 3 * DAY)
    _, allowed = triggers._hours_left(_work(world), world.ann, uuid.UUID(int=0), NOW + 2 * DAY)
    assert [c.hour - NOON_HOUR for c in allowed] == list(range(1, 9))  # at +8 the distance is just 16 h
    slot = world.ann.slots[0]
    assert slot is not None
    slot.released = True
    _, allowed = triggers._hours_left(_work(world), world.ann, uuid.UUID(int=0), NOW + 2 * DAY)
    assert len(allowed) == 13


def _work(world: World, now: int = NOW) -> Work:
    return Work(POLICY, RefCut(0, 1, now, now, 0, False, False, []), RefResult())


MORNING = [triggers.Candidate(NOON_HOUR + n, (NOON_HOUR + n) * HOUR) for n in (-2, -1, 0)]  # 10, 11, 12


@pytest.mark.parametrize(("u", "chosen"), [(b"\0" * 8, 0), (b"\x80" + b"\0" * 7, 1), (b"\xff" * 8, 2)])
def test_the_prior_draws_in_proportion_to_hour_and_weekday(u: bytes, chosen: int) -> None:
    # Weights 0.04, 0.06, 0.058; half of the total 0.158 lies in the second.
    decision = uuid.UUID(bytes=u + b"\0" * 8)
    choice = triggers.choose(POLICY.send_time, Recipient(hour=0), "UTC", decision, MORNING)
    weights = [0.04, 0.06, 0.058]
    assert (choice.tier, choice.chosen) == ("prior", MORNING[chosen])
    assert choice.score == pytest.approx(weights[chosen])
    assert choice.propensity == pytest.approx(weights[chosen] / 0.158)
    assert choice.runner_up == MORNING[1 if chosen != 1 else 2]


def test_a_draw_on_the_border_of_two_hours_gives_the_later() -> None:
    equal = [triggers.Candidate(NOON_HOUR + n, 0) for n in (2, 3)]
    half = uuid.UUID(bytes=b"\x80" + b"\0" * 15)
    assert triggers.choose(POLICY.send_time, Recipient(hour=0), "UTC", half, equal).chosen == equal[1]


def test_a_known_recipient_gets_the_best_scored_hour() -> None:
    recipient = Recipient(hour=0)
    recipient.active[2 * 24 + 11] = 2560  # ten active hours, Wednesday at 11
    choice = triggers.choose(POLICY.send_time, recipient, "UTC", uuid.UUID(int=0), MORNING)
    assert (choice.tier, choice.chosen, choice.propensity) == ("recipient", MORNING[1], 1.0)
    assert choice.score == pytest.approx(0.185)  # (5 + 30 * (8/20 * 0.2)) / 40
    assert choice.runner_up == MORNING[2]
    assert choice.runner_up_score == pytest.approx(0.103)  # (2.5 + 30 * (5.4/20 * 0.2)) / 40


def test_the_recipients_own_hours_count_from_the_threshold_on() -> None:
    recipient = Recipient(hour=0)
    recipient.active[0] = 5 * 256 - 1
    assert triggers.choose(POLICY.send_time, recipient, "UTC", uuid.UUID(int=0), MORNING).tier == "prior"
    recipient.active[0] = 5 * 256
    assert triggers.choose(POLICY.send_time, recipient, "UTC", uuid.UUID(int=0), MORNING).tier == "recipient"


def test_the_week_and_the_day_are_circular() -> None:
    recipient = Recipient(hour=0)
    recipient.active[167] = 2560  # Sunday at 23
    monday = at("2024-03-11T00:00") // HOUR
    only = [triggers.Candidate(monday, monday * HOUR)]
    choice = triggers.choose(POLICY.send_time, recipient, "UTC", uuid.UUID(int=0), only)
    assert choice.score == pytest.approx((2.5 + 30 * ((2.5 + 0.1) / 20 * 0.1)) / 40)
    assert (choice.runner_up, choice.runner_up_score) == (None, None)


def test_of_equal_scores_the_earliest_wins_and_the_next_is_runner_up() -> None:
    recipient = Recipient(hour=0, active=[256] * 168)
    night = [triggers.Candidate(NOON_HOUR + n, 0) for n in (2, 3, 4)]  # all with prior 0.01
    choice = triggers.choose(POLICY.send_time, recipient, "UTC", uuid.UUID(int=0), night)
    assert (choice.chosen, choice.runner_up) == (night[0], night[1])
    assert choice.score == choice.runner_up_score


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
    assert len(values) == 7 * 7 + 3 + 8


def test_a_segment_holds_where_its_sql_is_true_and_null_is_not() -> None:
    values: dict[str, features.Value] = {"hours_since_view": None, "views_7d": 5}
    assert not features.holds("hours_since_view >= 0", values)
    assert not features.holds("NOT (hours_since_view >= 0)", values)
    assert features.holds("views_7d >= 5 AND hours_since_view IS NULL", values)
    assert not features.holds("VIEWS_7D > 5", values)


def test_the_real_policys_segments_can_be_asked() -> None:
    policy = policies.load(Path(__file__).parents[2] / "infra" / "policy")
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
        {"offset": 2, "change": {"paused": False}},
    ]
    assert [paused_at(control, version) for version in range(4)] == [False, False, True, False]


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
