"""The model that serves: what it may choose, how it draws, and what it tells of the choice."""

from dataclasses import replace

import numpy as np
import pytest

from models.hours import CANDIDATES
from models.sendtime.histories import LAGS, UNSEEN, Histories
from models.sendtime.model import TIERS, Chosen, HourModel, ModelRefused, Question
from schemas.profile import WEEK_HOURS, WEIGHT_ONE
from tests.support.cuts import PACKAGED
from tests.support.models import trained_like

BUILT_IN = HourModel.built_in(PACKAGED.send_time)
MODELS = [BUILT_IN, trained_like(1), trained_like(2)]
MIDNIGHT = 24 * 4  # hours since 1970: Monday 00:00
PRIOR, THIN, RECIPIENT = range(len(TIERS))


def histories(active: np.ndarray, last: int = MIDNIGHT - 3, first: int = 0) -> Histories:
    n = len(active)
    zone = np.array([b"Europe/Vienna", b"UTC"] * n, "S32")[:n]
    return Histories(active, np.full(n, last), np.full(n, first), zone)


def choose(
    model: HourModel,
    known: Histories,
    allowed: np.ndarray | None = None,
    drawn: np.ndarray | None = None,
    draw: np.ndarray | None = None,
) -> Chosen:
    n = len(known)
    hours = np.broadcast_to(MIDNIGHT + np.arange(CANDIDATES), (n, CANDIDATES)).copy()
    return model.choose(
        Question(
            known,
            np.ones(n, np.bool_),
            np.zeros(n, np.bool_) if drawn is None else drawn,
            np.full(n, MIDNIGHT - 1),
            hours,
            hours,
            np.ones((n, CANDIDATES), np.bool_) if allowed is None else allowed,
            np.full(n, 0.5) if draw is None else draw,
        )
    )


