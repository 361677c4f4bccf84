"""Worked examples of docs/decisions.md, computed by hand, held against the plain reference."""

import pytest

from schemas import ids
from schemas.profile import Suppression
from tests.reference.world import (
    CLICKS,
    DAY,
    DELIVERY,
    HOUR,
    MINUTE,
    NOON_HOUR,
    NOW,
    POLICY,
    PURCHASES,
    World,
    at,
    attributes,
    bodies,
    buy,
    campaign,
    click,
    consent,
    delivery,
    policy_with,
)


@pytest.fixture
def world() -> World:
    return World()


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


def test_clicks_and_opens_count_by_quarters_of_a_person(world: World) -> None:
    bodies = [
        click("click", NOW - 20_000, dispatch_id="d"),
        click("click", NOW - 19_500, dispatch_id="d"),
        click("click", NOW - 17_000, dispatch_id="d"),
        click("open", NOW, network="datacenter"),
    ]
    result = world.cut(NOW, *bodies, click("open", NOW, network="privacy_proxy"), click(agent="scanner"))
    assert world.ann.hourly == {("click", NOON_HOUR): 4 + 1 + 2, ("open", NOON_HOUR): 1}
    assert result.fates[CLICKS]["filtered"] == 2


def test_a_click_right_after_a_release_counts_in_part(world: World) -> None:
    world.ann.sent = [(NOW // 1000 - 30, 0)]
    world.cut(NOW, click("click", NOW, dispatch_id="d"))
    assert world.ann.hourly == {("click", NOON_HOUR): 2}
    assert sum(world.ann.active) == 128, "half of a person was there"
    world.cut(NOW, click("click", NOW + 60_000))
    assert sum(world.ann.active) == 256


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
    assert world.ann.segments == {0}


def test_segments_are_left_by_number(world: World) -> None:
    world.ann.segments = {0, 9}
    result = world.cut(NOW, click("scroll"))
    left = [(body["segment"], body["entered"]) for body in bodies(result, "transition")]
    assert left == [("viewers", False), ("buyers", False)]
    assert world.ann.segments == set()


def test_an_event_sets_off_the_campaigns_of_its_kind_by_number() -> None:
    extra = (campaign(3, "zero", event="purchase"), campaign(4, "bought", enter="buyers"))
    world = World(policy_with(campaigns=(*reversed(extra), *POLICY.campaigns)))
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
