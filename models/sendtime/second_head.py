"""The second head: how likely a message sent in an hour is rewarded, learnt from logged sends alone.

The first head tells when people are active; what is wanted is the hour in which a message does something. It
can be learnt only from sends whose hour was drawn with a known probability, each weighted by one over that
(clipped, so that a rare one does not outweigh all). It begins at the first head and stays close to it where
the sends say little, and it is used only where off-policy evaluation says that it wins.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from models import off_policy
from models.off_policy import Estimate, Log, Target
from models.sendtime.activity import TooFew
from models.sendtime.histories import OF_HOURS, lag_terms, levels, terms
from models.sendtime.model import QUANTUM, HourModel, Question
from models.sendtime.training import fitted

_FEWEST: Final = 300  # sends of a tier, and as many rewarded as below: else the first head stays
_FEWEST_REWARDED: Final = 30
_MOST_WEIGHT: Final = 20.0
_SHRINKAGE: Final = 0.1  # of what the second head may add to the first, by scikit-learn's C
_FREE: Final = 100.0  # scale of the first head's log-odds among the terms, so that they are not shrunk
_FOLDS: Final = 5


@dataclass(frozen=True)
class Sends:
    """n sends as the model was asked about them, the slots that were drawn, and what came of them.

    `slot` int64, `propensity`, `reward` (0 or 1) float64, `unit` the recipients' numbers, all (n,).
    """

    asked: Question
    slot: np.ndarray
    propensity: np.ndarray
    reward: np.ndarray
    unit: np.ndarray

    def __len__(self) -> int:
        """Return the number of sends."""
        return len(self.slot)

    def picked(self, which: np.ndarray) -> "Sends":
        """Some of them, by number."""
        return Sends(
            self.asked.picked(which),
            self.slot[which],
            self.propensity[which],
            self.reward[which],
            self.unit[which],
        )


def refined(model: HourModel, sends: Sends, tiers: Collection[int]) -> HourModel:
    """A model with the second head in these tiers; its version is as before. Raises `TooFew`."""
    of = model.tier_of(sends.asked.histories, sends.asked.known)
    weights, lag, calibration = model.weights.copy(), model.lag.copy(), model.calibration.copy()
    for tier in tiers:
        some = sends.picked(np.flatnonzero(of == tier))
        _refuse_few(some)
        constant, share, added = _fit(model, tier, some)
        before, slope, of_rate, of_number = model.calibration[tier]
        weights[tier] = share * slope * model.weights[tier] + added[:OF_HOURS]
        lag[tier] = share * slope * model.lag[tier] + lag_terms() @ added[OF_HOURS:]
        calibration[tier] = (constant + share * before, 1.0, share * of_rate, share * of_number)
    return replace(model, weights=weights, lag=lag, calibration=calibration)


def _refuse_few(sends: Sends) -> None:
    rewarded = int(sends.reward.sum())
    if len(sends) < _FEWEST or not _FEWEST_REWARDED <= rewarded <= len(sends) - _FEWEST_REWARDED:
        raise TooFew(
            f"{len(sends)} sends were logged with their hours, {rewarded} of them rewarded; at least "
            f"{_FEWEST} are needed, {_FEWEST_REWARDED} of them rewarded and as many not"
        )


def _fit(model: HourModel, tier: int, sends: Sends) -> tuple[float, float, np.ndarray]:
    """Log-odds of a reward: a constant, the factor of the first head's log-odds, and those of the terms."""
    asked, rows = sends.asked, np.arange(len(sends))
    at = asked.hours[rows, sends.slot][:, None], asked.local[rows, sends.slot][:, None]
    scores = model.scores(asked.histories, np.full(len(sends), tier), *at)[:, 0] * QUANTUM
    constant, slope, of_rate, of_number = model.calibration[tier]
    rate, number = levels(asked.histories, asked.now).T
    odds = constant + slope * scores + of_rate * rate + of_number * number
    found = terms(asked.histories, *at, model.prior)[:, 0]
    scale = found.std(0) + 1e-9
    columns = np.column_stack([odds * _FREE, (found - found.mean(0)) / scale])
    weight = np.minimum(1 / sends.propensity, _MOST_WEIGHT)
    made, factors = fitted(columns, sends.reward > 0, weight / weight.mean(), strength=_SHRINKAGE)
    added = factors[1:] / scale
    return made - float(added @ found.mean(0)), float(factors[0] * _FREE), added


def gain(model: HourModel, sends: Sends, tier: int) -> Estimate:
    """What the second head earns above the first in a tier, by SNIPS; each recipient's from sends of others.

    Raises `TooFew`.
    """
    some = sends.picked(np.flatnonzero(model.tier_of(sends.asked.histories, sends.asked.known) == tier))
    _refuse_few(some)
    folds = np.random.default_rng(0).integers(0, _FOLDS, int(some.unit.max()) + 1)[some.unit]
    first = model.chance_of(some.asked, some.slot)
    second = np.empty(len(some))
    for fold in range(_FOLDS):
        rest, mine = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        other = refined(model, some.picked(rest), [tier])
        second[mine] = other.chance_of(some.asked.picked(mine), some.slot[mine])
    log = Log(some.reward, some.propensity, some.unit)
    return off_policy.difference(log, Target(second), Target(first)).snips
