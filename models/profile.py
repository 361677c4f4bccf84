"""A recipient's profile: rolled through time, fed with events, asked when it is due."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from models import columns, zones
from schemas.layouts import opaque, picked
from schemas.profile import (
    COUNTER_MAX,
    DAY_MS,
    DAYS,
    HOUR_MS,
    HOURS,
    KINDS,
    RECENT_SLOTS,
    SATURATED,
    UNITS,
    WEIGHT_ONE,
    Slot,
)

NEVER: Final = np.iinfo(np.int64).max
EVALUATED_HOURS: Final = 50  # hours after its last event during which a row is evaluated hourly
UNCONFIRMED_AFTER_MS: Final = HOUR_MS

_REVENUE_MAX: Final = 2**32 - 1
ACTIVE_MAX: Final = 2**16 - 1
HALF_LIFE_DAYS: Final = 90  # of hour-of-week weights
_WEEKLY_DECAY: Final = int(2 ** (-7 / HALF_LIFE_DAYS) * 65536)  # applied on Mondays, in 1/65536
# A human open says less than a click: it may be a preview. Judgement, not measured.
_OPEN_WEIGHT: Final = 77
WEIGHTS: Final = np.array([_OPEN_WEIGHT if kind == "open" else WEIGHT_ONE for kind in KINDS], np.int64)


@dataclass(frozen=True)
class Events:
    """Behaviour events that took effect, n columns sorted by (row, position).

    `row` indexes the cut's rows, `position` is the place in the cut, `kind` a column of the counters, `at`
    UTC ms, `amount` minor units (0 but for purchases), `zone` the recipient's zone at that moment (S32).
    `counts` says whether it may be kept, `life` to which of the recipient's `Lives` it belongs, and `weight`
    what it adds to a counter, in `UNITS` of its kind.
    """

    row: np.ndarray
    position: np.ndarray
    kind: np.ndarray
    at: np.ndarray
    amount: np.ndarray
    zone: np.ndarray
    counts: np.ndarray
    life: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.row)


def roll(rows: np.ndarray, now: int) -> None:
    """Bring owned rows to the hour of `now`: empty the buckets that left, decay at week boundaries."""
    hour = now // HOUR_MS
    former = rows["hour"].astype(np.int64)
    stale = np.flatnonzero(former < hour)
    if not len(stale):
        return
    former = former[stale]
    hours = hour - (hour - np.arange(HOURS)) % HOURS  # the UTC hour whose bucket each column is now
    rows["hourly"][stale] *= (hours <= former[:, None])[:, None, :]
    days = hour // 24 - (hour // 24 - np.arange(DAYS)) % DAYS
    kept = days <= (former // 24)[:, None]
    rows["daily"][stale] *= kept[:, None, :]
    rows["revenue"][stale] *= kept
    weeks = week(hour) - week(former)
    rows["hour"][stale] = hour
    for passed in range(int(weeks.max(initial=0))):
        behind = stale[weeks > passed]
        rows["active"][behind] = _faded(rows["active"][behind])


def week(hour: np.ndarray | int) -> np.ndarray:
    """Number of the week, from Monday on, of UTC hours since 1970."""
    return np.asarray((np.asarray(hour) // 24 + 3) // 7)


def faded(active: np.ndarray, weeks: int) -> np.ndarray:
    """Hour-of-week weights, integers (n, 168), as they are so many weeks later."""
    for _ in range(weeks):
        if not active.any():
            break
        active = _faded(active)
    return active


def _faded(active: np.ndarray) -> np.ndarray:
    return np.asarray(active.astype(np.uint32) * _WEEKLY_DECAY >> 16)


@dataclass(frozen=True)
class Additions:
    """What each of n events adds to its hour's and day's buckets, revenue, and hour-of-week profile.

    `hour` is the event's UTC hour, never after that of `now`; `weight` goes to `slot` of `active`.
    """

    hour: np.ndarray
    to_hour: np.ndarray
    to_day: np.ndarray
    to_revenue: np.ndarray
    slot: np.ndarray
    weight: np.ndarray


def additions(rows: np.ndarray, events: Events, now: int) -> Additions:
    """Work out what the events add to rolled rows of lives; nothing is changed yet."""
    this_hour = now // HOUR_MS
    hour = np.minimum(events.at // HOUR_MS, this_hour)
    day = hour // 24
    in_hours, in_days = hour > this_hour - HOURS, day > this_hour // 24 - DAYS
    row, kind = events.life, events.kind
    counter = row * len(KINDS) + kind
    one = events.weight * events.counts
    to_hour = columns.saturating(
        rows["hourly"][row, kind, hour % HOURS].astype(np.int64),
        one * in_hours,
        counter * HOURS + hour % HOURS,
        COUNTER_MAX,
    )
    to_day = columns.saturating(
        rows["daily"][row, kind, day % DAYS].astype(np.int64),
        one * in_days,
        counter * DAYS + day % DAYS,
        COUNTER_MAX,
    )
    to_revenue = columns.saturating(
        rows["revenue"][row, day % DAYS].astype(np.int64),
        events.amount * (in_days & events.counts),
        row * DAYS + day % DAYS,
        _REVENUE_MAX,
    )
    slot = zones.week_slot(zones.local_hours(events.zone, hour)) if len(events) else hour
    activity = _activity(rows, events, hour, in_hours, to_hour)
    return Additions(hour, to_hour, to_day, to_revenue, slot, activity)


def _activity(
    rows: np.ndarray, events: Events, hour: np.ndarray, in_hours: np.ndarray, to_hour: np.ndarray
) -> np.ndarray:
    """Weight each event adds to its hour of week: an active hour votes once, with its strongest kind.

    Where only part of a person was there, with that part of its weight.
    """
    bucket = hour % HOURS
    counted = rows["hourly"][events.life[:, None], np.arange(len(KINDS)), bucket[:, None]].astype(np.int64)
    stored = hour_weights(counted)
    own = np.where(in_hours & events.counts, WEIGHTS[events.kind], 0)
    part = np.flatnonzero((own > 0) & (events.weight < UNITS[events.kind]))
    if len(part):
        own = np.where(own > 0, _whole(counted, events, bucket, to_hour), 0)
    keys = events.life * HOURS + bucket
    order = np.argsort(keys, kind="stable")
    # Events before the ring share buckets with hours inside it; they weigh nothing and change no maximum.
    highest = columns.running_max(np.maximum(own, stored * in_hours)[order], keys[order])
    before = np.where(columns.starts(keys[order]), 0, np.roll(highest, 1)) if len(order) else highest
    before = np.maximum(before, (stored * in_hours)[order])
    out = np.empty_like(own)
    out[order] = np.maximum(own[order] - before, 0)
    return out


def hour_weights(counted: np.ndarray) -> np.ndarray:
    """What hours weigh, by their strongest kind, in 1/256: int64 (n,) of their counters (n, kinds)."""
    return np.asarray((np.minimum(counted, UNITS) * WEIGHTS // UNITS).max(1))


def _whole(counted: np.ndarray, events: Events, bucket: np.ndarray, to_hour: np.ndarray) -> np.ndarray:
    """What the kind of each event weighs in its hour, with all of that kind up to it."""
    counter = (events.life * len(KINDS) + events.kind) * HOURS + bucket
    order = np.argsort(counter, kind="stable")
    sums = np.empty_like(to_hour)
    sums[order] = columns.running_sum(to_hour[order], counter[order])
    upto = counted[np.arange(len(events)), events.kind] + sums
    unit = UNITS[events.kind]
    return np.asarray(np.minimum(upto, unit) * WEIGHTS[events.kind] // unit)


@dataclass(frozen=True)
class Times:
    """When rows were last and first active, UTC ms, int64 (n,); 0 where they never were."""

    last: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> "Times":
        """Those of rows as they stand."""
        return cls(rows["last"].max(1), rows["first"].copy())


def add(rows: np.ndarray, events: Events, added: Additions) -> None:
    """Put counters, revenue, first and last times into owned rows of lives; `add_activity` adds `active`."""
    row, kind, day = events.life, events.kind, added.hour // 24
    np.add.at(rows["hourly"], (row, kind, added.hour % HOURS), added.to_hour.astype(np.uint8))
    np.add.at(rows["daily"], (row, kind, day % DAYS), added.to_day.astype(np.uint8))
    np.add.at(rows["revenue"], (row, day % DAYS), added.to_revenue.astype(np.uint32))
    np.maximum.at(rows["last"], (row, kind), np.where(events.counts, events.at, 0))
    first = np.where(rows["first"] == 0, NEVER, rows["first"])
    np.minimum.at(first, row, np.where(events.counts, events.at, NEVER))
    rows["first"] = np.where(first == NEVER, 0, first)
    hour_now = rows["hour"][row].astype(np.int64)
    lost = (added.hour > hour_now - HOURS) & (added.to_hour < events.weight)
    lost |= (day > hour_now // 24 - DAYS) & (
        (added.to_day < events.weight) | (added.to_revenue < events.amount)
    )
    rows["flags"][row[lost & events.counts]] |= SATURATED


_KEPT: Final = ("hourly", "daily", "revenue", "last", "first", "flags")  # of behaviour, but for `active`


def forget(rows: np.ndarray, which: np.ndarray) -> None:
    """Empty owned rows, by number or mask, of all behaviour."""
    for name in (*_KEPT, "active"):
        rows[name][which] = 0


@dataclass(frozen=True)
class Lives:
    """What recipients live through between withdrawals of consent to profiling, where all is forgotten.

    The first life of every row is the row itself; those after are emptied copies behind the n rows. `row` and
    `position` say, by n + number, whose they are and which record began each, sorted by both.
    """

    rows: np.ndarray
    row: np.ndarray
    position: np.ndarray

    @classmethod
    def begin(cls, rows: np.ndarray, row: np.ndarray, position: np.ndarray) -> "Lives":
        """Lives of n rows, and those that begin at these positions; without any, the rows are not copied."""
        if not len(row):
            return cls(rows, row, position)
        later = picked(rows, row)
        forget(later, np.arange(len(later)))
        return cls(np.concatenate([opaque(rows), opaque(later)]).view(rows.dtype), row, position)

    def of(self, row: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The life that a row lives at a position, int64 (m,)."""
        if not len(self.row):
            return row
        latest = latest_of(self.row, self.position, row, position)
        return np.where(latest >= 0, len(self.rows) - len(self.row) + latest, row)

    def end(self, rows: np.ndarray) -> None:
        """Write the last life of each row into owned rows, but for `active`."""
        if not len(self.row):
            return
        first = len(self.rows) - len(self.row)
        for name in _KEPT:
            rows[name] = self.rows[name][:first]
            rows[name][self.row] = self.rows[name][first:]  # of several the last stays


