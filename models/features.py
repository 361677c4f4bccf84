"""Named features of a profile: one table from which SQL, docs and columns are made."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.profile import DAYS, HOUR_MS, HOURS, KINDS, UNITS

PLURALS: Final = {
    "views": "view",
    "clicks": "click",
    "scrolls": "scroll",
    "searches": "search",
    "carts": "cart",
    "opens": "open",
    "purchases": "purchase",
}
HOUR_WINDOWS: Final = (1, 6, 24, 48)
DAY_WINDOWS: Final = (7, 14, 30)
_RATES: Final = (
    ("clicks", "opens"),
    ("carts", "views"),
    ("purchases", "views"),
    ("purchases", "carts"),
)


@dataclass(frozen=True)
class Feature:
    """One named number of a recipient.

    `source` is `counter`, `revenue`, `rate`, `last` or `first`; `kind` a column of the row's counters (-1
    where it has none); a window counts its current, partial bucket. A rate is the first of its two `parts`
    by the second.
    """

    name: str
    source: str
    unit: str
    doc: str
    kind: int = -1
    hours: int = 0
    days: int = 0
    parts: tuple["Feature", ...] = ()

    @property
    def counted(self) -> tuple["Feature", ...]:
        """Counts and sums that it is made of; none of a time."""
        return self.parts or ((self,) if self.source in ("counter", "revenue") else ())

    @property
    def unit_of_count(self) -> int:
        """What one of the things counted is in the integers of `base`."""
        return int(UNITS[self.kind]) if self.source == "counter" else 1


def _table() -> dict[str, Feature]:
    out = []
    for plural, kind in PLURALS.items():
        number = KINDS.index(kind)
        part = ", each 1, ½ or ¼ by how probable a person is" if UNITS[number] > 1 else ""
        for n in HOUR_WINDOWS:
            doc = (
                f"{plural} in the current hour and the {n - 1} before it"
                if n > 1
                else f"{plural} in the current hour"
            )
            out.append(Feature(f"{plural}_{n}h", "counter", "count", doc + part, number, hours=n))
        for n in DAY_WINDOWS:
            doc = f"{plural} in the current UTC day and the {n - 1} before it"
            out.append(Feature(f"{plural}_{n}d", "counter", "count", doc + part, number, days=n))
        out.append(
            Feature(f"hours_since_{kind}", "last", "hours", f"since the latest {kind}; NULL if none", number)
        )
    for n in DAY_WINDOWS:
        doc = f"spent in the current UTC day and the {n - 1} before it"
        out.append(Feature(f"revenue_{n}d", "revenue", "minor units", doc, days=n))
    named = {feature.name: feature for feature in out}
    for made, per in _RATES:
        for n in DAY_WINDOWS:
            name = f"{made}_per_{PLURALS[per]}_{n}d"
            doc = f"{made}_{n}d by {per}_{n}d; NULL without {per}"
            parts = named[f"{made}_{n}d"], named[f"{per}_{n}d"]
            out.append(Feature(name, "rate", "ratio", doc, days=n, parts=parts))
    out.append(Feature("hours_since_first", "first", "hours", "since the first event; NULL if none"))
    return {feature.name: feature for feature in out}


FEATURES: Final = _table()
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def named_in(expressions: Iterable[str]) -> tuple[Feature, ...]:
    """The features that SQL expressions name, by name."""
    words = {word.lower() for text in expressions for word in _WORD.findall(text)}
    return tuple(FEATURES[name] for name in sorted(words & FEATURES.keys()))


def in_clickhouse(feature: Feature, now: int) -> str:
    """SQL of a feature as of `now` (UTC ms) over `profile_snapshot`, as `value` of `base` for rolled rows."""
    if feature.source == "rate":
        made, per = (in_clickhouse(part, now) for part in feature.parts)
        return f"{made} / nullIf({per}, 0)"
    if feature.source in ("last", "first"):
        at = "first_event_at" if feature.source == "first" else f"last_{KINDS[feature.kind]}_at"
        return f"({now} - toUnixTimestamp64Milli({at})) / {HOUR_MS}"
    buckets, unit, length = (
        (feature.hours, "hour", HOUR_MS) if feature.hours else (feature.days, "day", 24 * HOUR_MS)
    )
    what, _ = feature.name.rsplit("_", 1)
    past = f"greatest({now // length} - intDiv(toUnixTimestamp64Milli(as_of), {length}), 0)"
    ring = f"arraySlice({what}_by_{unit}, 1, greatest({buckets} - {past}, 0))"
    return f"toFloat64(arraySum({ring}))"


def base(rows: np.ndarray, feature: Feature, now: int) -> np.ndarray:
    """Integer base of a feature of rolled rows: a count, a sum, or a time in UTC ms (0 never), int64 (n,).

    A rate has none of its own, but those of its parts.
    """
    hour = now // HOUR_MS
    if feature.source == "counter" and feature.hours:
        buckets = (hour - np.arange(feature.hours)) % HOURS
        return np.asarray(rows["hourly"][:, feature.kind, buckets].sum(1, dtype=np.int64))
    if feature.source in ("counter", "revenue"):
        buckets = (hour // 24 - np.arange(feature.days)) % DAYS
        ring = rows["revenue"] if feature.source == "revenue" else rows["daily"][:, feature.kind]
        return np.asarray(ring[:, buckets].sum(1, dtype=np.int64))
    return np.asarray(rows["first"] if feature.source == "first" else rows["last"][:, feature.kind])


def rate(made: np.ndarray, per: np.ndarray) -> np.ndarray:
    """Values of a rate from those of its parts; NaN stands for NULL."""
    return np.asarray(np.divide(made, per, out=np.full(len(made), np.nan), where=per > 0))


def value(feature: Feature, integers: np.ndarray, now: int) -> np.ndarray:
    """Float64 value of a feature from its integers; NaN stands for NULL."""
    if feature.source in ("last", "first"):
        return np.where(integers > 0, (now - integers) / HOUR_MS, np.nan)
    return integers.astype(np.float64) / feature.unit_of_count
