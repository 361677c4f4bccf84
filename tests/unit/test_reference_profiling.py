"""Worked examples of docs/decisions.md: what is kept of whom, and when it is forgotten."""

import pytest

from schemas.policy import Contact
from schemas.profile import Consent
from tests.reference.state import Recipient
from tests.reference.world import (
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    World,
    bodies,
    buy,
    campaign,
    click,
    consent,
    policy_with,
)

CONTACT = Contact.model_validate(POLICY.contact.model_dump(exclude={"quiet"}) | {"profiling": "opt_in"})
ASKING = campaign(5, "left", leave="viewers")


@pytest.fixture
def world() -> World:
    return World(policy_with(contact=CONTACT, campaigns=(*POLICY.campaigns, ASKING)))


def is_empty(recipient: Recipient) -> bool:
    behaviour = (recipient.hourly, recipient.daily, recipient.revenue, recipient.last)
    return not any(behaviour) and not any(recipient.active) and not recipient.first


def test_nothing_is_kept_of_whom_did_not_consent(world: World) -> None:
    world.cut(NOW, *[click()] * 3, buy())
    assert is_empty(world.ann)
    assert world.ann.segments == set()


def test_what_comes_after_the_consent_is_kept_also_within_a_cut(world: World) -> None:
    world.cut(NOW, click(), consent("granted", purpose="profiling"), click(), click())
    assert sum(world.ann.hourly.values()) == 2


def test_a_withdrawal_forgets_and_leaves_segments_and_sets_no_campaign_off(world: World) -> None:
    world.cut(NOW, consent("granted", purpose="profiling"), *[click()] * 3)
    world.ann.cooldown.clear()
    result = world.cut(NOW + MINUTE, consent("withdrawn", 2, purpose="profiling"))
    assert is_empty(world.ann)
    [left] = bodies(result, "transition")
    assert (left["segment"], left["entered"], left["cause"]["topic"]) == ("viewers", False, "consent.changes")
    assert bodies(result, "decision") == []
    assert any(world.ann.slots), "the mail that waits is another consent's"


def test_a_life_begins_anew_with_the_next_consent(world: World) -> None:
    grant = consent("granted", 3, purpose="profiling")
    world.ann.consent["profiling"] = Consent.GRANTED
    world.cut(NOW, *[click()] * 3, consent("withdrawn", 2, purpose="profiling"), click(), grant, click())
    assert sum(world.ann.hourly.values()) == 1


def test_mail_to_whom_wants_no_profile_goes_at_an_hour_of_the_prior_and_says_so(world: World) -> None:
    world.reference.policy = policy_with(
        contact=CONTACT, campaigns=(campaign(0, "thanks", event="purchase"),)
    )
    world.ann.active = [2560] * 168
    [decision] = bodies(world.cut(NOW, buy()), "decision")
    assert (decision["outcome"], decision["tier"]) == ("scheduled", "unprofiled")


def test_a_profile_that_a_stricter_policy_finds_is_forgotten_when_the_row_is_next_due(world: World) -> None:
    world.ann.first, world.ann.last = NOW - HOUR, {"view": NOW - HOUR}
    world.ann.hourly = {("view", (NOW - HOUR) // HOUR): 3}
    world.ann.segments = {0}
    result = world.cut(NOW + MINUTE, consent("granted", 9, purpose="tracking"))
    assert is_empty(world.ann)
    [left] = bodies(result, "transition")
    assert (left["segment"], left["entered"], left["cause"]["due_at"]) == (
        "viewers",
        False,
        NOW // HOUR * HOUR,
    )
    assert bodies(result, "decision") == [], "that is no behaviour, and sets no campaign off"


def test_without_opt_in_a_profile_is_kept_until_it_is_withdrawn() -> None:
    world = World()
    world.cut(NOW, click())
    assert not is_empty(world.ann)
    world.cut(NOW, consent("withdrawn", purpose="profiling"), click())
    assert is_empty(world.ann)
