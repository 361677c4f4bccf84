"""Wall clocks: UTC offsets of IANA zones at UTC hours, looked up once per (zone, hour)."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

_HOUR_S: Final = 3600
_MONDAY: Final = 72  # 1970-01-01 00:00 was a Thursday


@lru_cache(maxsize=1 << 16)
def _offset_minutes(zone: bytes, hour: int) -> int:
    if zone[:1] in (b"+", b"-"):
        return int(zone[:1] + b"1") * (int(zone[1:3]) * 60 + int(zone[-2:]))
    moment = datetime.fromtimestamp(hour * _HOUR_S, UTC).astimezone(ZoneInfo(zone.decode()))
    offset = moment.utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) // 60


def local_hours(zones: np.ndarray, hours: np.ndarray) -> np.ndarray:
    """Local full hours since 1970 of UTC hours.

    Parameters
    ----------
    zones
        S32, shape (n,); IANA names, or offsets like +02:00; none empty.
    hours
        int64 UTC hours since 1970, shape (n,) or (n, k).

    Returns
    -------
    int64 of the shape of `hours`. The offset is the one at the start of the UTC hour, so days of 23 and
    25 hours come out right; zones off by half an hour count the hour in which the UTC hour begins.
    """
    names, which = np.unique(zones, return_inverse=True)
    some, back = np.unique(hours, return_inverse=True)
    offsets = np.array(
        [[_offset_minutes(name, hour) for hour in some.tolist()] for name in names.tolist()], np.int64
    ).reshape(len(names), len(some))
    of_zone = which.reshape(len(zones), *[1] * (hours.ndim - 1))
    return np.asarray((hours * 60 + offsets[of_zone, back.reshape(hours.shape)]) // 60)


def week_slot(local: np.ndarray) -> np.ndarray:
    """Hour of week, 0 is Monday 00:00, of local hours since 1970."""
    return (local + _MONDAY) % 168
