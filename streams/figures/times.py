"""Times of many records at once: read as columns, counted by hour of day."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from schemas import codec, columns, zones
from schemas.codec import MalformedRecord, UnknownSchema

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
# All zones' offsets are multiples of it, so counts by quarter hour can be read in any zone.
QUARTER_MS: Final = HOUR_MS // 4
_LATEST_TIME_MS: Final = 4_102_444_800_000  # 2100: a time after it is a producer's error


@dataclass(frozen=True)
class HoursOfDay:
    """Shares of the 24 hours of day in `zone`: of the times chosen for sends, and of what recipients did."""

    zone: str
    sends: list[float]
    activity: list[float]
    sends_counted: int
    activity_counted: int


def column(topic: str, found: Sequence[tuple[bytes, bytes]], name: str) -> pl.DataFrame:
    """One field of n records, given as key and value, beside their `recipient_id`; times as UTC ms.

    Records that do not decode are left out: they are among the dead letters.
    """
    number = codec.current_id(topic)
    if all(value.startswith(codec.header(number)) for _, value in found):
        try:
            frame = columns.decode(number, [value for _, value in found], [key for key, _ in found])
            return frame.select("recipient_id", pl.col(name).cast(pl.Int64) if name.endswith("_at") else name)
        except columns.ColumnsRefused:
            pass
    rows = []
    for _, value in found:
        try:
            fields = codec.decode(topic, value)
        except (MalformedRecord, UnknownSchema):
            continue
        cell = codec.millis(fields[name]) if name.endswith("_at") else fields[name]
        rows.append((fields["recipient_id"], cell))
    kind = pl.Int64 if name.endswith("_at") else pl.String
    return pl.DataFrame(rows, {"recipient_id": pl.String, name: kind}, orient="row")


def quarters(times: pl.Series) -> Counter[int]:
    """Count times, UTC ms, by quarter hour since 1970; those that no clock shows are left out."""
    plain = times.drop_nulls().to_numpy()
    plain = plain[(plain >= 0) & (plain < _LATEST_TIME_MS)]
    number, count = np.unique(plain // QUARTER_MS, return_counts=True)
    return Counter(dict(zip(number.tolist(), count.tolist(), strict=True)))


def shares_of_day(counts: Counter[int], zone: str) -> list[float]:
    """Turn counts by quarter hour since 1970 into shares of the 24 hours of day in `zone`; none give 0."""
    starts = pl.Series(list(counts), dtype=pl.Int64) * QUARTER_MS
    local = pl.from_epoch(starts, "ms").dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.hour()
    by_hour = np.bincount(local.to_numpy(), weights=list(counts.values()), minlength=24)
    return [float(share) for share in by_hour / max(1, counts.total())]


def usual_zone(zone_of: dict[str, str]) -> str:
    """Return the zone of most recipients, of equals the first by name; UTC where none is known."""
    known = Counter(zone for zone in zone_of.values() if zone in zones.NAMES)
    return min(known, key=lambda zone: (-known[zone], zone), default="UTC")
