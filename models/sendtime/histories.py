"""What a send-time model is told of recipients, and the terms that it weighs, in training and in serving."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from models import zones
from models.profile import HALF_LIFE_DAYS
from models.sendtime.shares import Prior, active_hours, log_shares

UNSEEN: Final = -(1 << 40)  # the hour of an activity that never was
LAGS: Final = 1008  # six weeks: what was longer ago is as long ago
TERMS: Final = (
    "own hours of the day",
    "own hours of the week",
    "own hours of the week, trusted",
    "everybody's hours",
    "time since the last activity",
    "just active",
)
OF_HOURS: Final = (
    4  # so many of them depend on the local hour, the others on the time since the last activity
)
_TRUSTED: Final = 20.0  # active hours at which a recipient's own hours get half of what trust can add
_JUST_NOW: Final = 3.0  # hours in which the pull of a visit falls to 1/e
_HALF_LIFE_H: Final = HALF_LIFE_DAYS * 24
_SHORTEST_H: Final = 7 * 24


@dataclass(frozen=True)
class Histories:
    """n recipients at a moment each.

    `active` are hour-of-week weights in 1/256, integers (n, 168); `last` and `first` the UTC hours of the
    latest and the earliest activity, int64 (n,), `UNSEEN` where there was none; `zone` names, S32 (n,).
    """

    active: np.ndarray
    last: np.ndarray
    first: np.ndarray
    zone: np.ndarray

    def __len__(self) -> int:
        """Return the number of recipients."""
        return len(self.active)

    @cached_property
    def active_hours(self) -> np.ndarray:
        """How many active hours are known of each, float64 (n,)."""
        return active_hours(self.active)

    def picked(self, which: np.ndarray) -> "Histories":
        """Some of them, by number or mask."""
        return Histories(self.active[which], self.last[which], self.first[which], self.zone[which])


def lag_terms() -> np.ndarray:
    """The two terms of the time since the last activity, for lags of 0 to `LAGS` hours, float64 (l, 2)."""
    lag = np.maximum(np.arange(LAGS + 1), 1)
    return np.stack([np.log(lag), np.exp(-lag / _JUST_NOW)], axis=1)


def lags(histories: Histories, hours: np.ndarray) -> np.ndarray:
    """Hours from the last activity to UTC hours (n, k), in [0, LAGS], int64."""
    lag = hours - histories.last[:, None]
    return np.asarray(np.minimum(np.maximum(lag, 0, out=lag), LAGS, out=lag))


def terms(histories: Histories, hours: np.ndarray, local: np.ndarray, prior: Prior) -> np.ndarray:
    """What distinguishes the hours of each recipient, by `TERMS`, float64 (n, k, 6).

    `hours` are the candidates' UTC hours since 1970, `local` their local ones, int64 (n, k).
    """
    n, group = histories.active_hours, prior.group_of(histories.zone)
    slot = zones.week_slot(local)
    day, week = log_shares(histories.active, n, group, slot, prior)
    everybody = prior.log_week[group[:, None], slot]
    of_hours = np.stack([day, week, trust(n)[:, None] * week, everybody], axis=-1)
    return np.concatenate([of_hours, lag_terms()[lags(histories, hours)]], axis=-1)


def trust(hours: np.ndarray) -> np.ndarray:
    """How far so many active hours are believed, in [0, 1)."""
    return np.asarray(hours / (hours + _TRUSTED))


def levels(histories: Histories, now: np.ndarray) -> np.ndarray:
    """What distinguishes recipients from each other at UTC hours `now` (n,), float64 (n, 2).

    The logarithms of the active hours per hour, and of the active hours and one.
    """
    n = histories.active_hours
    age = np.maximum(now - histories.first, 0) * (histories.first != UNSEEN)
    fade = np.log(2) / _HALF_LIFE_H
    observed = -np.expm1(-fade * age) / fade  # hours, faded as the weights were
    return np.stack([np.log((n + 1) / (observed + _SHORTEST_H)), np.log1p(n)], axis=1)
