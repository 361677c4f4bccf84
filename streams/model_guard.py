"""The guard of a canary: a model on trial whose probabilities go wrong is taken back by itself."""

from dataclasses import dataclass
from math import hypot, log, sqrt
from typing import Final

import numpy as np

from streams.model_trail import Sends

_FEWEST: Final = 200  # sends of a canary: below, nothing is judged
_TOLERATED: Final = 0.22  # of the logarithm of told by happened: a quarter too much or too little
_SURE: Final = 2.58  # standard errors; asked over and over, a canary that is right must not be taken back


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
