"""The guard of models in force: their intercepts, and a canary that goes astray all the same."""

import json
from dataclasses import dataclass
from math import hypot, log, sqrt
from typing import Final, Literal

import numpy as np

from models.sendtime import intercept
from models.sendtime.activity import Activity
from models.sendtime.model import HourModel
from streams.control import ModelIntercept
from streams.engine.control import Control, Deployed
from streams.model_trail import Sends

_FEWEST: Final = 200  # sends of a canary: below, nothing is judged
_TOLERATED: Final = 0.22  # of the logarithm of told by happened: a quarter too much or too little
_SURE: Final = 2.58  # standard errors; asked over and over, a canary that is right must not be taken back

ACTIVE: Final[tuple[int, Literal["any", "click"]]] = (1, "any")
_MOVED: Final = 0.05  # logits: an intercept that is less off than this is left alone,
_CLEARLY: Final = 2.0  # or than so many standard errors


@dataclass(frozen=True)
class Judged:
    """How the probabilities that a model told of the chosen hours go with what happened.

    `ratio` is their sum by how often it happened, `error` the standard error of its
    logarithm, over recipients; None where there are too few sends.
    """

    sends: int
    told: float
    happened: float
    ratio: float | None
    error: float | None

    @classmethod
    def of(cls, sends: Sends, what: str) -> "Judged":
        """Judge some sends; `what` is the column that their probabilities are of."""
        told, happened = sends["score"].astype(np.float64), sends[what].astype(np.float64)
        if len(told) < _FEWEST or not told.sum():
            return cls(len(told), float(told.sum()), float(happened.sum()), None, None)
        happened = happened + 0.5 / len(happened)  # so that none at all is judged too
        unit = sends["unit"]
        ratio = told.sum() / happened.sum()
        # The delta method on the logarithm: each recipient's part in both sums.
        part = np.bincount(unit, told) / told.sum() - np.bincount(unit, happened) / happened.sum()
        return cls(
            len(told),
            float(told.sum()),
            float(happened.sum()),
            float(ratio),
            sqrt(float((part**2).sum())),
        )


def breach(canary: Judged, champion: Judged) -> str:
    """Why a canary is to be taken back; empty if it may go on.

    It goes astray by more than a quarter, surely, and surely farther than the champion does on its own
    recipients: what leads both astray, a holiday say, is no fault of the canary.
    """
    if canary.ratio is None or canary.error is None:
        return ""
    astray = abs(log(canary.ratio))
    if astray - _SURE * canary.error <= _TOLERATED:
        return ""
    if champion.ratio is not None and champion.error is not None:
        farther = astray - abs(log(champion.ratio))
        if farther <= _SURE * hypot(canary.error, champion.error):
            return ""
    beside = "" if champion.ratio is None else f", the champion's {champion.ratio:.2f} times"
    told = f"the canary's probabilities of {canary.sends:,} sends are {canary.ratio:.2f} times what happened"
    return told + beside


def moved_intercept(
    model: HourModel, control: Control, activity: Activity, until: int
) -> ModelIntercept | None:
    """The intercept that a model, given without one, should have at the UTC hour `until`.

    None where the one in force still does, or too little is known.
    """
    found = intercept.online(model, activity, until)
    if found is None:
        return None
    moved = abs(found.log_odds - control.intercept_of(model.version))
    if moved < max(_MOVED, _CLEARLY * found.error):
        return None
    return ModelIntercept(model.version, round(found.log_odds, 3))


def rewarded(model: Deployed | None) -> tuple[int, Literal["any", "click"]]:
    """What a model's probabilities are of: within how many hours, and what; of a first head being active."""
    second = json.loads(model.card).get("second_head") if model is not None and model.card else None
    return ACTIVE if second is None else (second["hours"], second["reward"])
