"""Active hours of recipients as columns, out of the rings of their rows."""

from typing import Any, Final

import numpy as np
from confluent_kafka import Message

from models.profile import hour_weights
from schemas.profile import CLICK, HOURS, PURCHASE, UNITS, WEIGHT_ONE
from streams.recording.profiles import States

_HOUR_S: Final = 3600
_SPAN: Final = 1 << 32  # hours, as many as a row can tell

Columns = dict[str, list[Any]]


def columns_of(states: States) -> tuple[Columns, list[Message]]:
    """Columns of every hour in which any row of a batch has counted something, and the record of each.

    Not only the latest rows are asked: of a loaded year many of one recipient are in a batch, and a ring has
    two days. Of several rows that tell of an hour the last is kept, as the table does: batches that are cut
    otherwise give the same hours.
    """
    place, hour = _last(states, *_active(states.rows))
    rows = states.rows
    counted = rows["hourly"][place, :, hour % HOURS]
    columns: Columns = {
        "recipient_id": np.array(states.recipients, object)[states.of[place]].tolist(),
        "hour": (hour * _HOUR_S).tolist(),
        "zone": np.char.decode(rows["zone"][place], "utf-8", "replace").tolist(),
        "weight": (hour_weights(counted) / WEIGHT_ONE).tolist(),
        "clicks": (counted[:, CLICK] / UNITS[CLICK]).tolist(),
        "purchases": counted[:, PURCHASE].tolist(),
        "first_event_at": rows["first"][place].tolist(),
    }
    return columns, [states.messages[each] for each in place.tolist()]


def _active(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every hour that rows have counted something in: the row's number and the UTC hour, int64 (m,)."""
    place, bucket = np.nonzero(rows["hourly"].any(1))
    latest = rows["hour"][place].astype(np.int64)
    return place, latest - (latest - bucket) % HOURS


def _last(states: States, place: np.ndarray, hour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each recipient's hours those of the last row that has them, in the order of rows."""
    keys = states.of[place] * _SPAN + hour
    _, from_end = np.unique(keys[::-1], return_index=True)
    kept = np.sort(len(keys) - 1 - from_end)
    return place[kept], hour[kept]
