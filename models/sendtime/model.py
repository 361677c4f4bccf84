"""The model that serves: scores of hours, and the choice of one of those that the gates leave."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

import numpy as np

from models import zones
from models.sendtime.histories import LAGS, OF_HOURS, TERMS, Histories, lags, levels, terms, trust
from models.sendtime.shares import Prior, log_shares
from schemas.policy import BUILT_IN, SendTime
from schemas.profile import WEEK_HOURS

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
class Question:
    """n recipients for each of whom an hour is to be chosen among k candidates.

    Parameters
    ----------
    histories
        What is known of them.
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

    histories: Histories
    known: np.ndarray
    drawn: np.ndarray
    now: np.ndarray
    hours: np.ndarray
    local: np.ndarray
    allowed: np.ndarray
    draw: np.ndarray

    def picked(self, which: np.ndarray) -> "Question":
        """For some of the recipients, by number."""
        return Question(
            self.histories.picked(which),
            self.known[which],
            self.drawn[which],
            self.now[which],
            self.hours[which],
            self.local[which],
            self.allowed[which],
            self.draw[which],
        )


@dataclass(frozen=True)
class _Parts:
    """What scores of n recipients' k hours are made of, by any tier: all are (n, k) but `trust`, (n,)."""

    day: np.ndarray
    week: np.ndarray
    everybody: np.ndarray
    lag: np.ndarray
    trust: np.ndarray

    @classmethod
    def of(cls, histories: Histories, hours: np.ndarray, local: np.ndarray, prior: Prior) -> Self:
        n, group = histories.active_hours, prior.group_of(histories.zone)
        slot = zones.week_slot(local)
        day, week = log_shares(histories.active, n, group, slot, prior)
        everybody = prior.log_week.take((group * WEEK_HOURS)[:, None] + slot)
        return cls(day, week, everybody, lags(histories, hours), trust(n))

    def picked(self, which: np.ndarray) -> "_Parts":
        """Of some of the recipients, by number."""
        return _Parts(*(values[which] for values in vars(self).values()))


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
        weights[_PRIOR, _EVERYBODY] = weights[_RECIPIENT, _OWN_WEEK] = 1
        weights[_THIN, _EVERYBODY] = policy.temperature  # so that thin ones too are spread as the prior is
        plain = np.tile([0.0, 1.0, 1.0, 0.0], (len(TIERS), 1))
        plain[_THIN, 1] /= policy.temperature
        lag = np.zeros((len(TIERS), LAGS + 1))
        return cls(
            BUILT_IN, prior, weights, lag, plain, policy.thin_history, policy.temperature, policy.floor
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

    def shifted(self, log_odds: float) -> "HourModel":
        """The same model with something added to the log-odds that it tells."""
        return replace(self, calibration=self.calibration + np.array([log_odds, 0.0, 0.0, 0.0]))

    def tier_of(self, histories: Histories, known: np.ndarray) -> np.ndarray:
        """Tier of n recipients, int64 (n,); `known` is bool (n,): of whom anything may be known."""
        hours = histories.active_hours
        tier = np.where(hours < self.thin, _THIN, _RECIPIENT)
        return np.where(known & (hours > 0), tier, _PRIOR)

    def scores(
        self, histories: Histories, tier: np.ndarray, hours: np.ndarray, local: np.ndarray
    ) -> np.ndarray:
        """Scores of candidate hours, int64 (n, k), in `QUANTUM` of a logit; only their differences matter.

        `hours` are UTC hours since 1970, `local` the recipients' local ones, int64 (n, k).
        """
        return self._scores(_Parts.of(histories, hours, local, self.prior), tier)

    def _scores(self, parts: "_Parts", tier: np.ndarray) -> np.ndarray:
        of_day, of_week, of_trust, of_prior = self.weights[tier].T
        slope = of_week + of_trust * parts.trust
        score = of_day[:, None] * parts.day
        score += slope[:, None] * parts.week
        score += of_prior[:, None] * parts.everybody
        score += self.lag.take((tier * (LAGS + 1))[:, None] + parts.lag)
        score *= 1 / QUANTUM
        return np.asarray(np.rint(score, out=score).astype(np.int64))

    def probabilities(
        self, histories: Histories, tier: np.ndarray, now: np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        """Probability of being active in an hour of that score, (n, k); `now` are UTC hours, int64 (n,)."""
        return self._told(tier[:, None], levels(histories, now)[:, None], scores)

    def _told(self, tier: np.ndarray, level: np.ndarray, scores: np.ndarray) -> np.ndarray:
        constant, slope, of_rate, of_number = np.moveaxis(self.calibration[tier], -1, 0)
        told = constant + of_rate * level[..., 0] + of_number * level[..., 1] + slope * (scores * QUANTUM)
        told = 1 / (1 + np.exp(-told))
        return np.asarray(np.rint(told / _PROBABILITY_QUANTUM) * _PROBABILITY_QUANTUM)

    def choose(self, asked: Question) -> Chosen:
        """Choose one allowed candidate hour for each recipient."""
        histories, now, hours, local = asked.histories, asked.now, asked.hours, asked.local
        allowed, of = asked.allowed, self.tier_of(histories, asked.known)
        parts = _Parts.of(histories, hours, local, self.prior)
        scores = self._scores(parts, of)
        rows = np.arange(len(scores))
        masked = np.where(allowed, scores, _LEAST)
        likeliest = masked.argmax(1)
        expected = scores[rows, likeliest]
        tier = np.where(asked.drawn, _PRIOR, of)
        again = np.flatnonzero(tier != of)
        if len(again):
            scores[again] = self._scores(parts.picked(again), tier[again])
            masked[again] = np.where(allowed[again], scores[again], _LEAST)
        slot, propensity = self._drawn(masked, allowed, tier, asked.draw)
        best, score = scores.argmax(1), scores[rows, slot]
        masked[rows, slot] = _LEAST
        second = masked.argmax(1)
        told = np.stack([score, scores[rows, second], scores[rows, best], expected], axis=1)
        by = np.stack([tier, tier, tier, of], axis=1)
        score, second_score, best_score, expected = self._told(by, levels(histories, now)[:, None], told).T
        only = masked[rows, second] == _LEAST
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

    def terms_of(self, asked: Question, tier: np.ndarray, slot: np.ndarray) -> dict[str, np.ndarray]:
        """How far each kind of term puts a slot (n,) above the mean of the allowed hours, logits, by kind."""
        found = terms(asked.histories, asked.hours, asked.local, self.prior)[..., :OF_HOURS]
        found *= self.weights[tier][:, None]
        each = {
            "own hours": found[..., :_EVERYBODY].sum(-1),
            "everybody's hours": found[..., _EVERYBODY],
            "time since the last activity": self.lag[tier[:, None], lags(asked.histories, asked.hours)],
        }
        rows, count = np.arange(len(slot)), asked.allowed.sum(1)
        above = {
            name: values[rows, slot] - np.where(asked.allowed, values, 0).sum(1) / count
            for name, values in each.items()
        }
        return {name: np.rint(values / QUANTUM) * QUANTUM for name, values in above.items()}

    def chance_of(self, asked: Question, slot: np.ndarray) -> np.ndarray:
        """With which probability slots (n,) would be drawn, float64 (n,)."""
        tier = np.where(asked.drawn, _PRIOR, self.tier_of(asked.histories, asked.known))
        scores = self.scores(asked.histories, tier, asked.hours, asked.local)
        return np.asarray(self.chances(scores, asked.allowed, tier)[np.arange(len(slot)), slot])

    def chances(self, scores: np.ndarray, allowed: np.ndarray, tier: np.ndarray) -> np.ndarray:
        """Probability with which each hour is drawn, float64 (n, k); the sum of each row is 1."""
        weights = self._lots(np.where(allowed, scores, _LEAST), allowed, tier)
        drawn = weights / weights.sum(1, keepdims=True)
        return np.asarray((1 - self.floor) * drawn + self.floor * (allowed / allowed.sum(1, keepdims=True)))

    def _drawn(
        self, masked: np.ndarray, allowed: np.ndarray, tier: np.ndarray, draw: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The hours drawn, and with which probability each was."""
        weights, count = self._lots(masked, allowed, tier), allowed.sum(1)
        rows, even = np.arange(len(draw)), draw < self.floor
        running = np.cumsum(weights, axis=1)
        total = running[:, -1].copy()
        share = np.where(even, draw / (self.floor or 1), (draw - self.floor) / ((1 - self.floor) or 1))
        running[even] = np.cumsum(allowed[even], axis=1)
        hit = running > (share * running[:, -1])[:, None]
        slot = hit.argmax(1)
        beyond = np.flatnonzero(~hit[rows, slot])  # a draw of nearly 1 may round up to the total
        if len(beyond):
            slot[beyond] = (running[beyond] == running[beyond, -1:]).argmax(1)
        chance = (1 - self.floor) * (weights[rows, slot] / total) + self.floor / count
        return slot, chance

    def _lots(self, scores: np.ndarray, allowed: np.ndarray, tier: np.ndarray) -> np.ndarray:
        """Whole-number weights by which hours are drawn, int64 (n, k): softmax at the tier's temperature.

        Scores are those of the allowed hours, `_LEAST` elsewhere. Of whom nothing is known, in proportion to
        the prior: the best hour for all would pile them up.
        """
        last = len(self._weights) - 1
        behind = scores.max(1, keepdims=True) - np.maximum(scores, _LOW)
        of_prior = np.flatnonzero(tier == _PRIOR)
        if len(of_prior):
            behind[of_prior] = np.rint(behind[of_prior] * self.temperature)
        lots = self._weights.take(np.minimum(behind, last, out=behind))
        lots *= allowed
        return np.asarray(lots)

    @cached_property
    def _weights(self) -> np.ndarray:
        """Weight of an hour by how far it is behind the best, in quanta; the last is 0."""
        reach = int(np.ceil(np.log(2 * _HEAVIEST) * self.temperature / QUANTUM)) + 1
        behind = np.arange(reach + 1) * QUANTUM / self.temperature
        return np.asarray(np.rint(_HEAVIEST * np.exp(-behind)).astype(np.int64))


_LEAST: Final = np.iinfo(np.int64).min
_LOW: Final = -(1 << 40)  # below all scores, and far from where differences overflow
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
