"""The model that serves: scores of hours, and the choice of one of those that the gates leave."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np

from models import zones
from models.sendtime.histories import LAGS, OF_HOURS, TERMS, Histories, lags, levels, trust
from models.sendtime.shares import Prior, active_hours, log_shares
from schemas.policy import SendTime

TIERS: Final = ("prior", "thin", "recipient")
_PRIOR, _THIN, _RECIPIENT = range(len(TIERS))
_OWN_WEEK, _EVERYBODY = (TERMS.index(name) for name in ("own hours of the week", "everybody's hours"))
SCHEMA: Final = 1  # of the arrays: a change of their meaning is a new number

# Scores are whole numbers of this part of a logit, so that all that is chosen by them is exact: the same on
# any machine, in batches of any size, and in the reference.
QUANTUM: Final = 1 / 4096
_PROBABILITY_QUANTUM: Final = 2.0**-20
_HEAVIEST: Final = 2**30


class ModelRefused(ValueError):
    """Arrays that are no model of this program; the text says what is wrong."""


@dataclass(frozen=True)
class Chosen:
    """Answer for n recipients; indexes are columns of the candidates.

    Scores are the probabilities that the recipient is active in that hour. `runner_up` is -1 where only one
    candidate was allowed. `tier` indexes `TIERS`. `propensity` is the probability with which this hour was
    drawn. `best` is the best of all candidates, allowed or not; `likeliest` of the allowed ones by what is
    known of the recipient, however the hour was drawn, and `expected` its score.
    """

    slot: np.ndarray
    score: np.ndarray
    runner_up: np.ndarray
    runner_up_score: np.ndarray
    tier: np.ndarray
    propensity: np.ndarray
    best: np.ndarray
    best_score: np.ndarray
    likeliest: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True)
class HourModel:
    """A version of the model.

    By tier, of whom nothing, little, or enough is known: `weights` of the `TERMS` of hours (3, 4), `lag` the
    sum of the others by hours since the last activity (3, LAGS + 1), and `calibration` (3, 4), which turns a
    score into the log-odds of being active: a constant, and the factors of the score and of the two `levels`.
    Recipients with fewer than `thin` active hours are thin. An hour is drawn with `temperature`, or, with the
    probability `floor`, evenly.
    """

    version: str
    prior: Prior
    weights: np.ndarray
    lag: np.ndarray
    calibration: np.ndarray
    thin: float
    temperature: float
    floor: float

    @classmethod
    def built_in(cls, policy: SendTime) -> Self:
        """The profile alone, with a policy's prior: what serves until a trained model is promoted."""
        prior = Prior(
            np.array([policy.prior_hours]),
            np.array([policy.prior_weekdays]),
            np.array([], "S32"),
            policy.kappa_day,
            policy.kappa_week,
        )
        weights = np.zeros((len(TIERS), OF_HOURS))
        weights[[_PRIOR, _THIN], _EVERYBODY] = weights[_RECIPIENT, _OWN_WEEK] = 1
        plain = np.tile([0.0, 1.0, 1.0, 0.0], (len(TIERS), 1))
        lag = np.zeros((len(TIERS), LAGS + 1))
        return cls(
            "built-in", prior, weights, lag, plain, policy.thin_history, policy.temperature, policy.floor
        )

    @classmethod
    def of(cls, version: str, arrays: Mapping[str, np.ndarray]) -> Self:
        """The model that `arrays` describe. Raises `ModelRefused`."""
        groups = len(arrays["prior_hours"]) if "prior_hours" in arrays else 0
        for name, (kind, shape) in _shapes(groups).items():
            found = arrays.get(name)
            if found is None or found.dtype.kind != kind or found.shape != shape:
                told = "nothing" if found is None else f"{found.dtype} {found.shape}"
                raise ModelRefused(f"{name}: expected {kind} {shape}, found {told}")
            if kind == "f" and not np.isfinite(found).all():
                raise ModelRefused(f"{name}: has values that are no numbers")
        unknown = sorted(set(arrays) - set(_shapes(groups)))
        if unknown:
            raise ModelRefused(f"unknown arrays: {', '.join(unknown)}")
        for name in ("prior_hours", "prior_weekdays"):
            if arrays[name].min() <= 0 or np.abs(arrays[name].sum(1) - 1).max() > 1e-6:
                raise ModelRefused(f"{name}: shares must be positive and sum to 1")
        names = arrays["zones"]
        if (names[1:] <= names[:-1]).any():
            raise ModelRefused("zones: must be sorted and each there once")
        numbers = {name: float(arrays[name]) for name in _NUMBERS}
        if min(numbers["kappa_day"], numbers["kappa_week"], numbers["temperature"]) <= 0:
            raise ModelRefused("kappa_day, kappa_week and temperature must be positive")
        if not 0 <= numbers["floor"] <= 1 or numbers["thin"] < 0:
            raise ModelRefused("floor must be in [0, 1], thin not negative")
        prior = Prior(
            arrays["prior_hours"],
            arrays["prior_weekdays"],
            names,
            numbers.pop("kappa_day"),
            numbers.pop("kappa_week"),
        )
        return cls(version, prior, arrays["weights"], arrays["lag"], arrays["calibration"], **numbers)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `of` makes the same model from."""
        return {
            "prior_hours": self.prior.hours,
            "prior_weekdays": self.prior.weekdays,
            "zones": self.prior.zones.astype("S32"),
            "weights": self.weights,
            "lag": self.lag,
            "calibration": self.calibration,
            "kappa_day": np.array(self.prior.kappa_day),
            "kappa_week": np.array(self.prior.kappa_week),
            **{name: np.array(getattr(self, name)) for name in ("thin", "temperature", "floor")},
        }

    def tier_of(self, histories: Histories, known: np.ndarray) -> np.ndarray:
        """Tier of n recipients, int64 (n,); `known` is bool (n,): of whom anything may be known."""
        hours = active_hours(histories.active)
        tier = np.where(hours < self.thin, _THIN, _RECIPIENT)
        return np.where(known & (hours > 0), tier, _PRIOR)

    def scores(
        self, histories: Histories, tier: np.ndarray, hours: np.ndarray, local: np.ndarray
    ) -> np.ndarray:
        """Scores of candidate hours, int64 (n, k), in `QUANTUM` of a logit; only their differences matter.

        `hours` are UTC hours since 1970, `local` the recipients' local ones, int64 (n, k).
        """
        n = active_hours(histories.active)
        group = self.prior.group_of(histories.zone)
        day, week = log_shares(histories.active, n, group, local, self.prior)
        of_day, of_week, of_trust, of_prior = self.weights[tier].T
        slope = of_week + of_trust * trust(n)
        everybody = self.prior.log_week[group[:, None], zones.week_slot(local)]
        score = of_day[:, None] * day + slope[:, None] * week + of_prior[:, None] * everybody
        score += self.lag[tier[:, None], lags(histories, hours)]
        return np.asarray(np.rint(score / QUANTUM).astype(np.int64))

    def probabilities(
        self, histories: Histories, tier: np.ndarray, now: np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        """Probability of being active in an hour of that score, (n, k); `now` are UTC hours, int64 (n,)."""
        constant, slope, of_rate, of_number = self.calibration[tier].T
        rate, number = levels(histories, now).T
        level = constant + of_rate * rate + of_number * number
        odds = level[:, None] + slope[:, None] * (scores * QUANTUM)
        return np.asarray(np.rint(1 / (1 + np.exp(-odds)) / _PROBABILITY_QUANTUM) * _PROBABILITY_QUANTUM)

    def choose(
        self,
        histories: Histories,
        known: np.ndarray,
        drawn: np.ndarray,
        now: np.ndarray,
        hours: np.ndarray,
        local: np.ndarray,
        allowed: np.ndarray,
        draw: np.ndarray,
    ) -> Chosen:
        """Choose one allowed candidate hour for each recipient.

        Parameters
        ----------
        known
            bool, shape (n,): of whom something may be known.
        drawn
            bool, shape (n,): whose hour is drawn from the prior, whatever is known of them.
        now
            UTC hours since 1970, int64, shape (n,).
        hours, local
            UTC and local hours since 1970 of the candidates, int64, shape (n, k).
        allowed
            bool, shape (n, k); every row has at least one True.
        draw
            Uniform in [0, 1), float64, shape (n,); seeded by the decision id, so that replays agree.
        """
        of = self.tier_of(histories, known)
        scores = self.scores(histories, of, hours, local)
        rows = np.arange(len(scores))
        likeliest = np.argmax(np.where(allowed, scores, _LEAST), axis=1)
        expected = self.probabilities(histories, of, now, scores[rows, likeliest][:, None])[:, 0]
        tier = np.where(drawn, _PRIOR, of)
        again = np.flatnonzero(tier != of)
        if len(again):
            scores[again] = self.scores(histories.picked(again), tier[again], hours[again], local[again])
        slot, propensity = self._drawn(scores, allowed, tier, draw)
        others = np.where(allowed, scores, _LEAST)
        others[rows, slot] = _LEAST
        second, best = np.argmax(others, axis=1), np.argmax(scores, axis=1)
        told = scores[rows[:, None], np.stack([slot, second, best], axis=1)]
        score, second_score, best_score = self.probabilities(histories, tier, now, told).T
        only = others[rows, second] == _LEAST
        return Chosen(
            slot=slot,
            score=score,
            runner_up=np.where(only, -1, second),
            runner_up_score=second_score,
            tier=tier,
            propensity=propensity,
            best=best,
            best_score=best_score,
            likeliest=likeliest,
            expected=expected,
        )

    def chances(self, scores: np.ndarray, allowed: np.ndarray, tier: np.ndarray) -> np.ndarray:
        """Probability with which each hour is drawn, float64 (n, k); the sum of each row is 1."""
        weights = self._lots(scores, allowed, tier)
        drawn = weights / weights.sum(1, keepdims=True)
        return np.asarray((1 - self.floor) * drawn + self.floor * (allowed / allowed.sum(1, keepdims=True)))

    def _drawn(
        self, scores: np.ndarray, allowed: np.ndarray, tier: np.ndarray, draw: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The hours drawn, and with which probability each was."""
        weights, count = self._lots(scores, allowed, tier), allowed.sum(1)
        even = draw < self.floor
        lots = np.where(even[:, None], allowed, weights)
        total = lots.sum(1)
        share = np.where(even, draw / (self.floor or 1), (draw - self.floor) / ((1 - self.floor) or 1))
        running = np.cumsum(lots, axis=1)
        hit = running > (share * total)[:, None]
        last = allowed.shape[1] - 1 - np.argmax(lots[:, ::-1] > 0, axis=1)
        slot = np.where(
            hit.any(1), np.argmax(hit, axis=1), last
        )  # a draw of nearly 1 may round up to the total
        rows = np.arange(len(slot))
        chance = (1 - self.floor) * (weights[rows, slot] / weights.sum(1)) + self.floor / count
        return slot, chance

    def _lots(self, scores: np.ndarray, allowed: np.ndarray, tier: np.ndarray) -> np.ndarray:
        """Whole-number weights by which hours are drawn, int64 (n, k): softmax at the tier's temperature.

        Of whom nothing is known, in proportion to the prior: the best hour for all would pile them up.
        """
        best = np.where(allowed, scores, _LEAST).max(1)
        behind = best[:, None] - scores
        of_prior = tier == _PRIOR
        behind[of_prior] = np.rint(behind[of_prior] * self.temperature)
        return np.where(allowed, self._weights[np.clip(behind, 0, len(self._weights) - 1)], 0)

    @cached_property
    def _weights(self) -> np.ndarray:
        """Weight of an hour by how far it is behind the best, in quanta; the last is 0."""
        reach = int(np.ceil(np.log(2 * _HEAVIEST) * self.temperature / QUANTUM)) + 1
        behind = np.arange(reach + 1) * QUANTUM / self.temperature
        return np.asarray(np.rint(_HEAVIEST * np.exp(-behind)).astype(np.int64))


_LEAST: Final = np.iinfo(np.int64).min
_NUMBERS: Final = ("kappa_day", "kappa_week", "thin", "temperature", "floor")


def _shapes(groups: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    tiers = len(TIERS)
    return {
        "prior_hours": ("f", (groups, 24)),
        "prior_weekdays": ("f", (groups, 7)),
        "zones": ("S", (max(groups - 1, 0),)),
        "weights": ("f", (tiers, OF_HOURS)),
        "lag": ("f", (tiers, LAGS + 1)),
        "calibration": ("f", (tiers, 4)),
        **dict.fromkeys(_NUMBERS, ("f", ())),
    }
