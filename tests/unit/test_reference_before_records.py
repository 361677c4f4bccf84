"""Worked examples of docs/decisions.md, computed by hand, held against the plain reference."""

import uuid

import pytest

from schemas import ids
from schemas.profile import Consent, Suppression
from tests.reference import timing
from tests.reference.state import Recipient, Slot, pack
from tests.reference.world import (
    CLICKS,
    DAY,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    World,
    at,
    attributes,
    bodies,
    click,
    contact,
    policy_with,
)


@pytest.fixture
def world() -> World:
    return World()


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
            "model": None,
        }
    ]
    [release] = bodies(result, "release")
    assert (release["outcome"], release["reason"], release["lane"]) == ("released", "released", "gmail")
    assert world.ann.sent == [((NOW + HOUR) // 1000, 0)]
    assert world.ann.slots[0] == Slot(True, 0, NOW + HOUR, NOW + DAY, uuid.UUID(int=1), "gmail")
    assert result.touched == {"ann"}


def test_released_history_frees_the_slot_at_once_and_uses_the_other_lane(world: World) -> None:
    world.wait(NOW + HOUR, NOW + DAY)
    [command] = world.cut(NOW + HOUR, history=True).commands
    assert (command["history"], command["lane"]) == (True, "other")
    assert world.ann.slots[0] is None
    assert world.ann.sent == [((NOW + HOUR) // 1000, 0)]


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
    world.ann.sent = [((NOW + HOUR - 16 * HOUR) // 1000, 0)]
    world.wait(NOW + HOUR, NOW + DAY)
    assert len(world.cut(NOW + HOUR).commands) == 1


def test_a_cap_of_two_waits_for_the_second_newest_release() -> None:
    world = World(policy_with(contact=contact(most=2)))
    world.ann.sent = [((NOW - hours * HOUR) // 1000, 0) for hours in (3, 2, 1)]
    world.wait(NOW + MINUTE, NOW + 2 * DAY)
    [release] = bodies(world.cut(NOW + MINUTE), "release")
    assert release["due_at"] == NOW + 14 * HOUR


def test_a_deferral_beyond_expiry_is_a_refusal(world: World) -> None:
    world.ann.sent = [((NOW - HOUR) // 1000, 0)]
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
    assert transition["definition"] == POLICY.segments[1].definition
    expected = {"topic": None, "partition": None, "offset": None, "event_id": None, "due_at": due_at}
    assert transition["cause"] == expected
    [decision] = bodies(result, "decision")
    cause = f"due/enter:rested/{due_at}"
    assert decision["decision_id"] == str(ids.decision_id(cause, "ann", "come_back", 1))
    assert decision["cause"] == expected
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
