"""The bars that the send-time model is held to on two real sets, completejourney's trips and CollegeMsg.

They come out of packages; that these hold the same as `shared/data` is a test.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from models.sendtime import evaluation, training
from models.sendtime.activity import GUARD, Activity, Windows
from models.sendtime.baselines import rankings
from models.sendtime.evaluation import CHAMPION, TRAINED_BEFORE, Evaluation
from streams import event_file
from streams.event_file import Columns
from tests.support import activities

SETS: dict[str, Callable[[], Activity]] = {"college": activities.college, "trips": activities.trips}
FEWEST = 100  # windows in which a bucket says anything
_REPETITIONS = 1000


@cache
def found(name: str, slots: int) -> Evaluation:
    return evaluation.evaluate(SETS[name](), slots)


def of(name: str, slots: int, rule: str, metric: str) -> float:
    return found(name, slots).models[rule][metric][0]


ALL = pytest.mark.parametrize(("name", "slots"), [("college", 24), ("trips", 24), ("trips", 168)])
DAY = pytest.mark.parametrize(("name", "slots"), [("college", 24), ("trips", 24)])
TRIPS = pytest.mark.parametrize(("name", "slots"), [("trips", 24), ("trips", 168)])


@pytest.mark.parametrize(
    ("file", "columns", "name", "events", "hours"),
    [
        ("collegemsg.csv.gz", Columns("src", "ts", None, activities.STUDENTS), "college", 59_835, 27_310),
        (
            "completejourney_trips.csv.gz",
            Columns("household_id", "ts_utc", None, activities.HOUSEHOLDS),
            "trips",
            155_848,
            144_117,
        ),
    ],
)
def test_the_files_in_shared_are_those_of_the_packages(
    file: str, columns: Columns, name: str, events: int, hours: int
) -> None:
    activity = SETS[name]()
    assert len(activity) == hours
    if not (activities.SHARED / file).exists():
        pytest.skip(f"there is no {activities.SHARED / file}")
    shared, count = event_file.read(activities.SHARED / file, columns)
    assert count == events
    for column in ("recipient", "hour", "local", "zone"):
        assert (getattr(shared, column) == getattr(activity, column)).all(), column


@ALL
def test_beats_the_best_hour_for_all_by_15_percent(name: str, slots: int) -> None:
    ours, rule = of(name, slots, CHAMPION, "any1"), of(name, slots, "global_hour", "any1")
    assert ours >= 1.15 * rule, f"any1 {ours:.4f}, global hour {rule:.4f}: {ours / rule:.3f} times"


@ALL
def test_is_hardly_below_the_recipients_mode_hour(name: str, slots: int) -> None:
    ours, rule = of(name, slots, CHAMPION, "any1"), of(name, slots, "mode_hour", "any1")
    assert ours >= 0.95 * rule, f"any1 {ours:.4f}, mode hour {rule:.4f}: {ours / rule:.3f} times"


@ALL
def test_beats_sending_now_for_sure(name: str, slots: int) -> None:
    value, low, high = found(name, slots).differences["send_now"]["any1"]
    assert low > 0, f"any1 less that of sending now {value:.4f} [{low:.4f}, {high:.4f}]"


@ALL
def test_is_less_surprised_than_the_best_hour_for_all(name: str, slots: int) -> None:
    ours, rule = of(name, slots, CHAMPION, "nll"), of(name, slots, "global_hour", "nll")
    assert ours <= rule - 0.15, f"nll {ours:.4f}, global hour {rule:.4f}: {ours - rule:+.4f}"


@ALL
def test_is_less_surprised_than_own_hours_of_the_week_alone(name: str, slots: int) -> None:
    ours, rule = of(name, slots, CHAMPION, "nll"), of(name, slots, "eb_hour_of_week", "nll")
    assert ours <= rule - 0.01, f"nll {ours:.4f}, own hours of the week {rule:.4f}: {ours - rule:+.4f}"


@pytest.mark.parametrize(("name", "least"), [("college", 0.27), ("trips", 0.38)])
def test_the_return_is_often_in_the_best_three_hours(name: str, least: float) -> None:
    ours = of(name, 24, CHAMPION, "hit3")
    assert ours >= least, f"hit@3 {ours:.4f}, at least {least} is wanted"


@ALL
def test_probabilities_are_right_in_the_mean(name: str, slots: int) -> None:
    calibration = found(name, slots).calibration
    value, low, high = calibration.ratio
    told = f"{value:.4f} [{low:.4f}, {high:.4f}] times what happened, raw {calibration.ratio_raw:.4f}"
    assert 0.9 <= value <= 1.1, told


@TRIPS
def test_probabilities_are_right_by_decile(name: str, slots: int) -> None:
    calibration = found(name, slots).calibration
    share = calibration.ece / calibration.base
    assert share <= 0.10, f"mean distance by decile {share:.2%} of the base {calibration.base:.4f}"


def test_the_best_hour_of_a_week_is_active_often_enough() -> None:
    ours = of("trips", 168, CHAMPION, "any1")
    assert ours >= 0.105, f"any1 of a week {ours:.4f}"


# Of the whole trips, eight windows are of so few hours: they say nothing.
@pytest.mark.parametrize(("name", "short"), [("college", False), ("college", True), ("trips", True)])
def test_of_whom_little_is_known_it_is_not_surely_below_the_better_simple_rule(
    name: str, short: bool
) -> None:
    """With fewer than five active hours; short: everybody's hours are cut into pieces of eight."""
    activity = activities.thinned(SETS[name]()) if short else SETS[name]()
    windows, any1 = _of_the_thin(activity, 24)
    assert len(windows) >= FEWEST, f"{len(windows)} windows"
    better = max(("global_hour", "send_now"), key=lambda rule: float(any1[rule].mean()))
    value, low, high = _interval(any1[CHAMPION] - any1[better], windows.recipient)
    told = {rule: round(float(values.mean()), 4) for rule, values in any1.items()}
    assert high >= 0, f"less {better} {value:.4f} [{low:.4f}, {high:.4f}], {len(windows)} windows: {told}"


def _of_the_thin(activity: Activity, slots: int) -> tuple[Windows, dict[str, np.ndarray]]:
    """Windows of the latest quarter of those with fewer than five active hours, and any1 by rule."""
    begins = int(np.quantile(activity.hour, TRAINED_BEFORE))
    model = training.train(activity, slots, begins).model
    at = activity.hour[activity.visits]
    tested = activity.visits[(at > begins) & (at + GUARD + slots - 1 <= activity.hour.max())]
    windows = Windows.of(activity, tested[activity.counts[tested] < 5], slots)
    windows = windows.picked(windows.came_back)
    ranked = {**rankings(windows, model.prior), CHAMPION: evaluation.ranking(model, windows)}
    rows = np.arange(len(windows))
    return windows, {
        rule: windows.active[rows, np.argmax(ranked[rule].values, axis=1)].astype(np.float64)
        for rule in ("global_hour", "send_now", CHAMPION)
    }


def _interval(difference: np.ndarray, recipient: np.ndarray) -> tuple[float, float, float]:
    """A mean with its 95 % interval of a bootstrap over recipients."""
    draw, whose = np.random.default_rng(1), np.unique(recipient, return_inverse=True)[1]
    sums, counts = np.bincount(whose, difference), np.bincount(whose)
    drawn = draw.integers(0, len(sums), (_REPETITIONS, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return float(difference.mean()), low, high
