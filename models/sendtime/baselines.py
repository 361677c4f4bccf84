"""Simple rules that a send-time model must beat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from models import zones
from models.sendtime.activity import Windows
from models.sendtime.shares import DAY_HOURS, Prior, active_hours, log_shares
from schemas.profile import WEEK_HOURS

RULES: Final = (
    "uniform",
    "send_now",
    "global_hour",
    "last_hour",
    "mode_hour",
    "eb_hour_of_day",
    "eb_hour_of_week",
)


@dataclass(frozen=True)
class Ranking:
    """How a rule or model ranks the k hours of n windows, the higher the better, float64 (n, k).

    `law` is the probability that each hour is the first in which the recipient comes back, given that they
    do; None where a rule says nothing of the kind.
    """

    values: np.ndarray
    law: np.ndarray | None


def rankings(windows: Windows, prior: Prior) -> Mapping[str, Ranking]:
    """Rank the hours of windows by each of `RULES`; group 0 of the prior is everybody.

    Over a week, the global hour is one of the week; the last and the mode hour are of the day or of the week,
    as the window is long. Of hours that a rule holds equal, `mode_hour` prefers those next to active ones,
    then the global hour, and any rule the earlier.
    """
    n, k = windows.hours.shape
    slot = zones.week_slot(windows.local)
    day, week = log_shares(
        windows.histories.active,
        active_hours(windows.histories.active),
        np.zeros(n, np.int64),
        slot,
        prior,
    )
    flat = np.zeros((n, k))
    of_all = np.exp(prior.log_week[0])[slot] if k > DAY_HOURS else prior.hours[0][slot % DAY_HOURS]
    cycle = WEEK_HOURS if k > DAY_HOURS else DAY_HOURS
    counts = windows.histories.active.astype(np.int64).reshape(n, WEEK_HOURS // cycle, cycle).sum(1)
    near = counts + 1e-6 * (np.roll(counts, 1, axis=1) + np.roll(counts, -1, axis=1))
    last = (windows.hours - windows.at[:, None]) % cycle == 0
    values = {
        "uniform": Ranking(flat, np.full((n, k), 1 / k)),
        "send_now": Ranking(np.broadcast_to(-np.arange(k, dtype=np.float64), (n, k)), None),
        "global_hour": Ranking(of_all, _law(of_all)),
        "last_hour": Ranking(last + 1e-9 * of_all, None),
        "mode_hour": Ranking(near[np.arange(n)[:, None], slot % cycle] + 1e-9 * of_all, None),
        "eb_hour_of_day": Ranking(day, _law(np.exp(day))),
        "eb_hour_of_week": Ranking(week, _law(np.exp(week))),
    }
    return {name: values[name] for name in RULES}


def first_law(chances: np.ndarray) -> np.ndarray:
    """Probability that each of k hours is the first active one, given that one is; each hour's own (n, k)."""
    before = np.cumprod(1 - chances[:, :-1], axis=1)
    return _law(chances * np.concatenate([np.ones((len(chances), 1)), before], axis=1))


def _law(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / values.sum(1, keepdims=True))
