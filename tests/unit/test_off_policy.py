"""A policy is valued on another's log: worked examples, what a log cannot tell, and what is refused."""

from math import inf, isnan, sqrt

import numpy as np
import pytest

from models.off_policy import (
    RELIABLE_UNITS,
    Log,
    RewardModel,
    Target,
    _student,
    _unskewed,
    difference,
    value,
)

REWARD = np.array([1.0, 0.0, 1.0, 0.0])
LOGGED = np.array([0.5, 0.5, 0.25, 0.5])
EACH = np.arange(4)
Q_LOGGED = np.array([0.5, 0.25, 0.5, 0.25])
LOG = Log(REWARD, LOGGED, EACH, Q_LOGGED)
# Its weights are 1, 0, 2, 1/2.
TARGET = Target(np.array([0.5, 0.0, 0.5, 0.25]), np.array([0.5, 0.5, 0.25, 0.25]))


def test_a_worked_example() -> None:
    found = value(LOG, TARGET)
    assert found.ips.value == 3 / 4
    assert found.snips.value == 3 / 3.5
    assert found.dr is not None
    assert found.dr.value == (1 + 0.5 + 1.25 + 0.125) / 4
    assert found.mean_weight.value == 3.5 / 4
    assert found.ess == pytest.approx(3.5**2 / 5.25)
    assert found.weight_units == pytest.approx(5.25**2 / 17.0625, abs=1e-6)
    assert found.largest == 2 / 3.5
    assert found.supported == 3 / 4
    assert (found.rows, found.units) == (4, 4)
    assert (found.clipped, found.cut) == (0, 0)


def test_a_clipped_weight_is_told_and_leaves_the_mean_weight_as_it_was() -> None:
    found = value(LOG, TARGET, clip=1.0)
    assert found.ips.value == 2 / 4
    assert found.snips.value == 2 / 2.5
    assert found.mean_weight.value == 3.5 / 4
    assert found.largest == 1 / 2.5
    assert found.clipped == 1 / 4
    assert found.cut == pytest.approx(1 / 3.5)
    assert value(LOG, TARGET, clip=2.0) == value(LOG, TARGET), "none is above it"


def test_an_interval_of_even_rewards_is_that_of_a_mean() -> None:
    n = 200
    log = Log(np.arange(n) % 2 * 1.0, np.full(n, 0.5), np.arange(n))
    found = value(log, Target(np.full(n, 0.5)))
    half = 1.971957 * sqrt(0.25 / (n - 1))
    assert found.ips.units == n
    assert (found.ips.low, found.ips.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-5)
    assert found.snips == found.ips
    assert found.ips.reliable
    assert found.dr is None


def test_an_interval_of_rare_rewards_holds_the_exact_one() -> None:
    n = 1000
    log = Log((np.arange(n) < 10) * 1.0, np.full(n, 0.5), np.arange(n))
    found = value(log, Target(np.full(n, 0.5))).ips
    # Clopper and Pearson's, of 10 in 1,000; the normal one would be 0.0038 to 0.0162.
    assert found.low < 0.00480
    assert 0.01831 < found.high < 1.35 * 0.01831


def test_rows_of_one_recipient_count_as_one() -> None:
    rng = np.random.default_rng(1)
    n = 300
    reward, logged, chance = rng.random(n), rng.uniform(0.2, 1, n), rng.uniform(0, 0.5, n)
    once = value(Log(reward, logged, np.arange(n)), Target(chance))
    thrice = Log(np.tile(reward, 3), np.tile(logged, 3), np.tile(np.arange(n), 3))
    told = value(thrice, Target(np.tile(chance, 3)))
    untold = value(Log(thrice.reward, thrice.logged, np.arange(3 * n)), Target(np.tile(chance, 3)))
    for one, same, narrow in ((once.ips, told.ips, untold.ips), (once.snips, told.snips, untold.snips)):
        assert (same.value, same.low, same.high) == pytest.approx((one.value, one.low, one.high))
        assert narrow.high - narrow.low < 0.65 * (one.high - one.low)
    assert (told.units, untold.units) == (n, 3 * n)


