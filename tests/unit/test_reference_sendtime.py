"""Worked examples of the choice of the hour, computed by hand, held against the plain reference."""

import math
import uuid

import pytest

from models.sendtime.model import HourModel
from tests.reference import sendtime
from tests.reference.sendtime import Candidate, Choice
from tests.reference.state import Recipient
from tests.reference.world import HOUR, NOON_HOUR, NOW, POLICY, at
from tests.support.models import trained_like

MODEL = HourModel.built_in(POLICY.send_time)
MORNING = [Candidate(NOON_HOUR + n, (NOON_HOUR + n) * HOUR) for n in (-2, -1, 0)]  # Wednesday at 10, 11, 12


def choose(recipient: Recipient, u: float, allowed: list[Candidate]) -> Choice:
    decision = uuid.UUID(bytes=int(u * 2**64).to_bytes(8, "big") + b"\0" * 8)
    tier = sendtime.tier_of(MODEL, recipient, True)
    return sendtime.choose(MODEL, recipient, "UTC", decision, allowed, tier, NOW)


@pytest.mark.parametrize(("u", "chosen"), [(0.021, 0), (0.5, 1), (0.9999, 2)])
def test_the_prior_draws_in_proportion_to_hour_and_weekday(u: float, chosen: int) -> None:
    # Weights 0.04, 0.06, 0.058; half of the total 0.158 lies in the second.
    choice = choose(Recipient(hour=0), u, MORNING)
    weights = [0.04, 0.06, 0.058]
    assert (choice.tier, choice.chosen) == ("prior", MORNING[chosen])
    assert choice.propensity == pytest.approx(0.98 * weights[chosen] / 0.158 + 0.02 / 3, abs=1e-3)
    assert choice.runner_up == MORNING[1 if chosen != 1 else 2]


@pytest.mark.parametrize(("u", "chosen"), [(0.0, 0), (0.0199, 2)])
def test_the_lowest_draws_take_every_hour_alike(u: float, chosen: int) -> None:
    recipient = Recipient(hour=0)
    recipient.active[2 * 24 + 11] = 2560
    assert choose(recipient, u, MORNING).chosen == MORNING[chosen]


def test_a_known_recipient_mostly_gets_the_best_scored_hour() -> None:
    recipient = Recipient(hour=0)
    recipient.active[2 * 24 + 11] = 2560  # ten active hours, Wednesday at 11
    choice = choose(recipient, 0.5, MORNING)
    # Shares of the week: 0.185 = (5 + 30 * (8/20 * 0.2)) / 40; with 5.4/20 at 12, with 4.5/20 at 10.
    assert (choice.tier, choice.chosen, choice.runner_up) == ("recipient", MORNING[1], MORNING[2])
    rest = [(0.09625 / 0.185) ** 10, (0.103 / 0.185) ** 10]
    assert choice.propensity == pytest.approx(0.98 / (1 + sum(rest)) + 0.02 / 3, rel=1e-3)


def test_a_score_is_the_chance_to_be_active_in_the_hour() -> None:
    recipient = Recipient(hour=0, first=NOW - 100 * 24 * HOUR)
    recipient.active[2 * 24 + 11] = 2560
    choice = choose(recipient, 0.5, MORNING)
    fade = math.log(2) / 2160
    rate = 11 / ((1 - math.exp(-fade * 2400)) / fade + 168)
    assert choice.score == pytest.approx(1 / (1 + 1 / (168 * 0.185 * rate)), rel=1e-3)


def test_the_recipients_own_hours_count_from_the_threshold_on() -> None:
    recipient = Recipient(hour=0)
    assert choose(recipient, 0.5, MORNING).tier == "prior"
    recipient.active[0] = 5 * 256 - 1
    assert choose(recipient, 0.5, MORNING).tier == "thin"
    recipient.active[0] = 5 * 256
    assert choose(recipient, 0.5, MORNING).tier == "recipient"


def test_the_week_and_the_day_are_circular() -> None:
    recipient = Recipient(hour=0)
    recipient.active[167] = 2560  # Sunday at 23
    monday = at("2024-03-11T00:00") // HOUR
    judged = sendtime.judge(MODEL, recipient, "UTC", [Candidate(monday, 0)], "recipient")
    share = (2.5 + 30 * ((2.5 + 0.1) / 20 * 0.1)) / 40
    assert judged.scores == [round(4096 * math.log(168 * share))]


def test_a_zone_with_a_prior_of_its_own_is_scored_by_it() -> None:
    model, recipient = trained_like(1), Recipient(hour=0)
    here, there = (
        sendtime.judge(model, recipient, zone, MORNING, "prior").scores for zone in ("UTC", "Europe/Vienna")
    )
    hours, weekdays = model.prior.hours, model.prior.weekdays
    for scores, group, hour in ((here, 0, 10), (there, 2, 11)):
        expected = model.weights[0, 3] * math.log(168 * weekdays[group, 2] * hours[group, hour])
        expected += sum(
            weight * math.log(each * share)
            for weight, each, share in (
                (model.weights[0, 0], 24, hours[group, hour]),
                (model.weights[0, 1], 168, hours[group, hour] * weekdays[group, 2]),
            )
        )
        assert scores[0] == pytest.approx((expected + model.lag[0, 1008]) * 4096, abs=1)
