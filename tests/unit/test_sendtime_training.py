"""Training and trying a model: planted truth is found, chance is not taken for it."""

from functools import cache

import numpy as np
import pytest

from models.sendtime import evaluation, training
from models.sendtime.activity import GUARD, Activity, TooFew
from models.sendtime.baselines import RULES, first_law
from models.sendtime.evaluation import CHAMPION, METRICS, Evaluation
from models.sendtime.histories import TERMS
from models.sendtime.model import HourModel
from models.sendtime.shares import Prior
from schemas.profile import HOUR_MS
from tests.support.activities import MONDAY, planted

OWN = tuple(name for name in TERMS if name.startswith("own"))
EVERYBODY = "everybody's hours"
STEPS = ["priors", "histories", "kappas", "factors", "calibration"]
SEEDS = pytest.mark.parametrize("seed", [1, 2])


@cache
def regulars(seed: int) -> tuple[Activity, Evaluation, list[str]]:
    """A hundred recipients, each active mainly at their own hour, on two clocks; what an evaluation says."""
    activity, _ = planted(100, 60, 0.5, own=True, zones=("America/New_York", "Asia/Kolkata"), seed=seed)
    told: list[str] = []
    return activity, evaluation.evaluate(activity, 24, told.append), told


def until_the_end(activity: Activity) -> int:
    return int(activity.hour.max()) + 1


def same(one: HourModel, other: HourModel) -> bool:
    first, second = one.arrays(), other.arrays()
    return first.keys() == second.keys() and all((second[name] == first[name]).all() for name in first)


@SEEDS
def test_planted_hours_are_found(seed: int) -> None:
    _, found, _ = regulars(seed)
    any1 = {name: each["any1"][0] for name, each in found.models.items()}
    assert any1[CHAMPION] > 0.85
    assert any1[CHAMPION] > 4 * any1["global_hour"]
    assert any1[CHAMPION] > any1["last_hour"]
    for rule in ("global_hour", "send_now", "uniform", "last_hour"):
        assert found.differences[rule]["any1"][1] > 0, rule


@SEEDS
def test_probabilities_are_those_of_what_happens(seed: int) -> None:
    calibration = regulars(seed)[1].calibration
    value, low, high = calibration.ratio
    assert 0.9 < value < 1.1, f"{value:.3f}"
    assert low < value < high
    assert calibration.ece < 0.2 * calibration.base
    told, happened = np.array(calibration.deciles).T
    assert (np.diff(told) >= 0).all()
    assert happened[-1] > 5 * happened[:-1].max()  # nearly all is in the hours held likeliest
    assert np.mean(happened) == pytest.approx(calibration.base, rel=0.01)


@SEEDS
def test_an_evaluation_tells_every_metric_that_a_rule_has_an_answer_to(seed: int) -> None:
    _, found, _ = regulars(seed)
    assert [*found.models] == [*RULES, CHAMPION]
    for name, each in found.models.items():
        without = name in ("send_now", "last_hour", "mode_hour")
        assert {*each} == {*METRICS} - ({"nll"} if without else set())
        assert all(low - 1e-9 <= value <= high + 1e-9 for value, low, high in each.values())
    assert found.models["uniform"]["hit1"] == pytest.approx((1 / 24,) * 3)
    assert found.models["uniform"]["nll"] == pytest.approx((np.log(24),) * 3)
    for rule, each in found.differences.items():
        for metric, (value, low, high) in each.items():
            expected = found.models[CHAMPION][metric][0] - found.models[rule][metric][0]
            assert value == pytest.approx(expected)
            assert low - 1e-9 <= value <= high + 1e-9
    assert sum(count for count, _ in found.by_history.values()) == found.windows
    for metric in ("any1", "hit3"):
        assert found.models[CHAMPION][metric][0] >= found.models[CHAMPION]["hit1"][0]


def test_each_step_is_reported_as_it_begins() -> None:
    activity, _, told = regulars(1)
    assert told == [*STEPS, "windows", "rankings", "intervals", "calibration"]
    alone: list[str] = []
    training.train(activity, 24, until_the_end(activity), alone.append)
    assert alone == STEPS


def test_the_same_activity_gives_the_same_model() -> None:
    activity, found, _ = regulars(1)
    again = evaluation.evaluate(activity, 24)
    assert same(again.trained.model, found.trained.model)
    assert again.trained.facts == found.trained.facts
    assert again.models == found.models
    assert again.calibration == found.calibration


def test_of_many_visits_some_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    activity, whole, _ = regulars(1)
    monkeypatch.setattr(evaluation, "_VISITS", 700)
    some = evaluation.evaluate(activity, 24)
    assert 100 < some.visits < whole.visits
    assert same(some.trained.model, whole.trained.model)
    value, low, high = some.models[CHAMPION]["any1"]
    assert low < whole.models[CHAMPION]["any1"][0] < high
    assert 0.8 < some.calibration.ratio[0] < 1.25
    assert evaluation.evaluate(activity, 24).models == some.models


