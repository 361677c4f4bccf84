"""Worked examples of docs/decisions.md: purposes, caps, places, arms, and who goes first."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from schemas.policy import Campaign, Contact
from tests.reference import triggers
from tests.reference.cuts import RefCut, RefResult, Work
from tests.reference.world import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
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

NIGHT = at("2024-03-06T23:30")


def world_of(*campaigns: Campaign, now: int = NOW, **contact: Any) -> World:
    rules: dict[str, Any] = {
        "default_zone": "UTC",
        "profiling": "opt_out",
        "purpose": {
            "mail": {"consent": "opt_in"},
            "transactional": {
                "consent": "not_needed",
                "quiet_hours": False,
                "suppressed_by": ["bounced"],
                "hold_out": False,
            },
        },
        "quiet": {"default": {"from": "21:00", "to": "08:00"}},
    }
    policy = policy_with(campaigns=campaigns, contact=Contact.model_validate(rules | contact))
    return World(policy, now=now)


def receipt(number: int = 0) -> Campaign:
    return campaign(
        number, "receipt", expiry="2 h", event="purchase", purpose="transactional", timing="at_once"
    )


def test_what_is_owed_goes_at_once_at_night_and_to_whom_complained() -> None:
    world = world_of(receipt(), now=NIGHT)
    world.cut(NIGHT, consent("withdrawn"), delivery("complained", when=NIGHT))
    result = world.cut(NIGHT + MINUTE, buy(when=NIGHT))
    assert world.ann.suppressed
    assert [command["released_at"] for command in result.commands] == [NIGHT + MINUTE]
    assert result.kinds("ann")[1:] == ["decision scheduled", "release released"]


def test_an_address_that_bounced_stops_also_what_is_owed_whatever_came_before() -> None:
    world = world_of(receipt())
    world.cut(NOW, delivery("complained"), delivery("bounced", permanent=True))
    [decision] = bodies(world.cut(NOW + MINUTE, buy()), "decision")
    assert decision["reason"] == "suppressed"


def test_what_is_owed_waits_for_the_end_of_a_pause() -> None:
    world = world_of(receipt())
    assert world.cut(NOW, buy(), paused=True).commands == []
    assert len(world.cut(NOW + MINUTE).commands) == 1


def test_at_once_is_the_first_hour_that_the_gates_leave() -> None:
    world = world_of(campaign(0, "now", expiry="20 h", event="purchase", timing="at_once"), now=NIGHT)
    [decision] = bodies(world.cut(NIGHT, buy(when=NIGHT)), "decision")
    assert decision["due_at"] // HOUR == at("2024-03-07T08:00") // HOUR
    assert (decision["propensity"], decision["regret"]) == (1.0, None)


def test_without_opt_in_mail_goes_until_it_is_withdrawn() -> None:
    rules = {"mail": {"consent": "opt_out"}}
    world = world_of(campaign(0, "hello", event="view"), purpose=rules)
    world.ann.consent = {}
    assert bodies(world.cut(NOW, click()), "decision")[0]["outcome"] == "scheduled"
    assert world.cut(NOW, consent("withdrawn")).kinds("ann") == ["consent withdrawn", "release withheld"]


def test_each_cap_holds_by_itself_and_counts_the_purposes_that_it_names() -> None:
    caps = [
        {"most": 1, "window": "2 h"},
        {"most": 2, "window": "3 d", "purposes": ["mail", "transactional"]},
    ]
    world = world_of(campaign(0, "hello", event="view"), receipt(1), cap=caps)
    second = NOW // 1000
    world.ann.sent = [(second - 3600, 1)]
    assert bodies(world.cut(NOW, click()), "decision")[0]["outcome"] == "scheduled"
    world.ann.slots[0] = None
    world.ann.cooldown.clear()
    world.ann.sent = [(second - 7200, 1), (second - 3600, 1)]
    [decision] = bodies(world.cut(NOW, click()), "decision")
    assert decision["reason"] == "frequency_cap"
    assert bodies(world.cut(NOW, buy()), "decision")[0]["reason"] == "frequency_cap"


def test_a_release_is_counted_by_the_second_and_never_too_short() -> None:
    world = world_of(receipt(), cap=[{"most": 1, "window": "1 h", "purposes": ["transactional"]}])
    world.cut(NOW + 1, buy())
    assert world.ann.sent == [(NOW // 1000 + 1, 0)]


def test_many_sends_of_one_purpose_do_not_make_a_cap_forget_those_of_another() -> None:
    caps = [{"most": 1, "window": "16 h"}, {"most": 6, "window": "1 min", "purposes": ["transactional"]}]
    world = world_of(campaign(0, "hello", event="view"), receipt(1), cap=caps)
    second = NOW // 1000
    world.ann.sent = [(second - 7200, 0), *((second - 7200 + n, 1) for n in range(1, 12))]
    for minute in range(1, 20):
        world.ann.cooldown.clear()
        world.cut(NOW + minute * MINUTE, buy())
    assert world.ann.sent.count((second - 7200, 0)) == 1
    uncapped = world_of(campaign(0, "hello", event="view"), receipt(1), cap=caps[:1])
    uncapped.cut(NOW, buy())
    assert uncapped.ann.sent == []


def test_what_drops_when_capped_takes_no_other_hour() -> None:
    cap = [{"most": 1, "window": "2 h"}]
    asks = campaign(0, "hello", event="view", timing="at_once", when_capped="drop")
    world = world_of(asks, cap=cap)
    world.ann.sent = [(NOW // 1000, 0)]
    [decision] = bodies(world.cut(NOW, click()), "decision")
    assert (decision["reason"], decision["would_be_due_at"]) == ("frequency_cap", NOW)
    world.wait(NOW + MINUTE, NOW + DAY)
    [release] = bodies(world.cut(NOW + MINUTE), "release")
    assert (release["outcome"], release["reason"]) == ("withheld", "frequency_cap")


@pytest.mark.parametrize(
    ("place", "first_hour"),
    [("US-OH", "14:00"), ("US-NY", "18:00"), ("DE", "13:00"), ("", "13:00")],
)
def test_a_region_has_its_own_quiet_hours_else_its_country_else_the_default(
    place: str, first_hour: str
) -> None:
    quiet = {
        "default": {"from": "21:00", "to": "08:00"},
        "US": {"from": "12:00", "to": "18:00"},
        "US-OH": {"from": "13:00", "to": "14:00"},
    }
    world = world_of(campaign(0, "hello", event="view"), quiet=quiet)
    world.cut(NOW, attributes(place=place or None))
    _, allowed = triggers._hours_left(
        _work(world),
        world.ann,
        POLICY.campaigns[0],
        triggers._candidates(_work(world), uuid.UUID(int=0), POLICY.campaigns[0]),
    )
    assert allowed[0].hour == at(f"2024-03-06T{first_hour}") // HOUR


def _work(world: World) -> Work:
    return Work(world.reference.policy, RefCut(0, 9, NOW, NOW, 0, False, False, []), RefResult())


def test_of_two_that_ask_at_one_moment_the_worthier_goes_and_the_other_is_outranked() -> None:
    world = world_of(
        campaign(0, "low", event="view", value=2.0), campaign(1, "high", event="view", priority=3)
    )
    low, high = bodies(world.cut(NOW, click()), "decision")
    assert (low["reason"], low["outranked_by"]) == ("outranked", "high")
    assert (high["reason"], high["outranked_by"]) == ("scheduled", None)
    assert 0 < low["worth"] < high["worth"]
    assert high["worth"] / low["worth"] == pytest.approx(1.5)
    assert [slot.campaign for slot in world.ann.slots if slot] == [1]
    assert world.ann.cooldown.keys() == {1}


def test_one_that_is_held_back_outranks_nobody() -> None:
    world = world_of(campaign(0, "low", event="view"), campaign(1, "high", event="view", priority=9))
    world.ann.cooldown[1] = NOW // MINUTE + 60
    low, high = bodies(world.cut(NOW, click()), "decision")
    assert (low["reason"], high["reason"]) == ("scheduled", "cooldown")


def test_what_is_owed_competes_with_no_mail() -> None:
    world = world_of(campaign(0, "hello", event="purchase", priority=9), receipt(1))
    owed, mail = bodies(world.cut(NOW, buy()), "decision")
    assert (owed["campaign"], owed["reason"], mail["reason"]) == ("receipt", "scheduled", "scheduled")


def test_who_is_held_out_rests_as_if_the_message_had_gone() -> None:
    world = world_of(campaign(0, "hello", event="view", arms={"hold_out": 1.0}))
    first = bodies(world.cut(NOW, click()), "decision")[0]
    second = bodies(world.cut(NOW, click()), "decision")[0]
    assert (first["reason"], first["arm"], second["reason"]) == ("hold_out", "hold_out", "cooldown")
    assert first["would_be_due_at"] is not None
    assert not any(world.ann.slots)


def test_a_recipient_of_the_control_arm_gets_an_hour_of_the_prior() -> None:
    world = world_of(campaign(0, "hello", event="view", arms={"control": 1.0}))
    world.ann.active = [2560] * 168
    [decision] = bodies(world.cut(NOW, click()), "decision")
    assert (decision["tier"], decision["arm"]) == ("prior", "control")


def test_regret_is_the_score_that_the_gates_cost() -> None:
    world = world_of(campaign(0, "hello", event="view"))
    world.ann.active[2 * 24 + 22] = 25_600  # Wednesday at 22, a quiet hour
    [decision] = bodies(world.cut(NOW, click()), "decision")
    assert decision["best_at"] // HOUR == at("2024-03-06T22:00") // HOUR
    assert decision["regret"] > 0
    assert decision["tier"] == "recipient"


def test_a_growing_share_keeps_whom_it_had() -> None:
    def arms(**shares: float) -> list[str]:
        asks = campaign(0, "hello", event="view", arms=shares)
        return [triggers.arm_of(POLICY, f"r{n}", asks) for n in range(2000)]

    few, more = arms(hold_out=0.1, control=0.2), arms(hold_out=0.3, control=0.2)
    assert all(after == before for before, after in zip(few, more, strict=True) if before != "model")
    assert 140 < few.count("hold_out") < 260
    assert 300 < few.count("control") < 500
