"""Empirical-Bayes profiles: which share of a recipient's active hours falls on an hour of the day and week.

Source: the usual shrinkage of an individual histogram to its hour-of-day profile, and of that to a prior,
each smoothed over neighbouring hours with the kernel [1/4, 1/2, 1/4].
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from schemas.profile import WEEK_HOURS, WEIGHT_ONE

DAY_HOURS: Final = 24
_KERNEL: Final = 1 / (4 * WEIGHT_ONE)  # smoothed integers are four times the mean, weights are in 1/256
_WEEKDAY, _HOUR = np.divmod(np.arange(WEEK_HOURS), DAY_HOURS)
_FEW: Final = WEEK_HOURS // 3  # hours of which it is cheaper to smooth each one asked than all the week


@dataclass(frozen=True)
class Prior:
    """When people are active of whom nothing else is known, by group of zones; group 0 is everybody.

    `hours` (g, 24) and `weekdays` (g, 7), Monday first, are positive shares, each row with the sum 1.
    `zones`, S32 (g - 1,), sorted, are the zones that have a group of their own. `kappa_day` is how many
    active hours the prior weighs against a recipient's hours of the day, `kappa_week` what that result weighs
    against those of the week.
    """

    hours: np.ndarray
    weekdays: np.ndarray
    zones: np.ndarray
    kappa_day: float
    kappa_week: float

    def group_of(self, zone: np.ndarray) -> np.ndarray:
        """Group of each zone, S32 (n,): int64 (n,)."""
        if not len(self.zones):
            return np.zeros(len(zone), np.int64)
        place = np.minimum(np.searchsorted(self.zones, zone), len(self.zones) - 1)
        return np.where(self.zones[place] == zone, place + 1, 0)

    @cached_property
    def log_week(self) -> np.ndarray:
        """Logarithm of the share of each hour of the week, an even one is 0, float64 (g, 168)."""
        shares = self.weekdays[:, :, None] * self.hours[:, None, :]
        return np.asarray(np.log(WEEK_HOURS * shares.reshape(-1, WEEK_HOURS)))


def active_hours(active: np.ndarray) -> np.ndarray:
    """How many active hours weights in 1/256 stand for, float64 (n,); old ones count less."""
    return np.asarray(active.sum(1, dtype=np.int64) / WEIGHT_ONE)


def log_shares(
    active: np.ndarray, hours: np.ndarray, group: np.ndarray, slot: np.ndarray, prior: Prior
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of a recipient's shares by hour of day and of week; an even share is 0.

    Every float operation is element by element, in the order written in docs/decisions.md, so that neither
    the size of a batch nor the reference gives other bits.

    Parameters
    ----------
    active
        Hour-of-week weights in 1/256, integers (n, 168).
    hours
        `active_hours` of them, (n,).
    group
        Groups of the prior, int64 (n,).
    slot
        Local hours of the week, as `zones.week_slot` gives them, int64 (n, k).

    Returns
    -------
    Two arrays, float64 (n, k).
    """
    n = len(active)
    day = _smoothed(active.reshape(n, 7, DAY_HOURS).sum(1, dtype=np.int64))
    kappa = prior.kappa_day
    day_share = day * _KERNEL
    day_share += kappa * prior.hours[group]
    day_share /= (hours + kappa)[:, None]
    weekday, hour = _WEEKDAY.take(slot), _HOUR.take(slot)
    each = np.arange(n)[:, None]
    in_day, in_week = each * DAY_HOURS + hour, each * WEEK_HOURS
    of_week = prior.weekdays.take(group[:, None] * 7 + weekday)
    of_week *= day_share.take(in_day)
    of_week *= prior.kappa_week
    of_week += _week(active, slot, in_week) * _KERNEL
    of_week /= (hours + prior.kappa_week)[:, None]
    of_week *= WEEK_HOURS
    day_share *= DAY_HOURS
    return np.log(day_share, out=day_share).take(in_day), np.log(of_week, out=of_week)


def _week(active: np.ndarray, slot: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Smoothed weights at slots (n, k) of recipients, whose weeks begin at places (n, 1) of `active`."""
    if slot.shape[1] > _FEW:
        return np.asarray(_smoothed(active.astype(np.int64)).take(begins + slot))
    before = np.where(slot == 0, WEEK_HOURS - 1, slot - 1)
    after = np.where(slot == WEEK_HOURS - 1, 0, slot + 1)
    smoothed = 2 * active.take(begins + slot).astype(np.int64)
    smoothed += active.take(begins + before)
    smoothed += active.take(begins + after)
    return np.asarray(smoothed)


def _smoothed(counts: np.ndarray) -> np.ndarray:
    """Circular kernel [1, 2, 1] of integers (n, m), int64."""
    smoothed = 2 * counts
    smoothed[:, 1:] += counts[:, :-1]
    smoothed[:, :-1] += counts[:, 1:]
    smoothed[:, 0] += counts[:, -1]
    smoothed[:, -1] += counts[:, 0]
    return smoothed