def test_nothing_is_learnt_from_what_comes_later() -> None:
    activity, _, _ = regulars(1)
    until = int(np.quantile(activity.hour, 0.7))
    earlier = activity.picked(activity.hour < until)
    assert same(training.train(activity, 24, until).model, training.train(earlier, 24, until).model)


def test_a_trained_model_is_made_again_from_its_arrays() -> None:
    model = regulars(2)[1].trained.model
    assert model.prior.zones.tolist() == [b"America/New_York", b"Asia/Kolkata"]
    assert same(HourModel.of("st-1", model.arrays()), model)


@SEEDS
def test_own_hours_of_the_thin_are_used_where_they_surely_win(seed: int) -> None:
    activity, _ = planted(600, 12, 0.5, own=True, seed=seed)  # all have six hours in the end, and their own
    thin = training.train(activity, 24, until_the_end(activity)).facts["factors"]["thin"]
    assert any(thin[name] for name in OWN)
    assert thin[EVERYBODY] == 0


@SEEDS
def test_own_hours_of_the_thin_are_not_used_where_they_are_chance(seed: int) -> None:
    activity, _ = planted(600, 12, 0.5, own=False, seed=seed)
    thin = training.train(activity, 24, until_the_end(activity)).facts["factors"]["thin"]
    assert not any(thin[name] for name in OWN)
    assert thin[EVERYBODY] > 0


@pytest.mark.parametrize("recipients", [0, 1, 12])
def test_too_little_is_told_with_what_is_needed(recipients: int) -> None:
    activity, _ = planted(recipients, 10, 0.5, own=True)
    with pytest.raises(TooFew, match=r"at least 200 are needed"):
        training.train(activity, 24, until_the_end(activity) if recipients else MONDAY)


def test_nothing_at_all_is_too_little_to_evaluate() -> None:
    nobody, _ = planted(0, 10, 0.5, own=True)
    with pytest.raises(TooFew, match="no activity"):
        evaluation.evaluate(nobody, 24)


def test_a_latest_quarter_in_which_nobody_comes_back_is_told() -> None:
    known, _ = planted(100, 60, 0.5, own=True)
    count = len(known) // 2
    once = (until_the_end(known) + GUARD + np.arange(count)) * HOUR_MS
    activity = Activity.of(
        np.concatenate([known.recipient, 100 + np.arange(count)]),
        np.concatenate([known.hour * HOUR_MS, once]),
        np.concatenate([known.zone, np.full(count, b"UTC", "S32")]),
    )
    with pytest.raises(TooFew, match="nobody came back"):
        evaluation.evaluate(activity, 24)


def test_a_zone_has_a_prior_of_its_own_as_far_as_it_is_known() -> None:
    def prior_of(count: int) -> Prior:
        hours = np.concatenate([MONDAY + 9 + 24 * np.arange(3000), MONDAY + 20 + 24 * np.arange(count)])
        recipient = np.repeat([0, 1], [3000, count])
        zone = np.repeat(np.array([b"UTC", b"Africa/Abidjan"], "S32"), [3000, count])
        return training.priors(Activity.of(recipient, hours * HOUR_MS, zone))

    few, many = prior_of(20), prior_of(5000)
    for prior in (few, many):
        assert prior.hours.shape == (3, 24)
        assert prior.hours.sum(1) == pytest.approx(1)
        assert prior.weekdays.sum(1) == pytest.approx(1)
        assert prior.hours.min() > 0
        assert prior.group_of(np.array([b"Africa/Abidjan", b"UTC", b"+01:00", b""])).tolist() == [1, 2, 0, 0]
    assert np.abs(few.hours[1] - few.hours[0]).max() < 0.03
    assert many.hours[1, 20] > 0.8 > few.hours[1, 20]


def test_offsets_and_a_single_zone_have_no_prior_of_their_own() -> None:
    hour = (MONDAY + np.arange(50)) * HOUR_MS
    one = Activity.of(np.zeros(50, np.int64), hour, np.full(50, b"Europe/Vienna", "S32"))
    assert not len(training.priors(one).zones)
    offsets = np.array([b"+01:00", b"-03:00"] * 25, "S32")
    assert not len(training.priors(Activity.of(np.zeros(50, np.int64), hour, offsets)).zones)


def test_the_first_hour_of_a_return_is_drawn_by_hazard_and_survival() -> None:
    law = first_law(np.array([[0.5, 0.5, 0.5], [0.0, 0.2, 1.0]]))
    assert law[0].tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert law[1].tolist() == pytest.approx([0, 0.2, 0.8])
