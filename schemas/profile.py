"""A recipient's row: one fixed-layout numpy record, the value of the profile table and its changelog.

Stored accumulators are integers (counts, money in minor units, weights in 1/256), so that a cut split
anywhere gives the same row. Floats exist only in derived features.
"""

from enum import IntEnum
from typing import Any, Final

import numpy as np

from schemas.layouts import Layouts
from schemas.layouts import NewerRow as NewerRow

ROW_VERSION: Final = 4
MAX_ROW_BYTES: Final = 2048

# Kinds of behaviour, in the order of the row's columns; never reordered, new kinds go to the end.
KINDS: Final = ("view", "click", "scroll", "search", "cart", "open", "purchase")
CLICK, OPEN, PURCHASE = (KINDS.index(kind) for kind in ("click", "open", "purchase"))
# What one event of each kind counts: machines click and open too, so those count by quarters of a person.
_HUMAN: Final = 4
UNITS: Final = np.array([_HUMAN if kind in (CLICK, OPEN) else 1 for kind in range(len(KINDS))])
PURPOSES: Final = ("mail", "profiling", "tracking")

HOURS: Final = 48
DAYS: Final = 35
WEEK_HOURS: Final = 168
WEIGHT_ONE: Final = 256
COUNTER_MAX: Final = 255
MAX_SEGMENTS: Final = 128
_TIMED_SEGMENTS: Final = 8
MAX_CAMPAIGNS: Final = 64
PENDING_SLOTS: Final = 8
SENT_SLOTS: Final = 12
RECENT_SLOTS: Final = 8

SECOND_MS: Final = 1000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

SATURATED: Final = 1  # bit of `flags`: a counter stands at its maximum and stopped counting


class Consent(IntEnum):
    """State of one purpose."""

    UNKNOWN = 0
    GRANTED = 1
    WITHDRAWN = 2


class Suppression(IntEnum):
    """Why messages to a recipient are held back, the gravest first; zero is not suppressed."""

    NONE = 0
    BOUNCED = 1
    COMPLAINED = 2
    UNSUBSCRIBED = 3


class Slot(IntEnum):
    """State of one send slot."""

    FREE = 0
    PENDING = 1
    RELEASED = 2


_PENDING_1: Final = np.dtype(
    [
        ("state", "u1"),
        ("campaign", "u1"),
        ("due_at", "<i8"),
        ("expires_at", "<i8"),
        ("decision", "V16"),  # bytes of the decision's UUID
        ("lane", "S12"),  # empty until released
    ]
)
PENDING: Final = np.dtype(
    [
        *_PENDING_1.descr[:-1],
        ("provider", "S12"),  # of its lane, as the next two; empty until released
        ("identity", "u1"),  # its number: `schemas.routes.Routes`
        ("part", "u1"),
        ("model", "<u2"),  # that chose its hour, by `Models.names`; 0 none
    ]
)

_ROW_1: Final = np.dtype(
    [
        ("version", "u1"),
        ("flags", "u1"),
        ("hour", "<i4"),  # UTC hour that the counters were rolled to; day and week follow from it
        ("hourly", "u1", (len(KINDS), HOURS)),  # ring, in `UNITS`: bucket of UTC hour h is h % 48
        ("daily", "u1", (len(KINDS), DAYS)),  # ring, in `UNITS`: bucket of UTC day d is d % 35
        ("revenue", "<u4", (DAYS,)),  # minor units, same ring
        ("active", "<u2", (WEEK_HOURS,)),  # active hours by local hour of week, 1/256, Monday 00:00 first
        ("last", "<i8", (len(KINDS),)),  # latest event time per kind, UTC ms, 0 never
        ("first", "<i8"),  # earliest event time, UTC ms, 0 never
        ("zone", "S32"),  # IANA name, empty unknown
        ("locale", "S8"),
        ("provider", "S12"),
        ("place", "S8"),
        ("consent", "u1", (len(PURPOSES),)),
        ("consent_version", "<i8", (len(PURPOSES),)),
        ("suppressed", "u1"),
        ("segments", "<u8", (MAX_SEGMENTS // 64,)),  # membership: bit n % 64 of word n // 64
        (
            "entered",
            "<u4",
            (_TIMED_SEGMENTS,),
        ),  # of the first segments: minutes since 1970 at entry, 0 outside
        ("cooldown", "<u4", (MAX_CAMPAIGNS,)),  # minutes since 1970 until which a campaign rests, rounded up
        ("sent_at", "<i8", (6,)),  # latest releases, UTC ms, newest last
        ("sent_campaign", "u1", (6,)),
        ("pending", _PENDING_1, (PENDING_SLOTS,)),
        ("recent", "<u8", (12,)),  # hashes of the latest producers' event ids, newest last
    ]
)


def _with(layout: np.dtype, **changed: tuple[Any, ...] | None) -> np.dtype:
    """The layout with fields of another type, without some (None), and with new ones at its end."""
    fields: dict[str, Any] = {name: rest for name, *rest in layout.descr}
    fields |= changed
    return np.dtype([(name, *of) for name, of in fields.items() if of is not None])


_ROW_2: Final = _with(
    _ROW_1,
    sent_at=("<u4", (SENT_SLOTS,)),  # latest releases, UTC s, rounded up: a cap ends no earlier; newest last
    sent_campaign=("u1", (SENT_SLOTS,)),
)
_ROW_3: Final = _with(
    _ROW_2,
    entered=None,
    segments_version=("<u4",),  # of the definitions that `segments` was worked out with: `Applied.version`
)
ROW: Final = _with(_ROW_3, pending=(PENDING, (PENDING_SLOTS,)), recent=("<u8", (RECENT_SLOTS,)))
if ROW.itemsize > MAX_ROW_BYTES:
    raise AssertionError(f"a row is {ROW.itemsize} bytes, more than {MAX_ROW_BYTES}")


def _more_sends(old: np.ndarray, new: np.ndarray) -> None:
    """Times of sends in seconds, and of twice as many."""
    kept = old["sent_at"].shape[1]
    new["sent_at"][:, -kept:] = seconds(old["sent_at"])
    new["sent_campaign"][:, -kept:] = old["sent_campaign"]


def _quarters(old: np.ndarray, new: np.ndarray) -> None:
    """Clicks and opens were counted whole. Segments were those of the policy files: version 0."""
    for name in ("hourly", "daily"):
        counted = old[name] * UNITS[:, None]
        new[name] = np.minimum(counted, COUNTER_MAX)
        new["flags"] |= np.where((counted > COUNTER_MAX).any((1, 2)), np.uint8(SATURATED), np.uint8(0))


def _lanes_and_models(old: np.ndarray, new: np.ndarray) -> None:
    """A lane was a provider: the default identity's, in one part. Which model chose was not kept.

    Fewer event ids are remembered.
    """
    for name in ("state", "campaign", "due_at", "expires_at", "decision"):
        new["pending"][name] = old["pending"][name]
    new["pending"]["provider"] = old["pending"]["lane"]
    new["recent"] = old["recent"][:, -new["recent"].shape[1] :]


# Every layout there was, and how a row of one becomes a row of the next; never changed, only added to.
LAYOUTS: Final = Layouts("a row", (_ROW_1, _ROW_2, _ROW_3, ROW), (_more_sends, _quarters, _lanes_and_models))


def seconds(at: Any) -> Any:
    """UTC ms as whole seconds, rounded up."""
    return -(-at // SECOND_MS)


def empty(count: int) -> np.ndarray:
    """`count` rows of recipients of whom nothing is known."""
    rows = np.zeros(count, ROW)
    rows["version"] = ROW_VERSION
    return rows
