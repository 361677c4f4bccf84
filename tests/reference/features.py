"""Section 5 of docs/decisions.md: features of a row as of `now`, and the segments that hold on them."""

import re
import sqlite3
from functools import lru_cache

from schemas.policy import Policy
from schemas.profile import HOUR_MS, KINDS
from tests.reference.clock import day_of_hour, hour_of
from tests.reference.state import Recipient

PLURALS = {
    "view": "views",
    "click": "clicks",
    "scroll": "scrolls",
    "search": "searches",
    "cart": "carts",
    "open": "opens",
    "purchase": "purchases",
}
RATES = (
    ("clicks", "opens", "open"),
    ("carts", "views", "view"),
    ("purchases", "views", "view"),
    ("purchases", "carts", "cart"),
)
UNIT = {"click": 4, "open": 4}  # counted in quarters
HOUR_WINDOWS = (1, 6, 24, 48)
DAY_WINDOWS = (7, 14, 30)
Value = int | float | None


def features(recipient: Recipient, now: int) -> dict[str, Value]:
    """Every feature by name. The row must have been rolled to `hour(now)`."""
    hour = hour_of(now)
    day = day_of_hour(hour)
    values: dict[str, Value] = {}
    for kind in KINDS:
        for hours in HOUR_WINDOWS:
            window = range(hour - hours + 1, hour + 1)
            counted = sum(recipient.hourly.get((kind, h), 0) for h in window)
            values[f"{PLURALS[kind]}_{hours}h"] = counted / UNIT.get(kind, 1)
        for days in DAY_WINDOWS:
            window = range(day - days + 1, day + 1)
            counted = sum(recipient.daily.get((kind, d), 0) for d in window)
            values[f"{PLURALS[kind]}_{days}d"] = counted / UNIT.get(kind, 1)
        last = recipient.last.get(kind, 0)
        values[f"hours_since_{kind}"] = (now - last) / HOUR_MS if last else None
    for days in DAY_WINDOWS:
        window = range(day - days + 1, day + 1)
        values[f"revenue_{days}d"] = sum(recipient.revenue.get(d, 0) for d in window)
    for made, per, single in RATES:
        for days in DAY_WINDOWS:
            name = f"{made}_per_{single}_{days}d"
            dividend, divisor = values[f"{made}_{days}d"], values[f"{per}_{days}d"]
            values[name] = (dividend or 0) / divisor if divisor else None
    values["hours_since_first"] = (now - recipient.first) / HOUR_MS if recipient.first else None
    return values


def holding(policy: Policy, recipient: Recipient, now: int) -> set[int]:
    """Numbers of the segments that hold."""
    values = features(recipient, now)
    return {segment.number for segment in policy.segments if holds(segment.where, values)}


def holds(where: str, values: dict[str, Value]) -> bool:
    """Whether the expression is true; NULL is not."""
    names = sorted({word for word in re.findall(r"[a-z_][a-z0-9_]*", where.lower()) if word in values})
    bound = [values[name] for name in names]
    return _ask(where, tuple(names), tuple(None if value is None else float(value) for value in bound))


@lru_cache(maxsize=200_000)
def _ask(where: str, names: tuple[str, ...], values: tuple[Value, ...]) -> bool:
    columns = ", ".join(f"? AS {name}" for name in names) or "NULL"
    # The expression is the policy's own; values are bound.
    query = f"SELECT ({where}) FROM (SELECT {columns})"  # noqa: S608
    return bool(_database().execute(query, values).fetchone()[0])


@lru_cache(maxsize=1)
def _database() -> sqlite3.Connection:
    # From any thread: it holds nothing, and SQLite itself locks.
    return sqlite3.connect(":memory:", check_same_thread=False)
