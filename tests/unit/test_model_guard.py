"""The guard: which canary is taken back, and which is left alone."""

from __future__ import annotations

import numpy as np

from models.sendtime import intercept, training
from streams.control import ModelIntercept
from streams.engine.control import Control, Intercept
from streams.model_guard import Judged, breach, moved_intercept
from streams.model_trail import Sends
from tests.support import activities


def sends(count: int, told: float, happens: float, seed: int = 0) -> Sends:
    chance = np.random.default_rng(seed)
    return Sends(
        {
            "score": np.full(count, told),
            "active": chance.random(count) < happens,
            "unit": np.arange(count) // 2,
        }
    )


RIGHT = Judged.of(sends(20_000, 0.05, 0.05), "active")


def test_a_canary_that_tells_twice_what_happens_is_taken_back_with_the_figures() -> None:
    why = breach(Judged.of(sends(20_000, 0.10, 0.05), "active"), RIGHT)
    assert "20,000 sends" in why
    assert "2.0" in why or "1.9" in why
    assert breach(Judged.of(sends(20_000, 0.025, 0.05), "active"), RIGHT)


def test_a_canary_that_is_right_or_little_off_goes_on() -> None:
    for seed in range(50):
        assert breach(Judged.of(sends(3_000, 0.05, 0.05, seed), "active"), RIGHT) == ""
    assert breach(Judged.of(sends(20_000, 0.055, 0.05), "active"), RIGHT) == ""


def test_what_leads_both_astray_is_no_fault_of_the_canary() -> None:
    astray = Judged.of(sends(20_000, 0.15, 0.05), "active")
    assert breach(Judged.of(sends(20_000, 0.12, 0.05), "active"), astray) == ""
    assert breach(Judged.of(sends(20_000, 0.25, 0.05), "active"), astray)


def test_few_sends_judge_nothing() -> None:
    assert breach(Judged.of(sends(150, 0.9, 0.05), "active"), RIGHT) == ""


def test_a_canary_that_nobody_ever_follows_is_taken_back() -> None:
    assert breach(Judged.of(sends(2_000, 0.9, 0.0), "active"), RIGHT)


def test_two_models_that_are_off_alike_leave_the_canary_alone() -> None:
    taken = 0
    for seed in range(100):
        beside = Judged.of(sends(20_000, 0.10, 0.05, 1000 + seed), "active")
        taken += bool(breach(Judged.of(sends(3_000, 0.10, 0.05, seed), "active"), beside))
    assert taken <= 3


def test_an_intercept_is_moved_where_it_is_clearly_off() -> None:
    activity = activities.trips()
    until = int(activity.hour.max()) - 24 * 30
    model = training.train(activity, 24, until - 24 * 60).model

    def moved(control: Control, among: int = 10_000) -> ModelIntercept | None:
        some = activity.picked(activity.recipient < among)
        return moved_intercept(model, control, some, until)

    def shifted(log_odds: float) -> Control:
        return Control(1, intercepts=(Intercept(model.version, 1, log_odds),))

    found = intercept.online(model, activity, until)
    assert found is not None
    assert moved(shifted(found.log_odds + 0.03)) is None
    back = moved(shifted(found.log_odds + 0.3))
    assert back == ModelIntercept(model.version, round(found.log_odds, 3))
    assert moved(shifted(found.log_odds + 0.3), among=8) is None, "too few to say so"
