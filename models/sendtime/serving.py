"""Models in force together: one chooses, one is on trial, one is only asked."""

from dataclasses import dataclass, replace

import numpy as np

from models.sendtime.model import Chosen, HourModel, Question
from schemas.policy import BUILT_IN


@dataclass(frozen=True)
class Models:
    """The champion, a canary that chooses for a `share` of recipients, and a shadow by which nothing goes.

    `names` are the versions of all that ever had a role, in the order in which they got one: rows tell a
    model by its place there, from 1 on.
    """

    champion: HourModel
    canary: HourModel | None = None
    share: float = 0.0
    shadow: HourModel | None = None
    names: tuple[str, ...] = (BUILT_IN,)

    def number_of(self, on_trial: bool) -> int:
        """What rows call the model that chose."""
        return self.names.index(self.of(on_trial).version) + 1

    def choose(self, asked: Question, on_trial: np.ndarray) -> Chosen:
        """Choose the hours; bool (n,): those of whom the canary does."""
        chosen = self.champion.choose(asked)
        some = np.flatnonzero(on_trial)
        if self.canary is None or not len(some):
            return chosen
        other = vars(self.canary.choose(asked.picked(some)))
        columns = {name: values.copy() for name, values in vars(chosen).items()}
        for name, values in columns.items():
            values[some] = other[name]
        return replace(chosen, **columns)

    def of(self, on_trial: bool) -> HourModel:
        """The model that chose."""
        return self.canary if on_trial and self.canary is not None else self.champion

    def terms_of(
        self, asked: Question, on_trial: np.ndarray, tier: np.ndarray, slot: np.ndarray
    ) -> list[dict[str, float]]:
        """See `HourModel.terms_of`; a dictionary for each recipient, of the terms that are not nothing."""
        told: list[dict[str, float]] = [{} for _ in range(len(slot))]
        for trial in (False, True):
            mine = np.flatnonzero(on_trial == trial)
            if not len(mine):
                continue
            found = self.of(trial).terms_of(asked.picked(mine), tier[mine], slot[mine])
            for name, values in found.items():
                for i, value in zip(mine.tolist(), values.tolist(), strict=True):
                    if value:
                        told[i][name] = value
        return told


@dataclass(frozen=True)
class Shadowed:
    """What the shadow would have chosen: slots and their scores, and its chance of the hours chosen, (n,)."""

    slot: np.ndarray
    score: np.ndarray
    propensity: np.ndarray

    @classmethod
    def of(cls, shadow: HourModel, asked: Question, slot: np.ndarray) -> "Shadowed":
        """Ask the shadow; `slot` are the hours that were chosen."""
        would = shadow.choose(asked)
        return cls(would.slot, would.score, shadow.chance_of(asked, slot))
