"""One place for features: what a model was trained on is what it weighs when it serves."""

from dataclasses import replace

import numpy as np
import pytest

from models import zones
from models.sendtime import training
from models.sendtime.activity import GUARD, Windows
from models.sendtime.histories import OF_HOURS, TERMS, UNSEEN, Histories, lag_terms, terms
from models.sendtime.model import QUANTUM, TIERS, HourModel
from schemas.profile import WEEK_HOURS, WEIGHT_ONE
from tests.support.activities import planted
from tests.support.models import trained_like
from tests.support.streamed import FIRST, streamed

ZONES = (b"America/New_York", b"Europe/Vienna", b"Asia/Kolkata", b"+05:45", b"UTC")
TIER = pytest.mark.parametrize("tier", range(len(TIERS)), ids=TIERS)
SLOTS = pytest.mark.parametrize("slots", [24, 168])
# Of scores that are whole quanta, and sums of floats in another order.
WITHIN = 0.5 * QUANTUM + 1e-9


def with_factors(seed: int) -> tuple[HourModel, np.ndarray]:
    """A model of known factors of all the terms, by tier (3, 6)."""
    factors = np.random.default_rng(seed).normal(0.5, 0.5, (len(TIERS), len(TERMS)))
    lag = factors[:, OF_HOURS:] @ lag_terms().T
    return replace(trained_like(seed), weights=factors[:, :OF_HOURS], lag=lag), factors


def some(n: int, seed: int) -> Histories:
    """Recipients of every kind: never seen, thin, of old; faded weights; half of them active a moment ago."""
    draw = np.random.default_rng(seed)
    active = draw.integers(0, 9 * WEIGHT_ONE, (n, WEEK_HOURS)) * (draw.random((n, WEEK_HOURS)) < 0.1)
    active[: n // 4] = 0
    active[n // 4 : n // 2, 2:] = 0
    last = FIRST - np.where(draw.random(n) < 0.5, draw.integers(0, 3, n), draw.integers(0, 3000, n))
    last = np.where(active.any(1), last, UNSEEN)
    first = np.where(active.any(1), last - draw.integers(0, 20_000, n), UNSEEN)
    return Histories(active.astype(np.uint16), last, first, np.array(ZONES, "S32")[draw.integers(0, 5, n)])


@TIER
@SLOTS
@pytest.mark.parametrize("seed", [1, 2])
def test_scores_are_the_terms_by_their_factors(tier: int, slots: int, seed: int) -> None:
    model, factors = with_factors(seed)
    known = some(400, seed)
    hours = np.broadcast_to(FIRST + GUARD + np.arange(slots), (400, slots))
    local = zones.local_hours(known.zone, hours)
    scores = model.scores(known, np.full(400, tier), hours, local)
    expected = terms(known, hours, local, model.prior) @ factors[tier]
    assert np.abs(scores * QUANTUM - expected).max() <= WITHIN
    assert np.ptp(expected) > 100 * QUANTUM


@TIER
@SLOTS
def test_a_file_and_the_stream_give_the_same_scores(
    monkeypatch: pytest.MonkeyPatch, tier: int, slots: int
) -> None:
    """Training's road: events, windows, terms. Serving's: records, rows of the stream, scores."""
    told, (model, factors) = streamed(monkeypatch, 5, 1), with_factors(5)
    windows = Windows.of(told.events, np.arange(len(told.events)), slots)
    trained = terms(windows.histories, windows.hours, windows.local, model.prior) @ factors[tier]
    moments = zip(windows.histories.first.tolist(), windows.at.tolist(), strict=True)
    place = {moment: i for i, moment in enumerate(moments)}
    compared = set()
    for question in told.asked:
        known = question.histories
        at_once = np.flatnonzero(question.now == known.last)  # asked in the hour of an event
        hours = question.now[at_once, None] + GUARD + np.arange(slots)
        local = zones.local_hours(known.zone[at_once], hours)
        served = model.scores(known.picked(at_once), np.full(len(at_once), tier), hours, local)
        for i, scores in zip(at_once.tolist(), served, strict=True):
            n = place[int(known.first[i]), int(known.last[i])]
            assert np.abs(scores * QUANTUM - trained[n]).max() <= WITHIN
            compared.add(n)
    assert len(compared) > 0.9 * len(windows)


def test_a_trained_model_serves_the_factors_that_its_card_tells() -> None:
    activity, _ = planted(80, 60, 0.5, own=True, zones=("Asia/Kolkata", "UTC"), seed=4)
    found = training.train(activity, 24, int(activity.hour.max()) + 1)
    windows = Windows.of(activity, activity.visits[::7], 24)
    for tier, name in enumerate(TIERS):
        factors = np.array([found.facts["factors"][name][term] for term in TERMS])
        scores = found.model.scores(
            windows.histories, np.full(len(windows), tier), windows.hours, windows.local
        )
        expected = terms(windows.histories, windows.hours, windows.local, found.model.prior) @ factors
        assert np.abs(scores * QUANTUM - expected).max() <= WITHIN


def test_a_change_of_a_factor_would_be_seen() -> None:
    model, factors = with_factors(3)
    known = some(400, 3)
    hours = np.broadcast_to(FIRST + GUARD + np.arange(24), (400, 24))
    local = zones.local_hours(known.zone, hours)
    scores = model.scores(known, np.full(400, 2), hours, local) * QUANTUM
    for term in range(len(TERMS)):
        changed = factors[2] + 0.01 * (np.arange(len(TERMS)) == term)
        differ = np.abs(terms(known, hours, local, model.prior) @ changed - scores)
        assert differ.max() > 10 * WITHIN, TERMS[term]
