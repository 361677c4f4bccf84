"""How good a send-time model is on a history of events, beside simple rules that it must beat.

The protocol: whoever comes back within k hours of a visit would have seen a message in one of them. Models
are trained on visits before the latest quarter of all active hours and asked about those in it, each with
what the stream's profile held at that moment; intervals are of a bootstrap over recipients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.sendtime import intercept, training
from models.sendtime.activity import GUARD, Activity, TooFew, Windows
from models.sendtime.baselines import Ranking, first_law, rankings
from models.sendtime.model import HourModel
from models.sendtime.training import Report, Trained

CHAMPION: Final = "activity"
TRAINED_BEFORE: Final = 0.75  # the quantile of active hours at which the test begins
METRICS: Final = ("hit1", "hit3", "any1", "nll")
BUCKETS: Final = ((0, 5), (5, 20), (20, 100), (100, 1 << 40))  # active hours up to the visit's
_REPETITIONS: Final = 1000
_VISITS: Final = 50_000  # of a larger file no more are tried, drawn evenly: they fit into memory
_DECILES: Final = 10
_DAY: Final = 24

Estimate = tuple[float, float, float]  # value, and the ends of its 95 % interval


@dataclass(frozen=True)
class Calibration:
    """How probabilities of single hours go with what happened, before and after the online intercept.

    `ratio` is their mean by that of the outcomes, `base`; `ece` the mean distance by decile of hours, each of
    `deciles` a pair of mean probability and share of active hours.
    """

    base: float
    ratio_raw: float
    ratio: Estimate
    ece: float
    deciles: list[tuple[float, float]]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, by rule and model.

    `models` holds `METRICS`, `differences` those of `CHAMPION` less each rule's, `by_history` any1 by active
    hours up to the visit. A metric that a rule has no answer to is not there.
    """

    windows: int
    visits: int
    recipients: int
    trained: Trained
    models: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Estimate]]
    by_history: Mapping[tuple[int, int], tuple[int, Mapping[str, Estimate]]]
    calibration: Calibration


def evaluate(activity: Activity, slots: int, report: Report = lambda _: None) -> Evaluation:
    """Train on the earlier part of an activity and try the model on the rest; `report` is told of the steps.

    Raises `TooFew`, also where too few visits are left to try it on.
    """
    if not len(activity):
        raise TooFew("there is no activity to evaluate on")
    begins = int(np.quantile(activity.hour, TRAINED_BEFORE))
    trained = training.train(activity, slots, begins, report)
    report("windows")
    visits = _recent(activity, begins - intercept.DAYS * _DAY - slots)
    at = activity.hour[visits]
    closed = at + GUARD + slots - 1 <= activity.hour.max()
    all_windows = Windows.of(activity, visits[closed & (at > begins)], slots)
    came = all_windows.picked(all_windows.came_back)
    if not len(came):
        raise TooFew("nobody came back in the latest quarter of the events: nothing to evaluate on")
    report("rankings")
    found = dict(rankings(came, trained.model.prior))
    found[CHAMPION] = ranking(trained.model, came)
    report("intervals")
    scored = {name: _scored(each, came.active) for name, each in found.items()}
    scored["uniform"] = _of_uniform(came.active)
    draws = _Draws.of(came.recipient)
    models = {name: {m: draws.mean(v) for m, v in each.items()} for name, each in scored.items()}
    best = scored[CHAMPION]
    differences = {
        name: {m: draws.mean(best[m] - v) for m, v in each.items()}
        for name, each in scored.items()
        if name != CHAMPION
    }
    by_history = {}
    for low, high in BUCKETS:
        mine = np.flatnonzero((came.counts >= low) & (came.counts < high))
        if len(mine):
            some = _Draws.of(came.recipient[mine])
            by_history[low, high] = (
                len(mine),
                {name: some.mean(each["any1"][mine]) for name, each in scored.items()},
            )
    report("calibration")
    before = Windows.of(activity, visits[at <= begins], slots)
    calibration = _calibration(trained.model, before, all_windows)
    return Evaluation(
        len(came),
        len(all_windows),
        len(np.unique(came.recipient)),
        trained,
        models,
        differences,
        by_history,
        calibration,
    )


