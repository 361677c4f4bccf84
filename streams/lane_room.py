"""The hours that have no room on the way to each mailbox provider, by what is planned and what waits."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from math import inf
from typing import Final

from models.room import Supply, full_hours
from schemas.lanes import Lane, Lanes
from schemas.profile import HOUR_MS, MINUTE_MS, SECOND_MS
from schemas.routes import LaneName
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.query import READ_ONLY
from streams.control import FullHours
from streams.lane_standings import LaneStanding
from streams.warehouse import Warehouse

# What is overdue, since everything is paused say, comes in the present hour.
_PLANNED: Final = """
WITH planned AS (
    SELECT d.recipient_id AS recipient_id, greatest(assumeNotNull(d.due_at), w.until) AS due
    FROM decision AS d
    LEFT ANTI JOIN (
        SELECT decision_id FROM release
        WHERE outcome != 'deferred' AND at >= toDateTime64(%(since)s, 3, 'UTC')
    ) AS r ON r.decision_id = d.decision_id
    LEFT JOIN (
        SELECT decision_id, max(due_at) AS until FROM release
        WHERE outcome = 'deferred' AND at >= toDateTime64(%(since)s, 3, 'UTC') GROUP BY decision_id
    ) AS w ON w.decision_id = d.decision_id
    WHERE d.outcome = 'scheduled' AND d.at >= toDateTime64(%(since)s, 3, 'UTC')
        AND d.expires_at > toDateTime64(%(now)s, 3, 'UTC')
)
SELECT if(p.provider = '', 'other', p.provider) AS provider,
    greatest(intDiv(toUnixTimestamp(planned.due), 3600), intDiv(toInt64(%(now)s), 3600)) AS hour, count()
FROM planned
LEFT JOIN (
    SELECT recipient_id, toString(provider) AS provider FROM profile_snapshot
    WHERE recipient_id IN (SELECT recipient_id FROM planned)
) AS p ON p.recipient_id = planned.recipient_id
GROUP BY provider, hour
"""
_NEWEST: Final = "SELECT toUnixTimestamp64Milli(max(at)) FROM lane_standing"
_MOST_BEHIND_MS: Final = 10 * MINUTE_MS
# Over a day: a lane that slowed down for minutes is not slow for two days, one that is kept slow is.
_RATES: Final = """
SELECT lane, avg(rate) FROM lane_standing
WHERE at > toDateTime64(%(now)s, 3, 'UTC') - INTERVAL 1 DAY GROUP BY lane
"""


class TrailBehind(RuntimeError):
    """ClickHouse is far behind Kafka, so what was released since would count as planned: see to RECORD."""


Planned = Mapping[str, Mapping[int, int]]


def planned(house: Warehouse, now: int, longest: int) -> Planned:
    """How many messages are scheduled and neither released nor withheld, by provider and UTC hour since 1970.

    `longest` is the longest expiry of a campaign, ms: what was decided before that has passed. Raises
    `ClickHouseError`.
    """
    found: defaultdict[str, dict[int, int]] = defaultdict(dict)
    span = {"now": now / SECOND_MS, "since": (now - longest) / SECOND_MS}
    with closing(ClickHouse(house.address, READ_ONLY, house.views)) as client:
        for provider, hour, count in client.execute(_PLANNED, span):
            found[provider][hour] = count
    return found


def check_fresh(house: Warehouse, standings: Sequence[LaneStanding]) -> None:
    """Hold DELIVER's newest cut in ClickHouse against Kafka's. Raises `TrailBehind` or `ClickHouseError`."""
    with closing(ClickHouse(house.address, READ_ONLY, house.views)) as client:
        [(landed,)] = client.execute(_NEWEST)
    behind = max((each.cut_at for each in standings), default=0) - landed
    if behind > _MOST_BEHIND_MS:
        raise TrailBehind(
            f"ClickHouse is {behind // MINUTE_MS} min behind Kafka: is `opportune run record` running?"
        )


def rates(house: Warehouse, now: int) -> dict[str, float]:
    """Messages a second that each lane went at, on the average of its last day. Raises `ClickHouseError`."""
    with closing(ClickHouse(house.address, READ_ONLY, house.views)) as client:
        return {lane: float(rate) for lane, rate in client.execute(_RATES, {"now": now / SECOND_MS})}


def supply(
    provider: str, standings: Sequence[LaneStanding], of_day: Mapping[str, float], lanes: Lanes
) -> Supply:
    """What goes to a provider on all its lanes together; a lane's settings tell where nothing went yet.

    `of_day` are the lanes' average rates. A pause is not looked at: it ends nobody knows when.
    """
    told = {LaneName.of(each.lane): each for each in standings}
    names = {name for name in told if name.provider == provider}
    for whole in {replace(name, part=0) for name in names} or {LaneName(provider)}:
        names |= {replace(whole, part=part) for part in range(lanes.of(str(whole)).parts)}
    each = [
        _supply(lanes.of(str(name)), told.get(name), of_day.get(str(name))) for name in sorted(names, key=str)
    ]
    return Supply(
        sum(one.rate for one in each),
        sum(one.waiting for one in each),
        min(one.opens_at for one in each),
        sum(one.a_day for one in each),
        sum(one.left for one in each),
    )


def _supply(lane: Lane, standing: LaneStanding | None, rate: float | None) -> Supply:
    """What goes on one lane, or part of one."""
    share = 1 - lane.reserve
    if standing is None:
        a_day = inf if lane.warm_up is None else max(1.0, lane.warm_up.first_day * share)
        return Supply(lane.rate * share, 0, 0, a_day, a_day)
    a_day = inf if standing.allowed is None else standing.allowed
    return Supply(
        min(standing.rate if rate is None else rate, lane.rate) * share,
        standing.waiting,
        standing.stopped_until or 0,
        a_day,
        max(0.0, a_day - standing.begun),
    )


def change(
    plan: Planned,
    standings: Sequence[LaneStanding],
    of_day: Mapping[str, float],
    lanes: Lanes,
    now: int,
    in_force: Mapping[str, frozenset[int]],
) -> FullHours | None:
    """The full hours at `now` (UTC ms); None where those in force are right, but for those past."""
    present = now // HOUR_MS
    before = {provider: frozenset(h for h in hours if h >= present) for provider, hours in in_force.items()}
    found = {
        provider: full_hours(
            plan.get(provider, {}),
            supply(provider, standings, of_day, lanes),
            now,
            before.get(provider, frozenset()),
        )
        for provider in {*plan, *before, *(LaneName.of(each.lane).provider for each in standings)}
    }
    full = {provider: hours for provider, hours in found.items() if hours}
    return (
        None if full == {provider: hours for provider, hours in before.items() if hours} else FullHours(full)
    )
