"""Decisions go around full hours from the change of control on, and the plain reference does the same."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import topics
from schemas.policy import Contact, Policy
from schemas.profile import HOUR_MS
from tests.reference.rules import Reference
from tests.support.cuts import HOME, PARTITIONS, POLICY, Fast, Planned, World, bodies, for_reference

WHO = HOME[:3]
CLICK = {"kind": "click"}
PURCHASE = {"amount": 2_500}


def _told(full: dict[str, set[int]] | None) -> tuple[int, list[dict[str, Any]]]:
    """The hour of a cut in which three click and buy, and its decisions, if hours after it are full."""
    world, fast, plain = World(), Fast(), Reference(POLICY, PARTITIONS)
    first = [
        Planned(topics.CONSENT.name, who, 0, {"purpose": purpose, "state": "granted", "version": 1})
        for who in WHO
        for purpose in ("mail", "profiling")
    ]
    first += [Planned(topics.ATTRIBUTES.name, who, 0, {"provider": "gmail"}) for who in WHO]
    then = [Planned(topics.CLICKS.name, who, 0, CLICK) for who in WHO]
    then += [Planned(topics.PURCHASES.name, who, 0, PURCHASE) for who in WHO]
    hour = (world.now + HOUR_MS) // HOUR_MS
    change = None
    if full is not None:
        change = {"full": {name: sorted(hour + ahead for ahead in hours) for name, hours in full.items()}}
    cuts = [world.cut(0, first), world.cut(HOUR_MS, then, change=change)]
    decisions = []
    for cut in cuts:
        handled, expected = fast.handle(cut), plain.handle(for_reference(cut))
        assert fast.rows() == plain.rows(0)
        wanted = [body for _, body in expected.audit if body["kind"] == "decision"]
        decisions = [body for _, body in bodies(handled) if "gates" in body and "cause" in body]
        for name in ("decision_id", "reason", "due_at", "hours_left", "would_be_due_at"):
            assert sorted(map(str, (d[name] for d in decisions))) == sorted(
                map(str, (d[name] for d in wanted))
            )
    return hour, decisions


def _of(decisions: list[dict[str, Any]], purpose: str) -> list[dict[str, Any]]:
    return [each for each in decisions if each["purpose"] == purpose]


def _scheduled(decisions: list[dict[str, Any]], hour: int) -> list[tuple[str, int]]:
    """Of the mails that are scheduled, the decision, and in how many hours it goes."""
    mails = [each for each in _of(decisions, "mail") if each["outcome"] == "scheduled"]
    return [(each["decision_id"], each["due_at"] // HOUR_MS - hour) for each in mails]


def test_a_decision_takes_an_hour_that_has_room() -> None:
    hour, freely = _told(None)
    free = {ahead for _, ahead in _scheduled(freely, hour)}
    assert len(free) > 1
    for left in free:
        _, decisions = _told({"gmail": {*range(30)} - {left}})
        gone = _scheduled(decisions, hour)
        assert gone
        assert {ahead for _, ahead in gone} == {left}


def test_where_all_hours_are_full_it_is_withheld_and_says_so() -> None:
    _, decisions = _told({"gmail": {*range(30)}})
    assert "lane_full" in {each["reason"] for each in _of(decisions, "mail")}
    assert all(each["outcome"] == "withheld" for each in _of(decisions, "mail"))


@pytest.mark.parametrize("full", [{"other": {*range(30)}}, {"gmail": {*range(60, 90)}}])
def test_hours_of_other_providers_and_far_away_hours_do_not_count(full: dict[str, set[int]]) -> None:
    (hour, decisions), (_, freely) = _told(full), _told(None)
    assert _scheduled(decisions, hour) == _scheduled(freely, hour)


def test_what_is_transactional_goes_at_once_all_the_same() -> None:
    hour, decisions = _told({"gmail": {*range(30)}})
    owed = _of(decisions, "transactional")
    assert owed
    assert {each["due_at"] // HOUR_MS for each in owed} == {hour}


def test_what_drops_when_capped_is_said_to_be_capped_also_where_all_hours_are_full() -> None:
    asks = POLICY.campaigns[-1].model_copy(update={"when_capped": "drop"})
    rules = {"purpose": {"mail": {"consent": "opt_in"}}, "cap": [{"most": 1, "window": "60 h"}]}
    contact = Contact.model_validate({"default_zone": "UTC", "profiling": "opt_out"} | rules)
    policy = Policy(segments=(), campaigns=(asks,), contact=contact, send_time=POLICY.send_time)
    world, fast, plain = World(), Fast(policy), Reference(policy, PARTITIONS)
    consent = Planned(topics.CONSENT.name, WHO[0], 0, {"purpose": "mail", "state": "granted", "version": 1})
    clicks = Planned(topics.CLICKS.name, WHO[0], 0, CLICK)
    full = {"other": [world.now // HOUR_MS + ahead for ahead in range(90)]}
    reasons = []
    for cut in (world.cut(0, [consent, clicks]), world.cut(30 * HOUR_MS, [clicks], change={"full": full})):
        handled, expected = fast.handle(cut), plain.handle(for_reference(cut))
        told = [body["reason"] for _, body in bodies(handled) if "gates" in body and "cause" in body]
        assert told == [body["reason"] for _, body in expected.audit if body["kind"] == "decision"]
        reasons += told
    assert reasons == ["scheduled", "frequency_cap"]