def some(n: int, seed: int) -> Histories:
    chance = np.random.default_rng(seed)
    active = chance.integers(0, 3 * WEIGHT_ONE, (n, WEEK_HOURS)) * (chance.random((n, WEEK_HOURS)) < 0.1)
    active *= chance.random((n, 1)) < 0.8
    active[: n // 4, 3:] = 0  # thin ones
    return histories(active)


def regular(n: int) -> Histories:
    """Recipients who were active 200 times, always on Monday at 19."""
    active = np.zeros((n, WEEK_HOURS), np.int64)
    active[:, 19] = 200 * WEIGHT_ONE
    return histories(active)


@pytest.mark.parametrize("model", MODELS)
def test_only_allowed_hours_are_chosen_and_the_runner_up_is_another(model: HourModel) -> None:
    chance, count = np.random.default_rng(7), 500
    allowed = chance.random((count, CANDIDATES)) < 0.1
    allowed[np.arange(count), chance.integers(0, CANDIDATES, count)] = True
    chosen = choose(model, some(count, 7), allowed, draw=chance.random(count))
    assert allowed[np.arange(count), chosen.slot].all()
    assert allowed[np.arange(count), chosen.likeliest].all()
    assert ((chosen.propensity > 0) & (chosen.propensity <= 1)).all()
    single = allowed.sum(1) == 1
    assert single.any()
    assert (chosen.runner_up[single] == -1).all()
    assert (chosen.propensity[single] == 1).all()
    others = ~single
    assert allowed[np.flatnonzero(others), chosen.runner_up[others]].all()
    assert (chosen.runner_up[others] != chosen.slot[others]).all()


@pytest.mark.parametrize("model", MODELS)
def test_hours_are_drawn_as_often_as_their_propensities_say(model: HourModel) -> None:
    count = 20_000
    for number in range(8):
        one = some(8, 3).picked(np.full(count, number))
        drawn = np.full(count, number == 7)
        chosen = choose(model, one, drawn=drawn, draw=(np.arange(count) + 0.5) / count)
        shares = np.bincount(chosen.slot, minlength=CANDIDATES) / count
        for slot in np.unique(chosen.slot):
            told = chosen.propensity[chosen.slot == slot]
            assert (told == told[0]).all()
            assert shares[slot] == pytest.approx(told[0], abs=2 / count)
        assert (shares > 0).all()  # every hour is tried


@pytest.mark.parametrize("model", MODELS)
def test_the_chances_of_all_hours_add_up_to_one(model: HourModel) -> None:
    known, chance = some(300, 5), np.random.default_rng(5)
    allowed = chance.random((300, CANDIDATES)) < 0.5
    allowed[:, 0] = True
    hours = np.broadcast_to(MIDNIGHT + np.arange(CANDIDATES), (300, CANDIDATES))
    tier = model.tier_of(known, np.ones(300, np.bool_))
    chances = model.chances(model.scores(known, tier, hours, hours), allowed, tier)
    assert chances.sum(1) == pytest.approx(1)
    assert (chances[~allowed] == 0).all()
    chosen = choose(model, known, allowed, draw=chance.random(300))
    assert chances[np.arange(300), chosen.slot] == pytest.approx(chosen.propensity)


def test_whose_hours_are_known_is_nearly_always_written_to_in_them() -> None:
    chosen = choose(BUILT_IN, regular(1000), draw=(np.arange(1000) + 0.5) / 1000)
    assert (chosen.slot == 19).mean() > 0.97
    assert (chosen.likeliest == 19).all()
    assert (chosen.tier == RECIPIENT).all()


def test_newcomers_are_spread_as_the_prior_is() -> None:
    count = 4000
    nobody = histories(np.zeros((count, WEEK_HOURS), np.int64), UNSEEN, UNSEEN)
    chosen = choose(BUILT_IN, nobody, draw=(np.arange(count) + 0.5) / count)
    shares = np.bincount(chosen.slot, minlength=CANDIDATES) / count
    floor = PACKAGED.send_time.floor
    expected = (1 - floor) * np.array(PACKAGED.send_time.prior_hours) + floor / CANDIDATES
    assert np.abs(shares - expected).max() < 3 / count
    assert (chosen.tier == PRIOR).all()


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_is_answered_as_each_one_alone(model: HourModel) -> None:
    known, draw = some(50, 8), np.random.default_rng(8).random(50)
    together = choose(model, known, draw=draw)
    for i in range(50):
        alone = choose(model, known.picked(np.array([i])), draw=draw[i : i + 1])
        for name, values in vars(together).items():
            assert getattr(alone, name)[0] == values[i], name


def test_whose_hour_is_drawn_from_the_prior_gets_none_of_their_own() -> None:
    count = 2000
    by_prior = np.arange(count) % 2 == 0
    chosen = choose(BUILT_IN, regular(count), drawn=by_prior, draw=(np.arange(count) + 0.5) / count)
    assert (chosen.tier == np.where(by_prior, PRIOR, RECIPIENT)).all()
    assert len(np.unique(chosen.slot[by_prior])) == CANDIDATES
    assert (chosen.likeliest == 19).all()  # of what is known, however it was drawn
    assert len(np.unique(chosen.expected)) == 1


def test_the_best_of_all_is_told_also_where_it_is_not_allowed() -> None:
    allowed = np.arange(CANDIDATES)[None, :] != 19
    chosen = choose(BUILT_IN, regular(1), allowed)
    assert chosen.best[0] == 19
    assert chosen.slot[0] in (18, 20)
    assert chosen.best_score[0] > chosen.score[0]


def test_a_recipient_is_thin_below_the_threshold() -> None:
    active = np.zeros((3, WEEK_HOURS), np.int64)
    active[1, 0] = 5 * WEIGHT_ONE - 1
    active[2, 0] = 5 * WEIGHT_ONE
    assert choose(BUILT_IN, histories(active)).tier.tolist() == [PRIOR, THIN, RECIPIENT]


def test_who_is_more_active_has_higher_scores() -> None:
    active = np.full((2, WEEK_HOURS), WEIGHT_ONE // 4)
    active[1] *= 8
    chosen = choose(BUILT_IN, histories(active, first=MIDNIGHT - 24 * 300))
    assert chosen.score[1] > 3 * chosen.score[0] > 0


def test_a_model_is_made_again_from_its_arrays() -> None:
    for model in MODELS:
        again = HourModel.of(model.version, model.arrays())
        known = some(100, 4)
        first, second = choose(model, known), choose(again, known)
        assert all((getattr(first, name) == values).all() for name, values in vars(second).items())


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("weights", None, "weights: expected"),
        ("weights", np.zeros((3, 5)), "weights: expected"),
        ("lag", np.zeros((3, LAGS + 1), np.int64), "lag: expected"),
        ("lag", np.full((3, LAGS + 1), np.nan), "no numbers"),
        ("prior_hours", np.full((3, 24), 1 / 23), "sum to 1"),
        ("prior_weekdays", np.tile([0.0, *[1 / 6] * 6], (3, 1)), "positive"),
        ("zones", np.array([b"UTC", b"Europe/Vienna"], "S32"), "sorted"),
        ("temperature", np.float64(0), "temperature"),
        ("floor", np.float64(1.5), "floor"),
        ("surprise", np.zeros(1), "unknown arrays: surprise"),
    ],
)
def test_arrays_that_are_no_model_are_refused(name: str, value: np.ndarray | None, text: str) -> None:
    arrays = trained_like(1).arrays()
    arrays.pop(name, None)
    if value is not None:
        arrays[name] = value
    with pytest.raises(ModelRefused, match=text):
        HourModel.of("st-0", arrays)


def test_the_floor_may_be_nothing() -> None:
    model = replace(BUILT_IN, floor=0.0)
    chosen = choose(model, regular(1000), draw=np.arange(1000) / 1000)
    assert (chosen.slot == 19).mean() > 0.99
