"""The online intercept: a model that told too much or too little of everybody tells as much as happens."""

import numpy as np
import pytest

from models.sendtime import intercept, training
from models.sendtime.activity import GUARD, Windows
from tests.support import activities


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.5, 0.9])
def test_the_intercept_makes_as_many_expected_as_happened(share: float) -> None:
    draw = np.random.default_rng(1)
    odds = draw.normal(np.log(share / (1 - share)), 1.5, (400, 24))
    active = draw.random(odds.shape) < share
    found = intercept.fitting(odds, active, 5.0)
    assert (1 / (1 + np.exp(-(odds + found)))).sum() == pytest.approx(active.sum(), rel=1e-6)


def test_the_intercept_goes_no_further_than_it_may() -> None:
    odds = np.zeros((10, 24))
    assert intercept.fitting(odds, np.ones((10, 24), np.bool_), 1.0) == pytest.approx(1)
    assert intercept.fitting(odds, np.zeros((10, 24), np.bool_), 1.0) == pytest.approx(-1)
    assert intercept.fitting(odds, np.arange(240).reshape(10, 24) % 2 == 0, 1.0) == pytest.approx(0)


@pytest.mark.parametrize("off", [-0.6, 0.0, 0.6])
def test_a_model_that_is_off_is_shifted_back(off: float) -> None:
    activity = activities.trips()
    until = int(activity.hour.max()) - 24 * 30
    model = training.train(activity, 24, until - 24 * 60).model
    right = intercept.online(model, activity, until)
    assert right is not None
    assert abs(right.log_odds) < 0.3
    assert 0 < right.error < 0.05
    found = intercept.online(model.shifted(off), activity, until)
    assert found is not None
    assert found.log_odds == pytest.approx(right.log_odds - off, abs=0.02)
    at = activity.hour[activity.visits]
    windows = Windows.of(activity, activity.visits[intercept.closed_lately(at, 24, until)][::3], 24)
    assert (windows.at + GUARD + 24 <= until).all()
    told = 1 / (1 + np.exp(-intercept.log_odds(model.shifted(off + found.log_odds), windows)))
    assert told.sum() / windows.active.sum() == pytest.approx(1, abs=0.1)


def test_what_happens_later_changes_no_intercept() -> None:
    activity = activities.trips()
    until = int(activity.hour.max()) - 24 * 60
    model = training.train(activity, 24, until - 24 * 60).model
    known = activity.picked(activity.hour < until)
    assert intercept.online(model, known, until) == intercept.online(model, activity, until)


def test_where_little_happened_lately_there_is_none() -> None:
    activity = activities.trips()
    model = training.train(activity, 24, int(activity.hour.max())).model
    assert intercept.online(model, activity, int(activity.hour.min()) + 20) is None
    assert intercept.online(model, activity.picked(activity.hour < 0), int(activity.hour.max())) is None
