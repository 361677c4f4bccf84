"""Worked examples of docs/decisions.md, computed by hand, held against the plain reference."""

import uuid
from typing import Any

import pytest

from schemas.profile import Consent, Suppression
from schemas.reasons import Reason
from tests.reference import triggers
from tests.reference.cuts import RefResult, Work
from tests.reference.rules import RefCut
from tests.reference.sendtime import Candidate
from tests.reference.state import Slot
from tests.reference.world import (
    DAY,
    HOUR,
    MINUTE,
    NOON_HOUR,
    NOW,
    POLICY,
    World,
    at,
    bodies,
    buy,
    campaign,
    click,
    policy_with,
)


@pytest.fixture
def world() -> World:
    return World()


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
    assert (decision["outcome"], decision["reason"], decision["tier"]) == ("scheduled", "scheduled", "thin")
    assert decision["expires_at"] == NOW + DAY
    slot = world.ann.slots[1]
    assert slot is not None
    decided_by = uuid.UUID(decision["decision_id"])
    assert slot == Slot(False, 2, decision["due_at"], NOW + DAY, decided_by, model=1)
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
        world = World(policy_with(campaigns=(short,)), now=now)
        world.ann.sent = [(sent // 1000, 0)]
        return str(bodies(world.cut(now, buy(when=now)), "decision")[0]["reason"])

    night = at("2024-03-06T21:30")
    assert reason("30 min", NOW, NOW) == "expired"
    assert reason("8 h", night, night) == "quiet_hours"
    assert reason("8 h", NOW, NOW) == "frequency_cap"
    assert reason("8 h", NOW, NOW - 16 * HOUR) == "scheduled"


def test_candidates_are_the_24_hours_to_come_outside_quiet_hours(world: World) -> None:
    reason, allowed = _hours_left(world, NOW, "48 h")
    assert reason is None
    assert [c.hour - NOON_HOUR for c in allowed] == [*range(1, 9), *range(20, 25)]
    assert all(c.due_at == c.hour * HOUR for c in allowed)


def test_an_hour_is_left_only_if_it_is_before_expiry_and_a_whole_window_after_the_last_release(
    world: World,
) -> None:
    second = (NOON_HOUR + 2) * HOUR
    world.ann.sent = [((second - 16 * HOUR) // 1000, 0)]
    _, allowed = _hours_left(world, NOW, f"{((NOON_HOUR + 4) * HOUR - NOW) // MINUTE} min")
    assert [c.hour - NOON_HOUR for c in allowed] == [2, 3]


def test_on_a_spring_forward_day_quiet_hours_end_an_hour_earlier_in_utc() -> None:
    now = at("2024-03-10T01:30")  # Saturday 20:30 in New York
    world = World(now=now)
    world.ann.zone = "America/New_York"
    _, allowed = _hours_left(world, now, "48 h")
    assert allowed[0].hour == at("2024-03-10T12:00") // HOUR  # 08:00 EDT
    assert len(allowed) == 13  # 08:00 to 20:00 EDT, that is 12:00 to 00:00 UTC


def test_pending_sends_block_the_hours_within_a_window_of_them_on_both_sides(world: World) -> None:
    world.wait((NOON_HOUR + 24) * HOUR, NOW + 3 * DAY)
    _, allowed = _hours_left(world, NOW, "48 h")
    assert [c.hour - NOON_HOUR for c in allowed] == list(range(1, 9))  # at +8 the distance is just 16 h
    slot = world.ann.slots[0]
    assert slot is not None
    slot.released = True
    _, allowed = _hours_left(world, NOW, "48 h")
    assert len(allowed) == 13


def _hours_left(world: World, now: int, expiry: str) -> tuple[Reason | None, list[Candidate]]:
    work = Work(POLICY, RefCut(0, 1, now, now, 0, False, False, []), RefResult())
    asking = campaign(0, "look_again", expiry=expiry, event="view")
    candidates = triggers._candidates(work, uuid.UUID(int=0), asking)
    return triggers._hours_left(work, world.ann, asking, candidates)
