"""Training a send-time model into a signed artefact with its card."""

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.off_policy import Estimate
from models.profile import HALF_LIFE_DAYS
from models.sendtime import evaluation, golden, second_head, training
from models.sendtime.activity import Activity, TooFew
from models.sendtime.evaluation import CHAMPION, Evaluation
from models.sendtime.model import SCHEMA, TIERS, HourModel
from models.sendtime.second_head import Sends
from models.sendtime.training import Report
from schemas.profile import HOUR_MS
from sinks.registry.artefact import Artefact, pack


@dataclass(frozen=True)
class Source:
    """What a model was trained on: its name, and how many events it has; None where they were not counted."""

    name: str
    events: int | None


def train(
    activity: Activity, slots: int, source: Source, at: datetime, key: Ed25519PrivateKey, report: Report
) -> tuple[Artefact, Evaluation]:
    """Evaluate on the latest quarter, then train on everything; `at` is when, for the card.

    Raises `training.TooFew` or `ArtefactRefused`.
    """
    found = evaluation.evaluate(activity, slots, report)
    until = int(activity.hour.max()) + 1
    trained = training.train(activity, slots, until, report)
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "trained_at": at.astimezone(UTC).isoformat(timespec="seconds"),
        "source": source.name,
        "events": source.events,
        "active_hours": len(activity),
        "first_hour": _iso(int(activity.hour.min())),
        "last_hour": _iso(until - 1),
        "slots": slots,
        "half_life_days": HALF_LIFE_DAYS,
        "thin": trained.model.thin,
        "temperature": trained.model.temperature,
        "floor": trained.model.floor,
        "zones": [name.decode() for name in trained.model.prior.zones.tolist()],
        "training": trained.facts,
        "evaluation": card_of(found),
        "with": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "sklearn": version("scikit-learn"),
        },
    }
    return pack(golden.arrays_of(trained.model), facts, key), found


def refine(
    model: HourModel,
    former: Artefact,
    sends: Sends,
    reward: str,
    hours: int,
    at: datetime,
    key: Ed25519PrivateKey,
) -> tuple[Artefact | None, dict[str, Estimate]]:
    """A model with its second head in the tiers where that surely earns more; None where it does in none.

    With what it earns by tier, of those that have sends enough. Raises `TooFew` if none has.
    """
    earned: dict[str, Estimate] = {}
    few = ""
    for tier, name in enumerate(TIERS):
        if name == "prior":  # its hours are everybody's
            continue
        try:
            earned[name] = second_head.gain(model, sends, tier)
        except TooFew as error:
            few = str(error)
    if not earned:
        raise TooFew(few)
    won = [name for name, each in earned.items() if each.reliable and each.low > 0]
    if not won:
        return None, earned
    facts = former.facts | {
        "trained_at": at.astimezone(UTC).isoformat(timespec="seconds"),
        "refined_from": former.version,
        "second_head": {
            "sends": len(sends),
            "reward": reward,
            "hours": hours,
            "gain": {name: [earned[name].value, earned[name].low, earned[name].high] for name in won},
        },
    }
    refined = second_head.refined(model, sends, [TIERS.index(name) for name in won])
    return pack(golden.arrays_of(refined), facts, key), earned


def card_of(found: Evaluation) -> dict[str, Any]:
    """What a card keeps of an evaluation: each estimate as value, low and high end."""
    return {
        "windows": found.windows,
        "recipients": found.recipients,
        "champion": CHAMPION,
        "models": {name: dict(each) for name, each in found.models.items()},
        "calibration": {
            "ratio": list(found.calibration.ratio),
            "ratio_raw": found.calibration.ratio_raw,
            "ece": found.calibration.ece,
        },
    }


def _iso(hour: int) -> str:
    return datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC).isoformat(timespec="seconds")
