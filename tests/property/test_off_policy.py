"""Values and their intervals: what does not change them, and that the truth is inside as often as is said.

Two worlds whose truth is known. Hillstrom's experiment: rows are drawn again from the 64,000 so that, given
who the customer is, arms come with the logging policy's probabilities, and a policy's value is exactly that
of the arms' means. And recipients with 24 slots, of whom it is known what each slot would have earned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.off_policy import Estimate, Estimates, Log, RewardModel, Target, difference, value

HILLSTROM: Final = Path(__file__).parents[2].parent / "shared" / "data" / "hillstrom_email_experiment.csv.gz"
REPLAYS: Final = 300
ROWS: Final = 3000
HOLDS: Final = 0.93
WAYS: Final = ("ips", "snips", "dr")


def inside(estimate: Estimate | None, truth: float) -> bool:
    assert estimate is not None
    return estimate.low <= truth <= estimate.high


# What does not change a value


@st.composite
def cases(draw: st.DrawFn) -> tuple[Log, Target, Target]:
    n = draw(st.integers(1, 30))

    def column(low: int, high: int) -> np.ndarray:
        return np.array(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)))

    log = Log(column(-4, 4) / 2, column(1, 16) / 16, column(0, 9), column(-4, 4) / 4)
    return log, Target(column(0, 8) / 8, column(-4, 4) / 4), Target(column(0, 8) / 8, column(-4, 4) / 4)


def ways(found: Estimates) -> Iterator[Estimate]:
    assert found.dr is not None
    return iter((found.ips, found.snips, found.dr))


def bounds(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def moved(case: tuple[Log, Target, Target], by: np.ndarray) -> tuple[Log, Target, Target]:
    log, *targets = case
    assert log.q_logged is not None
    one, other = (Target(t.chance[by], None if t.q is None else t.q[by]) for t in targets)
    return Log(log.reward[by], log.logged[by], log.unit[by], log.q_logged[by]), one, other


@given(cases(), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_the_names_of_recipients_change_anything(
    case: tuple[Log, Target, Target], random: Random
) -> None:
    order = list(range(len(case[0].reward)))
    random.shuffle(order)
    log, one, other = moved(case, np.array(order))
    log = Log(log.reward, log.logged, 1000 - 7 * log.unit, log.q_logged)
    pairs = ((value(*case[:2]), value(log, one)), (difference(*case), difference(log, one, other)))
    for before, after in pairs:
        for a, b in zip(ways(before), ways(after), strict=True):
            assert bounds(b) == pytest.approx(bounds(a), rel=1e-6, abs=1e-9, nan_ok=True)
            assert b.reliable == a.reliable


@given(cases())
def test_a_difference_turned_round_changes_its_sign(case: tuple[Log, Target, Target]) -> None:
    log, one, other = case
    for a, b in zip(ways(difference(log, one, other)), ways(difference(log, other, one)), strict=True):
        assert (-b.value, -b.high, -b.low) == pytest.approx(bounds(a), nan_ok=True)


@given(cases(), st.integers(1, 8))
def test_a_value_is_in_the_rewards_unit(case: tuple[Log, Target, Target], unit: int) -> None:
    log, target, _ = case
    assert log.q_logged is not None
    assert target.q is not None
    other = Log(log.reward * unit, log.logged, log.unit, log.q_logged * unit)
    for a, b in zip(
        ways(value(log, target)), ways(value(other, Target(target.chance, target.q * unit))), strict=True
    ):
        assert bounds(b) == pytest.approx(tuple(unit * x for x in bounds(a)), abs=1e-9, nan_ok=True)


@given(cases())
def test_snips_is_among_the_rewards_and_in_an_interval_around_it(case: tuple[Log, Target, Target]) -> None:
    log, target, _ = case
    found = value(log, target)
    if target.chance.any():
        assert log.reward.min() - 1e-9 <= found.snips.value <= log.reward.max() + 1e-9
        assert all(x.low < x.value < x.high for x in ways(found))


@given(cases())
def test_a_reward_model_that_expects_nothing_leaves_ips(case: tuple[Log, Target, Target]) -> None:
    log, target, _ = case
    none = np.zeros(len(log.reward))
    found = value(Log(log.reward, log.logged, log.unit, none), Target(target.chance, none))
    assert found.dr == found.ips


# Replays of Hillstrom's experiment


@dataclass(frozen=True)
class Arms:
    """Customers (n,), the arm each was in, and what each arm is worth to those alike, for three rewards.

    `drawn` is the logging policy's probability of the row's arm, and `row` adds up to 1 the chances with
    which rows are drawn again. `policies` give each arm (n, 3) a probability.
    """

    arm: np.ndarray
    drawn: np.ndarray
    row: np.ndarray
    rewards: dict[str, np.ndarray]
    policies: dict[str, np.ndarray]
    truth: dict[tuple[str, str], float]


def arms() -> Arms:
    table = pl.read_csv(HILLSTROM, schema_overrides={"spend": pl.Float64})
    arm = table["segment"].replace_strict({"Mens E-Mail": 0, "Womens E-Mail": 1, "No E-Mail": 2}).to_numpy()
    mens, womens, newbie = (table[name].to_numpy() for name in ("mens", "womens", "newbie"))
    alike = (mens * 2 + womens) * 2 + newbie
    n, rng = len(arm), np.random.default_rng(2008)

    def per_cell(column: np.ndarray) -> np.ndarray:
        return np.bincount(alike * 3 + arm, column, 24).reshape(8, 3)

    count = per_cell(np.ones(n))
    logging = np.exp(1.8 * rng.normal(size=(8, 3)))
    logging = 0.94 * logging / logging.sum(1, keepdims=True) + 0.02
    drawn = logging[alike, arm]
    # Given who it is, arms are as logged: each row is kept in proportion to that, by the arm's true share.
    row = drawn / (count / np.maximum(count.sum(1, keepdims=True), 1))[alike, arm]
    likes = np.exp(np.stack([0.8 + 1.5 * mens, 0.8 + 1.5 * womens, np.zeros(n)], axis=1))
    policies = {
        "what they bought": np.eye(3)[np.where(mens == 1, 0, 1)],
        "rather what they bought": likes / likes.sum(1, keepdims=True),
    }
    rewards = {name: table[name].cast(pl.Float64).to_numpy() for name in ("visit", "conversion", "spend")}
    worth = {name: per_cell(reward) / np.maximum(count, 1) for name, reward in rewards.items()}
    truth = {
        (name, policy): float((chances * worth[name][alike]).sum(1).mean())
        for name in rewards
        for policy, chances in policies.items()
    }
    return Arms(arm, drawn, row / row.sum(), rewards, policies, truth)


@pytest.fixture(scope="module")
def experiment() -> Arms:
    if not HILLSTROM.exists():
        pytest.skip(f"no {HILLSTROM.name}: it is not part of the project")
    return arms()


def logs(world: Arms, reward: np.ndarray) -> Iterator[tuple[Log, dict[str, Target]]]:
    """The same `REPLAYS` logs each time, with what each policy gives to their actions."""
    rng = np.random.default_rng(64000)
    running, unit = np.cumsum(world.row), np.arange(ROWS)
    for _ in range(REPLAYS):
        i = np.minimum(np.searchsorted(running, rng.random(ROWS)), len(running) - 1)
        arm = world.arm[i]
        model = RewardModel.of(reward[i], arm, unit, 3)
        targets = {}
        for policy, chances in world.policies.items():
            targets[policy] = Target(chances[i, arm], model.expected(chances[i]))
        yield Log(reward[i], world.drawn[i], unit, model.expects(arm)), targets


@pytest.mark.parametrize("name", ["visit", "conversion", "spend"])
def test_the_truth_of_an_experiment_is_in_the_interval(experiment: Arms, name: str) -> None:
    held, normal, usable, known = defaultdict[str, list[bool]](list), [], [], []
    apart = experiment.truth[name, "what they bought"] - experiment.truth[name, "rather what they bought"]
    for log, targets in logs(experiment, experiment.rewards[name]):
        for policy, target in targets.items():
            found, truth = value(log, target), experiment.truth[name, policy]
            for way in WAYS:
                held[f"{way}, {policy}"].append(inside(getattr(found, way), truth))
            earned = log.reward * target.chance / log.logged
            normal.append(abs(earned.mean() - truth) <= 1.96 * earned.std() / np.sqrt(ROWS))
            usable.append(found.snips.reliable)
            known.append(inside(found.mean_weight, 1.0))
        one, other = targets.values()
        more = difference(log, one, other)
        for way in WAYS:
            held[f"{way}, difference"].append(inside(getattr(more, way), apart))
    coverage = {what: float(np.mean(each)) for what, each in held.items()}
    assert len(coverage) == 9
    assert min(coverage.values()) >= HOLDS, coverage
    assert np.mean(known) >= HOLDS
    assert np.mean(usable) > 0.9, "an interval that is the whole line holds anything"
    assert name == "visit" or np.mean(normal) < 0.9, "replays that any interval holds show nothing"


def test_a_wrong_propensity_is_noticed(experiment: Arms) -> None:
    noticed = []
    for log, targets in logs(experiment, experiment.rewards["visit"]):
        taken_as_even = Log(log.reward, np.full(len(log.reward), 1 / 3), log.unit)
        found = value(taken_as_even, Target(targets["what they bought"].chance))
        noticed.append(not inside(found.mean_weight, 1.0) and not found.ips.reliable)
    assert np.mean(noticed) > 0.95


# Replays of recipients with 24 slots


@dataclass(frozen=True)
class Slots:
    """Recipients' decisions (n, 24): what each slot earns, and two models' scores of it."""

    unit: np.ndarray
    earns: np.ndarray
    champion: np.ndarray
    challenger: np.ndarray


def slots(recipients: int) -> Slots:
    """Recipients of very unequal activity; their habit stays the same, decision after decision."""
    rng = np.random.default_rng(24)
    hour = np.arange(24)
    prior = np.exp(-0.5 * ((hour - 18) / 4) ** 2) + 0.6 * np.exp(-0.5 * ((hour - 9) / 3) ** 2) + 0.1
    prior /= prior.sum()
    habit = rng.gamma(6 * prior, size=(recipients, 24))
    rate = rng.gamma(1.2, 2, recipients)[:, None] * habit / habit.sum(1, keepdims=True)
    unit = np.repeat(np.arange(recipients), 1 + rng.geometric(1 / 12, recipients))
    seen = rng.poisson(8 * rate)

    def score(counts: np.ndarray, kappa: float) -> np.ndarray:
        near = (np.roll(counts, 1, 1) + 2 * counts + np.roll(counts, -1, 1)) / 4
        scores = (near + kappa * prior)[unit]
        return np.asarray(scores / scores.sum(1, keepdims=True))

    return Slots(
        unit, rng.random((len(unit), 24)) < 1 - np.exp(-rate)[unit], score(seen, 10), score(seen, 25)
    )


def best(score: np.ndarray) -> np.ndarray:
    return np.asarray(np.eye(24)[score.argmax(1)])


def soft(score: np.ndarray) -> np.ndarray:
    sharp = score**10
    return np.asarray(sharp / sharp.sum(1, keepdims=True))


def explored(policy: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * policy + share / 24


def replays(world: Slots, logging: np.ndarray, policy: np.ndarray) -> Iterator[tuple[Log, Target]]:
    """Recipients drawn again, with all their decisions, and a slot for each of these by `logging`."""
    rng = np.random.default_rng(168)
    n, running = np.bincount(world.unit), np.cumsum(logging, axis=1)
    first = np.cumsum(n) - n
    for _ in range(REPLAYS):
        who = rng.integers(0, len(n), len(n))
        unit = np.repeat(np.arange(len(n)), n[who])
        row = np.arange(len(unit)) + np.repeat(first[who] - (np.cumsum(n[who]) - n[who]), n[who])
        slot = np.minimum((rng.random(len(row))[:, None] > running[row]).sum(1), 23)
        reward = world.earns[row, slot] * 1.0
        model = RewardModel.of(reward, slot, unit, 24)
        log = Log(reward, logging[row, slot], unit, model.expects(slot))
        yield log, Target(policy[row, slot], model.expected(policy[row]))


@pytest.mark.parametrize("policy", [best, soft])
def test_the_truth_of_24_slots_is_in_the_interval_if_recipients_are_told_apart(
    policy: Callable[[np.ndarray], np.ndarray],
) -> None:
    world = slots(300)
    chances = policy(world.challenger)
    truth = float((chances * world.earns).sum(1).mean())
    held, blind, reliable = defaultdict[str, list[bool]](list), defaultdict[str, list[bool]](list), []
    for log, target in replays(world, explored(soft(world.champion), 0.02), chances):
        apart = Log(log.reward, log.logged, np.arange(len(log.reward)), log.q_logged)
        found, unclustered = value(log, target), value(apart, target)
        reliable.append(found.snips.reliable)
        for way in WAYS:
            held[way].append(inside(getattr(found, way), truth))
            blind[way].append(inside(getattr(unclustered, way), truth))
    coverage = {way: float(np.mean(each)) for way, each in held.items()}
    assert min(coverage.values()) >= HOLDS, coverage
    assert np.mean(reliable) > 0.8
    assert max(float(np.mean(each)) for each in blind.values()) < 0.9


def test_a_log_with_hardly_any_exploration_is_told() -> None:
    world = slots(300)
    logging = explored(best(world.champion), 0.05)
    found = [value(log, target) for log, target in replays(world, logging, best(world.challenger))]
    assert np.mean([x.ips.reliable or x.snips.reliable for x in found]) < 0.02