def test_of_a_policy_that_would_do_none_of_it_nothing_is_known() -> None:
    found = value(LOG, Target(np.zeros(4), np.full(4, 0.25)))
    assert found.ips.value == 0
    assert isnan(found.snips.value)
    assert found.dr is not None
    assert found.dr.value == 0.25
    for one in (found.ips, found.snips, found.dr):
        assert (one.low, one.high, one.reliable) == (-inf, inf, False)
    assert (found.ess, found.largest, found.supported, found.cut) == (0, 0, 0, 0)


def test_what_was_not_seen_to_vary_has_no_interval() -> None:
    n = 500
    log = Log(np.full(n, 0.3), np.full(n, 0.5), np.arange(n))
    found = value(log, Target(np.full(n, 0.5)))
    assert (found.ips.low, found.ips.high, found.ips.reliable) == (-inf, inf, False)
    assert (found.mean_weight.value, found.mean_weight.low, found.mean_weight.high) == (1, -inf, inf)
    none = value(Log(np.zeros(n), np.full(n, 0.5), np.arange(n)), Target(np.arange(n) % 2 / 1.0))
    assert (none.ips.value, none.ips.low, none.ips.high) == (0, -inf, inf)


def test_a_reward_model_is_not_taken_for_rewards_where_none_was_drawn() -> None:
    n = 400
    rng, done = np.random.default_rng(7), np.arange(n) % 2 == 0
    reward, q = np.where(done, 0.0, 1.0), rng.uniform(0, 0.1, n)
    found = value(Log(reward, np.full(n, 0.5), np.arange(n), q), Target(done * 1.0, q)).dr
    assert found is not None
    assert (found.low, found.high, found.reliable) == (-inf, inf, False)
    reward[:20] = 1.0
    found = value(Log(reward, np.full(n, 0.5), np.arange(n), q), Target(done * 1.0, q)).dr
    assert found is not None
    assert found.units == pytest.approx(10, rel=0.2), "as many as were rewarded"


def test_one_recipient_has_no_interval() -> None:
    found = value(Log(REWARD, LOGGED, np.zeros(4, np.int64)), Target(TARGET.chance))
    assert (found.snips.low, found.snips.high, found.units) == (-inf, inf, 1)


@pytest.mark.parametrize(("heavy", "enough"), [(10, False), (60, True)])
def test_few_heavy_weights_are_told(heavy: int, enough: bool) -> None:
    n = 4000
    # Half of all weight is on the first rows, which were drawn with little probability.
    first = np.arange(n) < heavy
    logged, chance = np.where(first, 2 * heavy / n, 1.0), np.where(first, 1.0, 0.5)
    found = value(Log(np.random.default_rng(6).random(n), logged, np.arange(n)), Target(chance))
    assert found.mean_weight.value == pytest.approx(1, abs=0.01)
    assert found.weight_units == pytest.approx(heavy, abs=2)
    assert enough == (found.weight_units >= RELIABLE_UNITS)
    assert [x.reliable for x in (found.ips, found.snips, found.mean_weight)] == [enough] * 3


def test_a_mean_weight_that_is_not_1_makes_nothing_reliable() -> None:
    rng = np.random.default_rng(3)
    n = 3000
    logged, chance = np.full(n, 0.5), (rng.random(n) < 0.5) * 1.0
    log = Log(rng.random(n), logged, np.arange(n))
    right = value(log, Target(chance))
    wrong = value(Log(log.reward, logged * 0.8, log.unit), Target(chance))
    assert right.mean_weight.low <= 1 <= right.mean_weight.high
    assert right.ips.reliable
    assert wrong.mean_weight.low > 1.1
    assert wrong.mean_weight.reliable, "that it is not 1 can be relied on"
    assert not wrong.ips.reliable
    assert not wrong.snips.reliable
    other = Log(log.reward, logged * 0.8, log.unit)
    assert difference(log, Target(chance), Target(1 - chance)).ips.reliable
    assert not difference(other, Target(chance), Target(1 - chance)).ips.reliable


