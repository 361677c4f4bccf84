"""Golden vectors: recipients with the answers that a model gave when it was trained, kept beside its arrays.

Who loads it asks it again: other answers, of a library that changed or of a slip in this code, must not
serve.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from models import zones
from models.sendtime.histories import UNSEEN, Histories
from models.sendtime.model import HourModel, ModelRefused
from schemas.profile import WEEK_HOURS, WEIGHT_ONE

_PREFIX: Final = "golden_"
_RECIPIENTS: Final = 24
_MONDAY: Final = 420_840 - 420_840 % 168 + 96  # hours since 1970: a Monday 00:00 in 2018
_NEAR: Final = 1e-6


def arrays_of(model: HourModel) -> dict[str, np.ndarray]:
    """The arrays of a model, and its golden vectors, names beginning with `golden_`."""
    chance = np.random.default_rng(0)
    active = chance.integers(0, 4 * WEIGHT_ONE, (_RECIPIENTS, WEEK_HOURS)).astype(np.uint16)
    active *= chance.random((_RECIPIENTS, WEEK_HOURS)) < chance.random((_RECIPIENTS, 1)) ** 2
    active[0] = 0
    hours = _MONDAY + np.arange(_RECIPIENTS)[:, None] * 7 + np.arange(WEEK_HOURS)
    last = hours[:, 0] - chance.integers(1, 2000, _RECIPIENTS)
    first = last - chance.integers(0, 9000, _RECIPIENTS)
    last[0] = first[0] = UNSEEN
    known = [b"Europe/Vienna", b"America/New_York", b"Asia/Kolkata", *model.prior.zones.tolist()]
    zone = np.array([known[number % len(known)] for number in range(_RECIPIENTS)], "S32")
    inputs = {"active": active, "last": last, "first": first, "zone": zone, "hours": hours}
    inputs["local"] = zones.local_hours(zone, hours)
    scores, chances = _answers(model, inputs)
    golden = inputs | {"scores": scores, "chances": chances}
    return model.arrays() | {f"{_PREFIX}{name}": values for name, values in golden.items()}


def model_of(version: str, arrays: Mapping[str, np.ndarray]) -> HourModel:
    """The model of arrays that `arrays_of` gave. Raises `ModelRefused`, also where it answers otherwise."""
    golden = {name.removeprefix(_PREFIX): each for name, each in arrays.items() if name.startswith(_PREFIX)}
    model = HourModel.of(
        version, {name: each for name, each in arrays.items() if not name.startswith(_PREFIX)}
    )
    try:
        scores, chances = _answers(model, golden)
        same = (scores == golden["scores"]).all() and np.abs(chances - golden["chances"]).max() < _NEAR
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise ModelRefused(f"golden vectors cannot be asked: {type(error).__name__}: {error}") from error
    if not same:
        raise ModelRefused("the model answers its golden vectors otherwise than when it was trained")
    return model


def _answers(model: HourModel, golden: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    histories = Histories(golden["active"], golden["last"], golden["first"], golden["zone"])
    tier = model.tier_of(histories, np.ones(len(histories), np.bool_))
    scores = model.scores(histories, tier, golden["hours"], golden["local"])
    return scores, model.probabilities(histories, tier, golden["hours"][:, 0] - 1, scores)
