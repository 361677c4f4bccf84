"""Send-time models that tests are made from."""

import numpy as np

from models.sendtime.histories import OF_HOURS, lag_terms
from models.sendtime.model import TIERS, HourModel
from models.sendtime.shares import Prior


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
