"""Activity of recipients over time, and what a model would have been told of them at any moment of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np

from models import columns, profile, zones
from models.sendtime.histories import UNSEEN, Histories
from schemas.profile import HOUR_MS, WEEK_HOURS, WEIGHT_ONE

_SPAN: Final = 10_000_000  # hours, more than eleven centuries
GUARD: Final = 2  # hours from a visit's to the first candidate, or its going on would count as a hit


class TooFew(ValueError):
    """Not enough activity to train on; the text says what there is and what is needed."""


@dataclass(frozen=True)
class Activity:
    """Hours in which recipients were active, n columns sorted by (recipient, hour), each hour once.

    `recipient` are numbers from 0 on, `hour` UTC hours since 1970, `local` their local ones, int64 (n,);
    `zone` names or offsets, S32 (n,).
    """

    recipient: np.ndarray
    hour: np.ndarray
    local: np.ndarray
    zone: np.ndarray

    @classmethod
    def of(cls, recipient: np.ndarray, at: np.ndarray, zone: np.ndarray) -> Self:
        """The active hours of events: recipients' numbers, UTC ms, int64 (n,), and zones, S32 (n,).

        The zone of an hour is that of its first event.
        """
        hour = at // HOUR_MS
        order = np.lexsort((at, recipient))
        recipient, hour, zone = recipient[order], hour[order], zone[order]
        begins = columns.starts(recipient * _SPAN + hour)
        recipient, hour, zone = recipient[begins], hour[begins], zone[begins]
        local = np.empty_like(hour)
        for name in np.unique(zone):
            mine = zone == name
            local[mine] = zones.local_hours(np.array([name]), hour[mine])
        return cls(recipient, hour, local, zone)

    def __len__(self) -> int:
        """Return the number of active hours."""
        return len(self.recipient)

    def picked(self, which: np.ndarray) -> "Activity":
        """Some of them, by number or mask, in order."""
        return Activity(self.recipient[which], self.hour[which], self.local[which], self.zone[which])

    @cached_property
    def visits(self) -> np.ndarray:
        """Numbers of the hours before which the recipient was not active for an hour, int64 (m,)."""
        goes_on = (self.hour[1:] == self.hour[:-1] + 1) & (self.recipient[1:] == self.recipient[:-1])
        return np.flatnonzero(np.append(True, ~goes_on)[: len(self)])

    def is_active(self, recipient: np.ndarray, hour: np.ndarray) -> np.ndarray:
        """Whether recipients were active in UTC hours, bool of the shape that both broadcast to."""
        keys = recipient * _SPAN + hour
        place = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return np.asarray(self._keys[place] == keys)

    @cached_property
    def counts(self) -> np.ndarray:
        """How many hours each recipient had been active up to and with each of theirs, int64 (n,)."""
        return columns.rank_in_run(self.recipient) + 1

    @cached_property
    def _keys(self) -> np.ndarray:
        return np.asarray(self.recipient * _SPAN + self.hour)

    def histories(self, which: np.ndarray) -> Histories:
        """What the profile of each recipient holds right after some of the hours, by number, int64 (m,).

        The same integers as the stream's rows of events of weight one: what is added within a week is summed,
        and fades at its end.
        """
        active = np.empty((len(which), WEEK_HOURS), np.uint16)
        slots, week = zones.week_slot(self.local), profile.week(self.hour)
        in_order = np.argsort(week, kind="stable")  # within a week still by recipient and hour
        asked = np.argsort(week[which], kind="stable")
        rows = np.zeros(int(self.recipient.max(initial=-1)) + 1, [("active", "<u2", (WEEK_HOURS,))])
        weeks, begins = np.unique(week[in_order], return_index=True)
        ends = np.append(begins[1:], len(self))[: len(weeks)]
        bounds = (
            np.searchsorted(week[which][asked], weeks),
            np.searchsorted(week[which][asked], weeks, "right"),
        )
        former = int(weeks[0]) if len(weeks) else 0
        for now, begin, end, low, high in zip(weeks.tolist(), begins, ends, *bounds, strict=True):
            rows["active"] = profile.faded(rows["active"], now - former)
            former = now
            mine, some = in_order[begin:end], asked[low:high]
            active[some] = _grown(rows["active"], self.recipient, slots, mine, which[some])
            profile.add_activity(rows, self.recipient[mine], slots[mine], np.full(len(mine), WEIGHT_ONE))
        return Histories(active, self.hour[which], self._first[self.recipient[which]], self.zone[which])

    @cached_property
    def _first(self) -> np.ndarray:
        """UTC hour of each recipient's first activity, int64."""
        first = np.full(int(self.recipient.max(initial=-1)) + 1, -UNSEEN)
        np.minimum.at(first, self.recipient, self.hour)
        return first

    def histories_at(self, recipient: np.ndarray, hour: np.ndarray) -> Histories:
        """What the profiles held at UTC hours, int64 (m,), of recipients who had been active by then.

        With what happened within the hour. Of those who had not, nothing; their zone is empty.
        """
        latest = np.searchsorted(self._keys, recipient * _SPAN + hour, "right") - 1
        seen = (latest >= 0) & (self.recipient[latest] == recipient)
        found = self.histories(np.where(seen, latest, 0))
        active, weeks = found.active.copy(), profile.week(hour) - profile.week(found.last)
        for passed in range(int(weeks[seen].max(initial=0))):
            behind = np.flatnonzero(seen & (weeks > passed))
            active[behind] = profile.faded(active[behind], 1)
        active[~seen] = 0
        last, first = np.where(seen, found.last, UNSEEN), np.where(seen, found.first, UNSEEN)
        return Histories(active, last, first, np.where(seen, found.zone, b""))


