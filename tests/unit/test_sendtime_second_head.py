"""The second head: learnt from sends that were drawn, used where it wins and only there."""

from __future__ import annotations

import numpy as np
import pytest

from models.hours import CANDIDATES
from models.sendtime import second_head
from models.sendtime.activity import TooFew
from models.sendtime.model import TIERS, HourModel, Question
from models.sendtime.second_head import Sends
from schemas.profile import WEEK_HOURS, WEIGHT_ONE
from tests.support.cuts import PACKAGED
from tests.unit.test_sendtime import MIDNIGHT, histories

MODEL = HourModel.built_in(PACKAGED.send_time)
RECIPIENT = TIERS.index("recipient")
PEOPLE = 1500
EVERY = 4


def world(rewarding: np.ndarray, seed: int) -> Sends:
    """Sends to people who are active at 19, four to each; `rewarding` says how likely each hour is (24,)."""
    chance, n = np.random.default_rng(seed), PEOPLE * EVERY
    active = np.zeros((n, WEEK_HOURS), np.int64)
    active[:, 19::24] = 3 * WEIGHT_ONE
    active[:, 8::24] = 2 * WEIGHT_ONE
    hours = np.broadcast_to(MIDNIGHT + np.arange(CANDIDATES), (n, CANDIDATES)).copy()
    asked = Question(
        histories(active, first=MIDNIGHT - 24 * 100),
        np.ones(n, np.bool_),
        np.zeros(n, np.bool_),
        np.full(n, MIDNIGHT - 1),
        hours,
        hours,
        chance.random((n, CANDIDATES)) < 0.9,
        chance.random(n),
    )
    asked.allowed[:, [8, 19]] = True
    chosen = MODEL.choose(asked)
    reward = (chance.random(n) < rewarding[chosen.slot]).astype(np.float64)
    return Sends(asked, chosen.slot, chosen.propensity, reward, np.arange(n) // EVERY)


def test_a_head_that_knows_what_hours_earn_wins_and_one_of_noise_does_not() -> None:
    mornings = np.full(CANDIDATES, 0.02)
    mornings[8] = 0.5  # people are there at 19 more often, but it is at 8 that they click
    won = second_head.gain(MODEL, world(mornings, 1), RECIPIENT)
    assert won.reliable
    assert won.low > 0
    for seed in range(2, 6):
        even = second_head.gain(MODEL, world(np.full(CANDIDATES, 0.2), seed), RECIPIENT)
        assert not (even.reliable and even.low > 0), even


def test_the_refined_model_prefers_what_earns_and_tells_how_likely_that_is() -> None:
    rewarding = np.full(CANDIDATES, 0.02)
    rewarding[8] = 0.5
    sends = world(rewarding, 3)
    refined = second_head.refined(MODEL, sends, [RECIPIENT])
    before, after = MODEL.choose(sends.asked), refined.choose(sends.asked)
    assert (before.slot == 8).mean() < 0.3
    assert (after.slot == 8).mean() > (before.slot == 8).mean() + 0.2
    told = after.score[after.slot == 8].mean()
    assert told == pytest.approx(0.5, abs=0.2)


def test_sends_too_few_or_all_alike_in_reward_are_refused() -> None:
    sends = world(np.full(CANDIDATES, 0.2), 4)
    for some in (sends.picked(np.arange(200)), world(np.zeros(CANDIDATES), 5)):
        with pytest.raises(TooFew, match="at least 300 are needed"):
            second_head.refined(MODEL, some, [RECIPIENT])
        with pytest.raises(TooFew):
            second_head.gain(MODEL, some, RECIPIENT)


def test_a_tier_that_is_not_named_keeps_its_first_head() -> None:
    refined = second_head.refined(MODEL, world(np.full(CANDIDATES, 0.2), 4), [RECIPIENT])
    assert (refined.weights[:RECIPIENT] == MODEL.weights[:RECIPIENT]).all()
    assert (refined.weights[RECIPIENT] != MODEL.weights[RECIPIENT]).any()