def _recent(activity: Activity, since: int) -> np.ndarray:
    """Numbers of the visits after an hour, or of some of them."""
    found = activity.visits[activity.hour[activity.visits] > since]
    if len(found) > _VISITS:
        found = np.sort(np.random.default_rng(0).choice(found, _VISITS, replace=False))
    return np.asarray(found)


def ranking(model: HourModel, windows: Windows) -> Ranking:
    """How a model ranks the hours of windows, as it serves: each recipient by their tier."""
    tier = model.tier_of(windows.histories, np.ones(len(windows), np.bool_))
    scores = model.scores(windows.histories, tier, windows.hours, windows.local)
    chances = model.probabilities(windows.histories, tier, windows.at, scores)
    return Ranking(scores.astype(np.float64), first_law(chances))


def _scored(ranked: Ranking, active: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric of each window, float64 (n,)."""
    rows, first = np.arange(len(active)), np.argmax(active, axis=1)
    order = np.argsort(-(ranked.values if ranked.law is None else ranked.law), axis=1, kind="stable")
    scored = {
        "hit1": (order[:, 0] == first).astype(np.float64),
        "hit3": (order[:, :3] == first[:, None]).any(1).astype(np.float64),
        "any1": active[rows, np.argmax(ranked.values, axis=1)].astype(np.float64),
    }
    if ranked.law is not None:
        scored["nll"] = -np.log(np.maximum(ranked.law[rows, first], 1e-12))
    return scored


def _of_uniform(active: np.ndarray) -> dict[str, np.ndarray]:
    """What an hour drawn evenly scores in the mean."""
    n, k = active.shape
    return {
        "hit1": np.full(n, 1 / k),
        "hit3": np.full(n, min(3, k) / k),
        "any1": active.mean(1),
        "nll": np.full(n, np.log(k)),
    }


@dataclass(frozen=True)
class _Draws:
    """Bootstrap over recipients: how often each was drawn in each repetition, float64 (b, r)."""

    whose: np.ndarray
    visits: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, recipient: np.ndarray) -> "_Draws":
        _, of = np.unique(recipient, return_inverse=True)
        count = int(of.max()) + 1
        chance = np.random.default_rng(0)
        times = np.stack(
            [
                np.bincount(chance.integers(0, count, count), minlength=count).astype(np.float32)
                for _ in range(_REPETITIONS)
            ]
        )
        return cls(of, np.bincount(of), times)

    def mean(self, values: np.ndarray) -> Estimate:
        """Mean of values, one a visit, with its 95 % interval."""
        sums = np.bincount(self.whose, values)
        means = (self.times @ sums) / (self.times @ self.visits)
        low, high = np.quantile(means, [0.025, 0.975]).tolist()
        return float(values.mean()), low, high


def _calibration(model: HourModel, seen: Windows, tested: Windows) -> Calibration:
    """Of all hours of all visits of the test, with an intercept from what had closed by their day."""
    slots = tested.hours.shape[1]
    at = np.concatenate([seen.at, tested.at])
    active = np.concatenate([seen.active, tested.active])
    odds = np.concatenate([intercept.log_odds(model, seen), intercept.log_odds(model, tested)])
    day = at // _DAY
    drift = np.zeros(len(at))
    for today in np.unique(day[len(seen) :]).tolist():
        closed = intercept.closed_lately(at, slots, today * _DAY)
        if closed.any():
            drift[day == today] = intercept.fitting(odds[closed], active[closed], intercept.MOST)
    raw = 1 / (1 + np.exp(-odds[len(seen) :]))
    told = 1 / (1 + np.exp(-(odds + drift[:, None])[len(seen) :]))
    happened = tested.active
    base = float(happened.mean())
    draws = _Draws.of(tested.recipient)
    sums = [np.bincount(draws.whose, each.sum(1)) for each in (told, happened)]
    ratios = (draws.times @ sums[0]) / np.maximum(draws.times @ sums[1], 1e-12)
    ends = np.quantile(ratios, [0.025, 0.975])
    ranked = np.argsort(told, axis=None, kind="stable")
    deciles = [
        (float(told.ravel()[part].mean()), float(happened.ravel()[part].mean()))
        for part in np.array_split(ranked, _DECILES)
    ]
    return Calibration(
        base,
        float(raw.mean() / base),
        (float(told.mean() / base), float(ends[0]), float(ends[1])),
        float(np.mean([abs(expected - found) for expected, found in deciles])),
        deciles,
    )