def _grown(
    rows: np.ndarray, recipient: np.ndarray, slots: np.ndarray, mine: np.ndarray, which: np.ndarray
) -> np.ndarray:
    """Weights of rows with those hours of a week, `mine`, that came up to each of `which`, (m, 168)."""
    place = np.searchsorted(mine, which)
    first = np.searchsorted(recipient[mine], recipient[which])
    counts = place - first + 1
    of = np.repeat(np.arange(len(which)), counts)
    added = mine[np.repeat(first, counts) + columns.rank_in_run(of)]
    grown = rows[recipient[which]].astype(np.int64)
    np.add.at(grown, (of, slots[added]), WEIGHT_ONE)
    return np.asarray(np.minimum(grown, profile.ACTIVE_MAX))


@dataclass(frozen=True)
class Windows:
    """m visits, and in which of the k hours that could be chosen after each the recipient was active.

    `at` are the visits' UTC hours and `counts` the recipients' active hours up to them, int64 (m,), `hours`
    and `local` the UTC and local hours of the candidates, int64 (m, k), `active` bool (m, k).
    """

    recipient: np.ndarray
    at: np.ndarray
    counts: np.ndarray
    histories: Histories
    hours: np.ndarray
    local: np.ndarray
    active: np.ndarray

    @classmethod
    def of(cls, activity: Activity, which: np.ndarray, slots: int) -> Self:
        """Windows of `slots` hours, the first of them `GUARD` hours after that of a visit, by number."""
        at, recipient, zone = activity.hour[which], activity.recipient[which], activity.zone[which]
        hours = at[:, None] + GUARD + np.arange(slots)
        local = np.empty_like(hours)
        for name in np.unique(zone):
            mine = zone == name
            local[mine] = zones.local_hours(np.array([name]), hours[mine].ravel()).reshape(-1, slots)
        active = activity.is_active(recipient[:, None], hours)
        counts = activity.counts[which]
        return cls(recipient, at, counts, activity.histories(which), hours, local, active)

    def __len__(self) -> int:
        """Return the number of visits."""
        return len(self.at)

    def picked(self, which: np.ndarray) -> "Windows":
        """Some of them, by number or mask."""
        return Windows(
            self.recipient[which],
            self.at[which],
            self.counts[which],
            self.histories.picked(which),
            self.hours[which],
            self.local[which],
            self.active[which],
        )

    @property
    def came_back(self) -> np.ndarray:
        """Whether the recipient was active in any of the hours, bool (m,)."""
        return np.asarray(self.active.any(1))