def latest_of(of_row: np.ndarray, since: np.ndarray, row: np.ndarray, position: np.ndarray) -> np.ndarray:
    """For each row and position the number of the latest change before it, int64 (m,); -1 if there is none.

    The changes, `of_row` and `since`, are sorted by both.
    """
    span = int(max(position.max(initial=0), since.max(initial=0))) + 2
    latest = np.searchsorted(of_row * span + since + 1, row * span + position + 1) - 1
    here = (latest >= 0) & (of_row[latest] == row) if len(of_row) else np.zeros(len(row), np.bool_)
    return np.asarray(np.where(here, latest, -1))


def add_activity(rows: np.ndarray, row: np.ndarray, slot: np.ndarray, weight: np.ndarray) -> None:
    """Add hour-of-week weights to owned rows, up to the maximum."""
    if not weight.any():
        return
    touched, back = np.unique(row, return_inverse=True)
    sums = rows["active"][touched].astype(np.int64)
    np.add.at(sums, (back, slot), weight)
    rows["active"][touched] = np.minimum(sums, ACTIVE_MAX)


def accept(rows: np.ndarray, row: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Which events are no repeat of their recipient's last accepted ones; the rings in owned rows move on.

    Parameters
    ----------
    row, hashes
        int64 and u8, shape (n,), sorted by (row, position); hash 0 is never a repeat and not remembered.

    Returns
    -------
    bool (n,).
    """
    accepted = np.ones(len(row), np.bool_)
    hashed = np.flatnonzero(hashes)
    if not len(hashed):
        return accepted
    of_row, value = row[hashed], hashes[hashed]
    order = np.lexsort((value, of_row))
    repeated = np.zeros(len(hashed), np.bool_)
    same = (of_row[order][1:] == of_row[order][:-1]) & (value[order][1:] == value[order][:-1])
    repeated[order[1:]] = same
    suspect = repeated | (rows["recent"][of_row] == value[:, None]).any(1)
    # A repeat may lie further back than the ring reaches: only a walk in order tells. Repeats are few.
    for number in np.unique(of_row[suspect]).tolist():
        recent = rows["recent"][number].tolist()
        for i in np.flatnonzero(of_row == number).tolist():
            if int(value[i]) in recent:
                accepted[hashed[i]] = False
            else:
                recent = [*recent[1:], int(value[i])]
    kept = accepted[hashed]
    _remember(rows, of_row[kept], value[kept])
    return accepted


def _remember(rows: np.ndarray, row: np.ndarray, value: np.ndarray) -> None:
    """Append hashes (sorted by row, in order) to the rings of owned rows; the oldest drop out."""
    if not len(row):
        return
    touched, counts = np.unique(row, return_counts=True)
    ring = rows["recent"][touched]
    moved = np.arange(RECENT_SLOTS) + np.minimum(counts, RECENT_SLOTS)[:, None]
    ring = np.where(moved < RECENT_SLOTS, np.take_along_axis(ring, moved % RECENT_SLOTS, axis=1), 0)
    from_end = np.repeat(counts, counts) - 1 - columns.rank_in_run(row)
    fits = from_end < RECENT_SLOTS
    ring[np.repeat(np.arange(len(touched)), counts)[fits], RECENT_SLOTS - 1 - from_end[fits]] = value[fits]
    rows["recent"][touched] = ring


def next_evaluation(rows: np.ndarray, after: int) -> np.ndarray:
    """First time after `after` at which the passage of time may change segments, UTC ms, int64 (n,).

    Those are the full hours within 50 hours of the row's last event, and every UTC midnight.
    """
    last = rows["last"].max(1)
    hourly = (np.maximum(last, after) // HOUR_MS + 1) * HOUR_MS
    daily = (after // DAY_MS + 1) * DAY_MS
    return np.where(
        (last > 0) & (hourly <= last + EVALUATED_HOURS * HOUR_MS), np.minimum(hourly, daily), daily
    )


def last_evaluation(rows: np.ndarray, before: np.ndarray, now: int) -> np.ndarray:
    """Latest evaluation time in `(before, now]` of each row, UTC ms, int64 (n,); 0 where there is none."""
    last = rows["last"].max(1)
    hourly = np.minimum(now, last + EVALUATED_HOURS * HOUR_MS) // HOUR_MS * HOUR_MS
    hourly = np.where((last > 0) & (hourly > last), hourly, 0)
    latest = np.maximum(hourly, now // DAY_MS * DAY_MS)
    return np.where(latest > before, latest, 0)


def next_due(rows: np.ndarray, after: int, paused: bool) -> np.ndarray:
    """When each row is to be looked at again without a record, UTC ms, int64 (n,); derived, never stored."""
    pending = rows["pending"]
    waits, released = pending["state"] == Slot.PENDING, pending["state"] == Slot.RELEASED
    due = np.where(waits, pending["expires_at"], NEVER)
    if not paused:
        due = np.where(waits, np.minimum(due, pending["due_at"]), due)
    due = np.where(released, pending["expires_at"] + UNCONFIRMED_AFTER_MS, due)
    return np.asarray(np.minimum(due.min(1), next_evaluation(rows, after)))
