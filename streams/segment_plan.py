"""Who would enter and leave if the segments of a policy folder were put in force: by stored profiles."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from models import features
from models.redefinition import Change, changes
from schemas import codec, topics
from schemas.policy import Applied, Policy, Segment
from sinks.clickhouse import migrate
from sinks.clickhouse.query import ask
from streams.engine.control import Control
from streams.engine.journal import last_entry
from streams.engine.kafka import Client
from streams.warehouse import Warehouse

_EXAMPLES: Final = 3
_RINGS_SINCE: Final = 3  # version of rows: ClickHouse has counts by hour and day of those
_LATEST: Final = "SELECT maxOrNull(at) FROM cut WHERE line = 'decide'"
_SQL: Final = """
SELECT count(), countIf(row_version < {rings_since}), {asked}
FROM (SELECT recipient_id, row_version, {values} FROM profile_snapshot)
"""


class NothingRecorded(LookupError):
    """ClickHouse has no cut of DECIDE: there is nobody to plan for."""


@dataclass(frozen=True)
class Movement:
    """Who would move because of a change: how many are in it, enter, leave; and some of the last two."""

    change: Change
    members: int
    enters: int
    leaves: int
    entering: Sequence[str]
    leaving: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What changes would do as of `now`, UTC ms, to so many profiles; of `unknown` too little is recorded."""

    now: int
    profiles: int
    unknown: int
    movements: Sequence[Movement]


def planned(control: Control, policy: Policy) -> list[Change]:
    """What putting a policy's segments in force would change.

    Where none were ever put in force, those that are in force are not known here: then it may be all of them.
    """
    if control.segments:
        return changes((Applied(0, control.segments[-1].segments), Applied(1, policy.segments)), 0)
    return [Change(segment.number, segment, segment, 0) for segment in policy.segments]


def running(client: Client, partitions: int) -> list[str]:
    """Hashes of the policies by which the last cuts of DECIDE were made; none before the first cut."""
    with closing(client.reader()) as consumer:
        last = (last_entry(consumer, topics.JOURNAL.name, partition) for partition in range(partitions))
        return sorted({entry.policy for entry, _ in filter(None, last)})


def kind(change: Change) -> str:
    """What a change is, in a word."""
    if change.before is None:
        return "new"
    if change.now is None:
        return "removed"
    if change.before.name != change.now.name:
        return f"was {change.before.name}"
    return "redefined" if change.before != change.now else "as it is"


def plan(house: Warehouse, control: Control, asked: Sequence[Change]) -> Plan:
    """Ask ClickHouse what changes would do to everybody's membership, with windows that end now.

    Raises
    ------
    NothingRecorded
        See there.
    ClickHouseError
        It did not answer, or has no tables.
    """
    with closing(house.connect()) as connection:
        migrate.check(connection, house.views)
    ((latest,),) = ask(house.address, house.views, _LATEST).rows
    if latest is None:
        raise NothingRecorded(
            "ClickHouse has no cut of DECIDE, so no profiles either; start `opportune run decide` and "
            "`opportune run record` first"
        )
    now = max(codec.millis(latest), control.clock.now(time.time_ns() // 1_000_000) or 0)
    ((profiles, unknown, *figures),) = ask(house.address, house.views, _statement(asked, now)).rows
    movements = [Movement(change, *figures[5 * place : 5 * place + 5]) for place, change in enumerate(asked)]
    return Plan(now, profiles, unknown, movements)


def _statement(asked: Sequence[Change], now: int) -> str:
    """Made of definitions that passed the linter, which lets nothing through but features and numbers."""
    used = features.named_in(change.now.where for change in asked if change.now is not None)
    values = [f"{features.in_clickhouse(feature, now)} AS {feature.name}" for feature in used]
    figures = []
    for place, change in enumerate(asked):
        values.append(f"{_membership(change.before)} AS was_{place}")
        holds = f"ifNull({change.now.where}, 0)" if change.now is not None else "0"
        enters, leaves = f"({holds}) AND NOT was_{place}", f"NOT ({holds}) AND was_{place}"
        figures += [
            f"countIf(was_{place})",
            *(f"countIf({moves})" for moves in (enters, leaves)),
            *(f"groupArrayIf({_EXAMPLES})(recipient_id, {moves})" for moves in (enters, leaves)),
        ]
    return _SQL.format(rings_since=_RINGS_SINCE, asked=", ".join(figures), values=", ".join(values))


def _membership(segment: Segment | None) -> str:
    return "0" if segment is None else f"has(segments, '{segment.name}')"


def machine_form(found: Plan) -> dict[str, Any]:
    """Return a plan for `--json`; times in UTC ms."""
    return vars(found) | {
        "movements": [
            vars(each)
            | {
                "change": {
                    "kind": kind(each.change),
                    "number": each.change.number,
                    "before": each.change.before and each.change.before.model_dump(),
                    "now": each.change.now and each.change.now.model_dump(),
                }
            }
            for each in found.movements
        ]
    }
