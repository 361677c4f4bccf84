"""Send time: which of the allowed hours, from a recipient's empirical-Bayes hour-of-week profile.

Source: the usual shrinkage of an individual histogram to its hour-of-day profile and that to a prior,
each smoothed over neighbouring hours with the kernel [1/4, 1/2, 1/4].
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from models import zones
from schemas.policy import SendTime
from schemas.profile import WEIGHT_ONE

CANDIDATES: Final = 24
TIERS: Final = ("prior", "recipient")


@dataclass(frozen=True)
class Chosen:
    """Answer for n recipients; indexes are columns of the candidates.

    `runner_up` is -1 where only one candidate was allowed. `tier` indexes `TIERS`. `propensity` is the
    probability with which the model chose this hour. `best` is the best of all candidates, allowed or not;
    `expected` the best score of the allowed ones by what is known of the recipient, drawn or not.
    """

    slot: np.ndarray
    score: np.ndarray
    runner_up: np.ndarray
    runner_up_score: np.ndarray
    tier: np.ndarray
    propensity: np.ndarray
    best: np.ndarray
    best_score: np.ndarray
    expected: np.ndarray


class SendTimeModel(Protocol):
    """What DECIDE asks of a model; the trained model answers the same call."""

    def choose(
        self,
        active: np.ndarray,
        known: np.ndarray,
        drawn: np.ndarray,
        local: np.ndarray,
        allowed: np.ndarray,
        draw: np.ndarray,
    ) -> Chosen:
        """Choose one allowed candidate hour for each recipient.

        Parameters
        ----------
        active
            Hour-of-week weights in 1/256, u2 or int64, shape (n, 168).
        known
            bool, shape (n,): of whom something may be known.
        drawn
            bool, shape (n,): whose hour is drawn from the prior, whatever is known of them.
        local
            Local hours since 1970 of the candidates, int64, shape (n, k).
        allowed
            bool, shape (n, k); every row has at least one True.
        draw
            Uniform in [0, 1), float64, shape (n,); seeded by the decision id, so that replays agree.
        """
        ...


@dataclass(frozen=True)
class HourOfWeekProfile:
    """The empirical-Bayes profile; recipients with thin history are drawn from the prior."""

    parameters: SendTime

    def choose(
        self,
        active: np.ndarray,
        known: np.ndarray,
        drawn: np.ndarray,
        local: np.ndarray,
        allowed: np.ndarray,
        draw: np.ndarray,
    ) -> Chosen:
        """See `SendTimeModel.choose`.

        Every float operation is element by element, in the order written in docs/decisions.md, so that
        the reference gives the same bits.
        """
        p = self.parameters
        weights = active.astype(np.int64)
        hours = weights.sum(1) / WEIGHT_ONE
        hour, weekday = local % 24, zones.week_slot(local) // 24
        prior = np.array(p.prior_hours)[hour] * np.array(p.prior_weekdays)[weekday]
        posterior = self._posterior(weights, hours[:, None], local, hour, weekday)
        unknown = ~known | (hours < p.thin_history)
        expected = np.where(unknown[:, None], prior, posterior)
        thin = drawn | unknown
        of_all = np.where(thin[:, None], prior, posterior)
        score = np.where(allowed, of_all, -1.0)

        rows = np.arange(len(score))
        running = np.cumsum(np.where(allowed, prior, 0.0), axis=1)
        total = running[:, -1]
        hit = (running > (draw * total)[:, None]) & allowed
        last = allowed.shape[1] - 1 - np.argmax(allowed[:, ::-1], axis=1)
        lot = np.where(
            hit.any(1), np.argmax(hit, axis=1), last
        )  # a draw of nearly 1 may round up to the total
        slot = np.where(thin, lot, np.argmax(score, axis=1))
        chosen = score[rows, slot]
        others = score.copy()
        others[rows, slot] = -1.0
        second = np.argmax(others, axis=1)
        second_score = others[rows, second]
        return Chosen(
            slot=slot,
            score=chosen,
            runner_up=np.where(second_score >= 0, second, -1),
            runner_up_score=second_score,
            tier=np.where(thin, 0, 1),
            propensity=np.where(thin, chosen / total, 1.0),
            best=np.argmax(of_all, axis=1),
            best_score=of_all.max(1),
            expected=np.where(allowed, expected, -1.0).max(1),
        )

    def _posterior(
        self, weights: np.ndarray, hours: np.ndarray, local: np.ndarray, hour: np.ndarray, weekday: np.ndarray
    ) -> np.ndarray:
        p = self.parameters
        by_day = weights.reshape(len(weights), 7, 24).sum(1)
        day = _smooth(by_day, hour)
        week = _smooth(weights, zones.week_slot(local))
        day_share = (day / 1024 + p.kappa_day * np.array(p.prior_hours)[hour]) / (hours + p.kappa_day)
        prior = p.kappa_week * (day_share * np.array(p.prior_weekdays)[weekday])
        return np.asarray((week / 1024 + prior) / (hours + p.kappa_week))


def _smooth(counts: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Circular kernel [1, 2, 1] of integer counts (n, m) at columns (n, k): integers, four times the mean."""
    m = counts.shape[1]

    def take(columns: np.ndarray) -> np.ndarray:
        return np.take_along_axis(counts, columns % m, axis=1)

    return np.asarray(take(at - 1) + 2 * take(at) + take(at + 1))
