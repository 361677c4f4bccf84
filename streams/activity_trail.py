"""Activity of recipients read back from ClickHouse, to learn from it."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

import numpy as np

from models.sendtime.activity import Activity
from schemas.profile import DAY_MS, HOUR_MS, SECOND_MS, seconds
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.query import READ_ONLY
from streams.warehouse import Warehouse

# Recipients are asked for in so many parts, or a large table would take more memory than ClickHouse may have,
# or longer than an answer is waited for. Of 1.2 million hours a part took a second.
_PARTS: Final = 16
# A number for each name, since a million names cost more than all else; two of a billion recipients may be
# taken for one.
HISTORY_DAYS: Final = 365  # what was before says next to nothing about today's hours
_SQL: Final = """
SELECT cityHash64(recipient_id) AS number, toUnixTimestamp(hour), toString(zone)
FROM activity
WHERE hour >= toDateTime(%(since)s, 'UTC') AND hour < toDateTime(%(until)s, 'UTC')
    AND weight >= 0.5 -- not of opens alone, nor of clicks that a machine may have made
    AND number %% %(parts)s = %(part)s
"""


def latest(house: Warehouse) -> int:
    """When the latest hour ends in which anybody was active, UTC ms; 0 if none. Raises as `activity_of`."""
    with closing(ClickHouse(house.address, READ_ONLY, house.views)) as client:
        [(hour,)] = client.execute("SELECT toUnixTimestamp(max(hour)) FROM activity")
    return int(hour) * SECOND_MS + HOUR_MS if hour else 0


def activity_of(house: Warehouse, until: int, days: int, default_zone: str) -> tuple[Activity, np.ndarray]:
    """Hours that began in the `days` before `until` (UTC ms) and in which recipients were active.

    Recipients have numbers from 0 on: the places of their `cityHash64` in the second answer, sorted. Whose
    zone is unknown gets `default_zone`. Of those whose profile was emptied or taken away nothing is told, as
    the table's view sees to.

    Raises
    ------
    ClickHouseError
        It did not answer, or its tables are not up to date.
    """
    span = {"since": seconds(until - days * DAY_MS), "until": seconds(until), "parts": _PARTS}
    with closing(ClickHouse(house.address, READ_ONLY, house.views)) as client:
        parts = [_arrays(client.columns(_SQL, span | {"part": part}), default_zone) for part in range(_PARTS)]
    numbers, hours, zones = (np.concatenate(some) for some in zip(*parts, strict=True))
    hashes, recipient = np.unique(numbers, return_inverse=True)
    return Activity.of(recipient, hours * SECOND_MS, zones), hashes


def _arrays(columns: Sequence[Sequence[Any]], default_zone: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes u8, UTC seconds int64 and zones S32."""
    numbers, hours, zones = columns or ((), (), ())
    names = [zone.encode() or default_zone.encode() for zone in zones]
    return np.array(numbers, np.uint64), np.array(hours, np.int64), np.array(names, "S32")