def test_a_difference_is_that_of_the_values_and_knows_more_than_they_do() -> None:
    rng = np.random.default_rng(4)
    n = 2000
    reward = rng.random(n) + 3 * (np.arange(n) % 2)
    logged = np.full(n, 0.5)
    one = (rng.random(n) < 0.5) * 1.0
    two = np.where(rng.random(n) < 0.9, one, 1 - one)
    log = Log(reward, logged, np.arange(n))
    found, first, second = difference(log, Target(one), Target(two)), value(log, Target(one)), Target(two)
    for name in ("ips", "snips"):
        apart, mine, theirs = (getattr(x, name) for x in (found, first, value(log, second)))
        assert apart.value == pytest.approx(mine.value - theirs.value)
        assert apart.high - apart.low < 0.7 * (mine.high - mine.low)
        assert apart.reliable
    assert found.dr is None


def test_a_policy_does_not_differ_from_itself() -> None:
    found = difference(LOG, TARGET, TARGET)
    assert found.dr is not None
    assert (found.ips.value, found.snips.value, found.dr.value) == (0, 0, 0)
    assert (found.dr.low, found.dr.high) == (-inf, inf)


def test_a_reward_model_knows_nothing_of_a_recipients_own_rewards() -> None:
    rng = np.random.default_rng(5)
    n, k = 400, 3
    unit, action = rng.integers(0, 40, n), rng.integers(0, k, n)
    reward = action + rng.random(n)
    chances = np.full((n, k), 1 / k)
    model = RewardModel.of(reward, action, unit, k)
    logged, target = model.expects(action), model.expected(chances)
    assert np.abs(logged - action - 0.5).max() < 0.2
    assert np.abs(target - 1.5).max() < 0.2
    mine = unit == 7
    other = RewardModel.of(np.where(mine, 99.0, reward), action, unit, k).expects(action)
    assert (other[mine] == logged[mine]).all()
    assert (other != logged).any()


def test_a_reward_model_of_one_fold_only_knows_nothing() -> None:
    action = np.array([0, 1, 1, 0])
    model = RewardModel.of(REWARD, action, np.zeros(4, np.int64), 2)
    logged, target = model.expects(action), model.expected(np.full((4, 2), 0.5))
    assert (logged == 0).all()
    assert (target == 0).all()
    found = value(Log(REWARD, LOGGED, EACH, logged), Target(TARGET.chance, target))
    assert found.dr == found.ips


@pytest.mark.parametrize(
    ("log", "target", "clip", "told"),
    [
        ({"reward": np.array([])}, {}, None, "nothing can be valued"),
        ({"reward": np.array([1.0, np.nan, 0, 0])}, {}, None, "reward holds a number that is not finite"),
        ({"logged": LOGGED[:3]}, {}, None, "logged must be 4 numbers"),
        ({"logged": np.array([0.5, 0.0, 0.5, 1])}, {}, None, "logged holds 0"),
        ({"logged": np.array([0.5, 1.5, 0.5, 1])}, {}, None, r"logged must be in \[0, 1\]"),
        ({"unit": np.array([0.0, 1, 2, 3])}, {}, None, "unit must be 4 integers"),
        ({"q_logged": np.array([0.0, 1, 2, np.inf])}, {}, None, "q_logged holds"),
        ({"q_logged": None}, {}, None, "give both, or neither"),
        ({}, {"q": None}, None, "give both, or neither"),
        ({}, {"q": np.zeros(3)}, None, "q must be 4 numbers"),
        ({}, {"chance": np.array([0.5, -0.5, 0.5, 1])}, None, r"chance must be in \[0, 1\]"),
        ({}, {"chance": np.zeros((4, 2))}, None, "chance must be 4 numbers"),
        ({}, {}, 0.0, "clip must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(
    log: dict[str, np.ndarray], target: dict[str, np.ndarray], clip: float | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        value(Log(**{**vars(LOG), **log}), Target(**{**vars(TARGET), **target}), clip)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (5, 2.57058), (30, 2.04227), (1e6, 1.95997)]
)
def test_students_t_is_that_of_the_tables(freedom: float, quantile: float) -> None:
    assert _student(freedom) == pytest.approx(quantile, rel=1e-5)


def test_a_transform_without_skew_changes_nothing() -> None:
    assert _unskewed(2.0, 0.0) == 2
    assert _unskewed(2.0, 1e-5) == pytest.approx(2, abs=1e-4)
    assert _unskewed(-2.0, 0.3) < -2 < _unskewed(-2.0, -0.3)
