"""Drift: the surprise of a model that fits and of one that does not, and how choices move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.sendtime import training
from models.sendtime.drift import stability, surprise
from tests.support import activities


def test_a_model_that_does_not_fit_is_more_surprised_than_the_profile_alone() -> None:
    activity = activities.trips()
    last = int(activity.hour.max())
    model = training.train(activity, 24, last - 24 * 60).model
    fits = surprise(model, activity, last - 24 * 30, last)
    assert fits.windows > 500
    assert fits.model < fits.profile < fits.everybody
    assert sum(fits.tiers.values()) == pytest.approx(1)
    wrong = surprise(replace(model, weights=-model.weights), activity, last - 24 * 30, last)
    assert wrong.model > wrong.profile


def test_without_visits_there_is_no_surprise() -> None:
    activity = activities.trips()
    model = training.train(activity, 24, int(activity.hour.max())).model
    assert np.isnan(surprise(model, activity, 0, 1).model)


def test_hours_that_moved_have_a_high_index_and_those_that_did_not_none() -> None:
    before = np.arange(1, 25) * 100
    assert stability(before, before * 3) == pytest.approx(0, abs=1e-4)
    assert stability(before, before[::-1]) > 0.2
