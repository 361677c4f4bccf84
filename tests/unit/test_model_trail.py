"""Policies valued on logged sends: what they would have earned is known here, and told."""

from __future__ import annotations

import numpy as np
import pytest

from streams.model_trail import Sends, Valued, valued

HOUR = 420_000 * 3600  # at midnight UTC, seconds since 1970
N, RECIPIENTS = 20_000, 4_000
EARNS = 0.05 + 0.25 * np.exp(-0.5 * ((np.arange(24) - 19) / 2) ** 2)  # by UTC hour of day


def logged(seed: int) -> tuple[Sends, dict[str, float]]:
    """Sends drawn by one policy where another was asked as well, and what each policy earns in truth."""
    draw = np.random.default_rng(seed)
    at = HOUR + 3600 * draw.integers(0, 24, N)
    place = (at[:, None] // 3600 + 1 + np.arange(24)) % 24
    allowed = draw.random((N, 24)) < 0.6
    allowed[np.arange(N), draw.integers(0, 24, N)] = True
    earns = EARNS[place]

    def policy(liking: np.ndarray) -> np.ndarray:
        weights = np.where(allowed, liking, 0)
        return np.asarray(weights / weights.sum(1, keepdims=True))

    def drawn(chances: np.ndarray) -> np.ndarray:
        return np.asarray((draw.random(N)[:, None] > chances.cumsum(1)).sum(1).clip(max=23))

    even, logging, shadow = (policy(each) for each in (np.ones((N, 24)), 0.02 + earns, 0.01 + earns**2))
    slot, asked, rows = drawn(logging), drawn(shadow), np.arange(N)
    first, likeliest = allowed.argmax(1), np.where(allowed, earns, 0).argmax(1)
    sends = Sends(
        {
            "unit": draw.integers(0, RECIPIENTS, N),
            "at": at,
            "slot": place[rows, slot],
            "mask": (allowed << np.arange(24)).sum(1),
            "hours_left": allowed.sum(1),
            "propensity": logging[rows, slot],
            "rewarded": draw.random(N) < earns[rows, slot],
            "first": first == slot,
            "first_slot": place[rows, first],
            "likeliest": likeliest == slot,
            "likeliest_slot": place[rows, likeliest],
            "shadow_model": np.where(draw.random(N) < 0.7, "st-1", ""),
            "shadow_propensity": shadow[rows, slot],
            "shadow_slot": place[rows, asked],
        }
    )
    truth = {
        "logged": (logging * earns).sum(1).mean(),
        "uniform": (even * earns).sum(1).mean(),
        "send_now": earns[rows, first].mean(),
        "likeliest": earns[rows, likeliest].mean(),
        "shadow st-1": (shadow * earns).sum(1).mean(),
    }
    return sends, truth


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_each_policy_earns_is_in_its_intervals(seed: int) -> None:
    sends, truth = logged(seed)
    found = {each.policy: each for each in valued(sends)}
    assert found.keys() == truth.keys()
    for name, each in found.items():
        assert each.value.dr is not None
        for estimate in (each.value.ips, each.value.snips, each.value.dr):
            assert estimate.reliable, name
            margin = (estimate.high - estimate.low) / 2  # so that one in twenty does not fail by chance
            assert estimate.low - margin < truth[name] < estimate.high + margin, (name, estimate)


def test_a_reward_model_that_knows_the_hours_narrows_what_was_seldom_drawn() -> None:
    found: dict[str, Valued] = {each.policy: each for each in valued(logged(4)[0])}
    dr, snips = found["uniform"].value.dr, found["uniform"].value.snips
    assert dr is not None
    assert dr.high - dr.low < 1.05 * (snips.high - snips.low)
    assert found["shadow st-1"].rows < N
    logging = found["logged"].value
    assert logging.dr is not None
    assert logging.dr.value == pytest.approx(logging.snips.value)
