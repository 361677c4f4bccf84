"""Whether a model that serves still fits: its surprise beside simple rules', and how its choices moved."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.sendtime.activity import GUARD, Activity, Windows
from models.sendtime.baselines import rankings
from models.sendtime.evaluation import ranking
from models.sendtime.model import TIERS, HourModel

_WINDOWS: Final = 10_000
_SLOTS: Final = 24
_EMPTY: Final = 0.5  # added to every slot, or one that was never chosen would make the index infinite


@dataclass(frozen=True)
class Surprise:
    """Mean surprise in nats at the hours in which recipients came back, less is better; nan without windows.

    Of `windows` visits; `tiers` are the shares of them by what is known of the recipient.
    """

    windows: int
    model: float
    profile: float
    everybody: float
    tiers: dict[str, float]


def surprise(model: HourModel, activity: Activity, since: int, until: int) -> Surprise:
    """Ask a model about visits from the UTC hour `since` on whose 24 hours closed before `until`."""
    visits = activity.visits
    at = activity.hour[visits]
    asked = visits[(at >= since) & (at + GUARD + _SLOTS <= until)]
    asked = asked[:: max(1, -(-len(asked) // _WINDOWS))]
    windows = Windows.of(activity, asked, _SLOTS)
    came = windows.picked(windows.came_back)
    rows, first = np.arange(len(came)), np.argmax(came.active, axis=1)
    rules = rankings(came, model.prior)
    laws = {
        "model": ranking(model, came).law,
        "profile": rules["eb_hour_of_week"].law,
        "everybody": rules["global_hour"].law,
    }
    told = {
        name: float(-np.log(law[rows, first]).mean()) if law is not None and len(came) else np.nan
        for name, law in laws.items()
    }
    tier = model.tier_of(windows.histories, np.ones(len(windows), np.bool_))
    shares = np.bincount(tier, minlength=len(TIERS)) / max(len(windows), 1)
    return Surprise(len(came), **told, tiers=dict(zip(TIERS, shares.tolist(), strict=True)))


def stability(before: np.ndarray, after: np.ndarray) -> float:
    """Population stability index of counts by slot, (k,): 0 if spread alike; above 0.2 they moved."""
    shares = [(counts + _EMPTY) / (counts + _EMPTY).sum() for counts in (before, after)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
