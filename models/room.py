"""Which hours have no room: what a mailbox provider takes beside what is planned for it and what waits."""

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from math import inf
from typing import Final

from schemas.profile import DAY_MS, HOUR_MS, SECOND_MS

AHEAD: Final = 48  # hours, more than any decision looks ahead
# An hour that was full has room again below this share of what it takes: a rate that goes up and down a
# little must not change the full hours each time.
_ROOM_AGAIN: Final = 0.9


@dataclass(frozen=True)
class Supply:
    """What a mailbox provider takes of messages that are not transactional.

    `rate` messages a second from `opens_at` (UTC ms) on, of which `waiting` go first. On a UTC day no more
    than `a_day` go, on the present one `left`.
    """

    rate: float
    waiting: int
    opens_at: int = 0
    a_day: float = inf
    left: float = inf


def full_hours(
    planned: Mapping[int, int], supply: Supply, now: int, before: Set[int] = frozenset()
) -> frozenset[int]:
    """Hours of the next 48, the present one first, into which no message more fits.

    What does not fit into an hour goes in the next. An hour is full if what comes to it from before and what
    is planned for it fill it, and on a day on which only so many go, if the day is full.

    Parameters
    ----------
    planned
        How many messages are due in each UTC hour since 1970.
    supply
        What goes.
    now
        UTC ms.
    before
        The hours that were full when it was last asked: they stay so until a tenth of them is free.
    """
    first, full = now // HOUR_MS, set[int]()
    of_days: Counter[int] = Counter()
    for hour in range(first, first + AHEAD):
        of_days[_day(hour)] += planned.get(hour, 0)
    queue, left, budget = float(supply.waiting), supply.left, supply.left
    demand = queue + of_days[_day(first)]  # of the day, on which no more than the budget goes
    for hour in range(first, first + AHEAD):
        if hour > first and _day(hour) != _day(hour - 1):
            left, budget, demand = supply.a_day, supply.a_day, queue + of_days[_day(hour)]
        begins = max(now, supply.opens_at, hour * HOUR_MS)
        takes = supply.rate * max(0, (hour + 1) * HOUR_MS - begins) / SECOND_MS
        comes, share = queue + planned.get(hour, 0), _ROOM_AGAIN if hour in before else 1.0
        if comes + 1 > takes * share or demand + 1 > budget * share:
            full.add(hour)
        goes = min(comes, takes, left)
        queue, left = comes - goes, left - goes
    return frozenset(full)


def _day(hour: int) -> int:
    return hour * HOUR_MS // DAY_MS
