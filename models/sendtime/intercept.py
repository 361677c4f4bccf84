"""The online intercept: what keeps the probabilities that a model tells to how active people are lately.

How often people come back drifts with seasons and with who they are; in which hours hardly. So one number is
added to all log-odds, from windows that closed of late (the study's figures: two weeks, a logit at most).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.sendtime.activity import GUARD, Activity, Windows
from models.sendtime.model import HourModel

DAYS: Final = 14  # of closed windows that it is of
MOST: Final = 1.0  # in logits, either way
_WINDOWS: Final = 10_000
_SLOTS: Final = 24
_STEPS: Final = 40
_CLOSE: Final = 1e-9  # logits


@dataclass(frozen=True)
class Fitted:
    """What to add to a model's log-odds, and the standard error, over recipients, of how far it was off.

    The error is of the logarithm of told by happened, which is a little less than it is in logits.
    """

    log_odds: float
    error: float


def online(model: HourModel, activity: Activity, until: int) -> Fitted | None:
    """What to add to a model's log-odds at the UTC hour `until`; None where nothing closed before it."""
    at = activity.hour[activity.visits]
    asked = activity.visits[closed_lately(at, _SLOTS, until)]
    windows = Windows.of(activity, asked[:: max(1, -(-len(asked) // _WINDOWS))], _SLOTS)
    if not windows.active.any():
        return None
    odds = log_odds(model, windows)
    found = fitting(odds, windows.active, MOST)
    told = 1 / (1 + np.exp(-(odds + found)))
    # The delta method on the logarithm of told by happened: each recipient's part in both sums.
    told_of, happened_of = (np.bincount(windows.recipient, each.sum(1)) for each in (told, windows.active))
    part = told_of / told_of.sum() - happened_of / happened_of.sum()
    return Fitted(found, float(np.sqrt((part**2).sum())))


def closed_lately(at: np.ndarray, slots: int, until: int) -> np.ndarray:
    """Which windows of visits at UTC hours `at` closed in the last `DAYS` before `until`, bool (n,)."""
    return np.asarray((at + GUARD + slots <= until) & (at >= until - DAYS * 24 - slots))


def log_odds(model: HourModel, windows: Windows) -> np.ndarray:
    """The log-odds of being active that a model tells of each hour, float64 (n, k)."""
    tier = model.tier_of(windows.histories, np.ones(len(windows), np.bool_))
    scores = model.scores(windows.histories, tier, windows.hours, windows.local)
    chances = model.probabilities(windows.histories, tier, windows.at, scores)
    return np.asarray(np.log(np.maximum(chances, 1e-9)) - np.log1p(-np.minimum(chances, 1 - 1e-9)))


def fitting(log_odds: np.ndarray, active: np.ndarray, most: float) -> float:
    """What to add to log-odds so that as many hours are active as are expected, at most `most` either way.

    Newton's method, and halves where it would leave what is known to hold the answer.
    """
    low, high, at, wanted = -most, most, 0.0, active.sum()
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(-(log_odds + at)))
        excess = expected.sum() - wanted
        low, high = (at, high) if excess < 0 else (low, at)
        slope = (expected * (1 - expected)).sum()
        step = at - excess / slope if slope > 0 else high + most
        former, at = at, step if low <= step <= high else (low + high) / 2
        if abs(at - former) < _CLOSE:
            break
    return at
