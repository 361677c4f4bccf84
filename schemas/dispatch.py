"""A dispatch's row in DELIVER's table: the message that waits, is claimed, or has ended; keyed by its id."""

from enum import IntEnum
from typing import Final

import numpy as np

from schemas.layouts import Layouts
from schemas.profile import DAY_MS

ROW_VERSION: Final = 2
# Longer than a command can be repeated: as long as its topic keeps it.
KEPT_MS: Final = 35 * DAY_MS


class State(IntEnum):
    """Where a dispatch stands; from `DELIVERED` on it has ended and is kept against repeats."""

    AWAITED = 1  # recalled before its command came
    WAITING = 2
    CLAIMED = 3
    DELIVERED = 4
    BOUNCED = 5
    EXPIRED = 6
    RECALLED = 7
    UNKNOWN = 8


_DISPATCH_1: Final = np.dtype(
    [
        ("version", "u1"),
        ("state", "u1"),
        ("recalled", "u1"),  # called back while it was claimed: it must not be tried again
        ("attempts", "<u2"),  # times it was handed to a server
        ("released_at", "<i8"),  # UTC ms
        ("expires_at", "<i8"),
        ("not_before", "<i8"),  # of a deferred message; 0 where it may go at once
        ("decision", "V16"),  # bytes of the decision's UUID
        ("recipient", "S128"),
        ("campaign", "S63"),
        ("template", "S63"),
        ("lane", "S32"),
    ]
)

DISPATCH: Final = np.dtype([*_DISPATCH_1.descr, ("model", "S16")])  # that chose its hour; empty: none did

# Every layout there was, and how a row of one becomes a row of the next; never changed, only added to.
LAYOUTS: Final = Layouts("a dispatch", (_DISPATCH_1, DISPATCH), (lambda old, new: None,))


def empty(count: int) -> np.ndarray:
    """`count` rows of dispatches of which nothing is known."""
    rows = np.zeros(count, DISPATCH)
    rows["version"] = ROW_VERSION
    return rows
