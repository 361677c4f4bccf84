"""The send-time model's contract, as any model that serves must meet it."""

import numpy as np
import pytest

from models.sendtime import CANDIDATES, HourOfWeekProfile, SendTimeModel
from schemas.profile import WEEK_HOURS, WEIGHT_ONE
from tests.support.cuts import PACKAGED

MODELS: list[SendTimeModel] = [HourOfWeekProfile(PACKAGED.send_time)]
NOT_ANY, ALL = np.zeros(4000, np.bool_), np.ones(4000, np.bool_)
EVERY = np.ones((4000, CANDIDATES), np.bool_)
MIDNIGHT = 24 * 4  # local hours since 1970: Monday 00:00


def candidates(count: int) -> np.ndarray:
    return np.broadcast_to(MIDNIGHT + np.arange(CANDIDATES), (count, CANDIDATES)).copy()


@pytest.mark.parametrize("model", MODELS)
def test_only_allowed_hours_are_chosen_with_a_true_propensity(model: SendTimeModel) -> None:
    chance = np.random.default_rng(7)
    count = 500
    active = chance.integers(0, 3 * WEIGHT_ONE, (count, WEEK_HOURS)) * (chance.random((count, 1)) < 0.5)
    allowed = chance.random((count, CANDIDATES)) < 0.3
    allowed[np.arange(count), chance.integers(0, CANDIDATES, count)] = True
    chosen = model.choose(
        active, ALL[:count], NOT_ANY[:count], candidates(count), allowed, chance.random(count)
    )
    assert allowed[np.arange(count), chosen.slot].all()
    assert ((chosen.propensity > 0) & (chosen.propensity <= 1)).all()
    single = allowed.sum(1) == 1
    assert (chosen.runner_up[single] == -1).all()
    others = ~single
    assert allowed[np.flatnonzero(others), chosen.runner_up[others]].all()
    assert (chosen.runner_up[others] != chosen.slot[others]).all()


@pytest.mark.parametrize("model", MODELS)
def test_whose_hours_are_known_is_written_to_in_them(model: SendTimeModel) -> None:
    active = np.zeros((1, WEEK_HOURS), np.int64)
    active[0, 19] = 200 * WEIGHT_ONE
    chosen = model.choose(active, ALL[:1], NOT_ANY[:1], candidates(1), EVERY[:1], np.zeros(1))
    assert chosen.slot[0] == 19


@pytest.mark.parametrize("model", MODELS)
def test_newcomers_are_spread_as_the_prior_is(model: SendTimeModel) -> None:
    count = 4000
    draw = (np.arange(count) + 0.5) / count
    nobody = np.zeros((count, WEEK_HOURS), np.int64)
    everything = EVERY[:count]
    chosen = model.choose(nobody, ALL[:count], NOT_ANY[:count], candidates(count), everything, draw)
    shares = np.bincount(chosen.slot, minlength=CANDIDATES) / count
    assert np.abs(shares - np.array(PACKAGED.send_time.prior_hours)).max() < 2 / count


def test_the_whole_batch_is_scored_as_each_one_alone() -> None:
    model = MODELS[0]
    chance = np.random.default_rng(8)
    active = chance.integers(0, 2000, (50, WEEK_HOURS))
    allowed = np.ones((50, CANDIDATES), np.bool_)
    draw = chance.random(50)
    together = model.choose(active, ALL[:50], NOT_ANY[:50], candidates(50), allowed, draw)
    for i in range(50):
        alone = model.choose(
            active[i : i + 1], ALL[:1], NOT_ANY[:1], candidates(1), allowed[:1], draw[i : i + 1]
        )
        assert (alone.slot[0], alone.score[0]) == (together.slot[i], together.score[i])


def test_whose_hour_is_drawn_from_the_prior_gets_none_of_their_own() -> None:
    model, count = MODELS[0], 2000
    active = np.zeros((count, WEEK_HOURS), np.int64)
    active[:, 19] = 200 * WEIGHT_ONE
    by_prior = np.arange(count) % 2 == 0
    draw = (np.arange(count) + 0.5) / count
    chosen = model.choose(active, ALL[:count], by_prior, candidates(count), EVERY[:count], draw)
    assert (chosen.tier == ~by_prior).all()
    assert (chosen.slot[~by_prior] == 19).all()
    assert len(np.unique(chosen.slot[by_prior])) == CANDIDATES


def test_the_best_of_all_is_told_also_where_it_is_not_allowed() -> None:
    active = np.zeros((1, WEEK_HOURS), np.int64)
    active[0, 19] = 200 * WEIGHT_ONE
    allowed = np.arange(CANDIDATES)[None, :] != 19
    chosen = MODELS[0].choose(active, ALL[:1], NOT_ANY[:1], candidates(1), allowed, np.zeros(1))
    assert chosen.best[0] == 19
    assert chosen.slot[0] in (18, 20)
    assert chosen.best_score[0] > chosen.score[0]
