"""Send-time models that tests are made from, and the key that they are signed by."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.sendtime import golden
from models.sendtime.histories import OF_HOURS, lag_terms
from models.sendtime.model import SCHEMA, TIERS, HourModel
from models.sendtime.serving import Models
from models.sendtime.shares import Prior
from schemas.policy import BUILT_IN, SendTime
from sinks.registry.artefact import Artefact, pack
from streams.engine.control import Control, Deployed

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FACTS: dict[str, Any] = {"schema": SCHEMA, "trained_at": "2018-01-02T00:00:00+00:00"}
SEEDS = range(1, 5)


@cache
def trained_like(seed: int) -> HourModel:
    """A model as training might give it, with two zones of their own and every factor in use."""
    chance = np.random.default_rng(seed)
    factors = chance.normal(0.5, 0.5, (len(TIERS), OF_HOURS + 2))
    prior = Prior(
        chance.dirichlet(np.full(24, 20.0), 3),
        chance.dirichlet(np.full(7, 20.0), 3),
        np.array([b"America/New_York", b"Europe/Vienna"], "S32"),
        7.5,
        60.0,
    )
    lag = factors[:, OF_HOURS:] @ lag_terms().T
    calibration = chance.normal(0.3, 0.3, (len(TIERS), 4)) + [0, 0.7, 0.5, 0]
    return HourModel(f"like-{seed}", prior, factors[:, :OF_HOURS], lag, calibration, 5.0, 0.1, 0.02)


@cache
def artefact(seed: int) -> Artefact:
    """Such a model, signed."""
    return pack(golden.arrays_of(trained_like(seed)), FACTS | {"seed": seed}, KEY)


def deployed(seed: int, since: int, share: float = 0.0) -> Deployed:
    """Such a model in a role."""
    made = artefact(seed)
    return Deployed(made.version, since, share, made.card, made.npz, made.signature)


def change(seed: int, role: str, share: float) -> dict[str, Any]:
    """The change of control by which such a model gets a role, or gives it up."""
    made = artefact(seed)
    files = {"card": made.card, "npz": made.npz, "signature": made.signature}
    return {"version": made.version, "role": role, "share": share if role == "canary" else 0.0, **files}


def intercept(seed: int | None, log_odds: float) -> dict[str, Any]:
    """The change of control by which such a model, or the built-in one, is shifted."""
    return {"model": BUILT_IN if seed is None else artefact(seed).version, "log_odds": log_odds}


def by_hand(control: Control, send_time: SendTime) -> Models | None:
    """The models of a state of control, none of them damaged; None where no model ever had a role."""
    if control.models == (BUILT_IN,) and not control.champions and not control.intercepts:
        return None
    known = {artefact(seed).version: trained_like(seed) for seed in SEEDS}
    known[BUILT_IN] = HourModel.built_in(send_time)

    def shifted(version: str) -> HourModel:
        calibration = known[version].calibration.copy()
        calibration[:, 0] += min(max(control.intercept_of(version), -1.0), 1.0)
        return replace(known[version], version=version, calibration=calibration)

    return Models(
        shifted(control.champions[-1].version if control.champions else BUILT_IN),
        None if control.canary is None else shifted(control.canary.version),
        0.0 if control.canary is None else control.canary.share,
        None if control.shadow is None else shifted(control.shadow.version),
        control.models,
    )
