"""Who would enter and leave if the segments of a policy folder were put in force: by stored profiles."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from models import features
from models.redefinition import Change, changes
from schemas import codec, topics
from schemas.policy import Applied, Policy, PolicyError, Segment, with_segments
from sinks.clickhouse import migrate
from sinks.clickhouse.query import ask
from streams.engine.control import Control
from streams.engine.journal import last_entry
from streams.engine.kafka import Client
from streams.warehouse import Warehouse

_EXAMPLES: Final = 3
_RINGS_SINCE: Final = 3  # version of rows: ClickHouse has counts by hour and day of those
_FIGURES: Final = 5  # that are asked of each change
_LATEST: Final = "SELECT maxOrNull(at) FROM cut WHERE line = 'decide'"
_SQL: Final = """
SELECT count(), countIf(row_version < {rings_since}){asked}
FROM (SELECT recipient_id, row_version{values} FROM profile_snapshot)
"""


class NothingRecorded(LookupError):
    """ClickHouse has no cut of DECIDE: there is nobody to plan for."""


class NotTheRunning(ValueError):
    """The policy folder is not what the workers run, as far as it would have to be."""


@dataclass(frozen=True)
class Movement:
    """Who would move because of a change: how many are members, enter, leave; and some of the last two."""

    change: Change
    members: int
    enters: int
    leaves: int
    entering: Sequence[str]
    leaving: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What changes would do as of `at`, UTC ms, to so many profiles; of `unknown` too little is recorded."""

    at: int
    profiles: int
    unknown: int
    movements: Sequence[Movement]


def planned(control: Control, policy: Policy, hashes: Sequence[str]) -> list[Change]:
    """What putting a policy's segments in force would change; `hashes` as `running` gives them.

    Where none were ever put in force, and the workers run another policy, it may be all of them.
    """
    if control.segments:
        return changes((Applied(0, control.segments[-1].segments), Applied(1, policy.segments)), 0, 1)
    if [policy.digest] == [*hashes]:
        return []
    return [Change(segment.number, segment, segment, 0) for segment in policy.segments]


def running(client: Client, partitions: int) -> list[str]:
    """Hashes of the policies by which each partition's last cut was made; none before the first cut."""
    with closing(client.reader()) as consumer:
        last = (last_entry(consumer, topics.JOURNAL.name, partition) for partition in range(partitions))
        return sorted({entry.policy for entry, _ in filter(None, last)})


def refuse_unlike(policy: Policy, control: Control, hashes: Sequence[str]) -> None:
    """Raise `NotTheRunning` where the segments of a policy must not be put in force yet.

    The first must be those that run, since later ones are measured by them. After that a segment must not
    end, by its name, unless the campaigns that run are known to do without: those of this policy.
    """
    if not hashes:
        return
    if not control.segments:
        if [policy.digest] != [*hashes]:
            raise NotTheRunning(
                f"the last cuts were made by policy {' and '.join(hashes)}, this is {policy.digest}: put "
                "the segments of the files that run in force first, since changes are measured by them. If "
                "the workers were restarted with these files just now, let every partition make a cut: "
                "`opportune resume --why 'a cut'` changes nothing where nothing is paused"
            )
        return
    before = control.segments[-1].segments
    ending = {segment.name for segment in before} - {segment.name for segment in policy.segments}
    if ending and not _campaigns_run(policy, before, hashes):
        raise NotTheRunning(
            f"{', '.join(sorted(ending))} would end, and the workers run other campaigns, contact policy or "
            "send time than those of this folder, so their campaigns may need it: restart the workers with "
            "campaigns that do not, then apply this. To rename a segment that a campaign names, add it under "
            "a new number first"
        )


def _campaigns_run(policy: Policy, segments: tuple[Segment, ...], hashes: Sequence[str]) -> bool:
    try:
        return [with_segments(policy, segments).digest] == [*hashes]
    except PolicyError:
        return False


def kind(change: Change) -> str:
    """What a change is, in a word; empty where it is none."""
    if change.before is None:
        return "new"
    if change.now is None:
        return "removed"
    if change.before.name != change.now.name:
        return "renamed"
    return "redefined" if change.before != change.now else ""


def plan(house: Warehouse, control: Control, asked: Sequence[Change]) -> Plan:
    """Ask ClickHouse what changes would do to everybody's membership, with windows that end now.

    Raises
    ------
    NothingRecorded
        See there.
    ClickHouseError
        It did not answer, or its tables are not up to date.
    """
    with closing(house.connect()) as connection:
        migrate.check(connection, house.views)
    ((latest,),) = ask(house.address, house.views, _LATEST).rows
    if latest is None:
        raise NothingRecorded(
            "ClickHouse has no cut of DECIDE, so no profiles either; start `opportune run decide` and "
            "`opportune run record` first"
        )
    at = max(codec.millis(latest), control.clock.now(time.time_ns() // 1_000_000) or 0)
    ((profiles, unknown, *figures),) = ask(house.address, house.views, _statement(asked, at)).rows
    movements = [
        Movement(change, *figures[_FIGURES * place : _FIGURES * (place + 1)])
        for place, change in enumerate(asked)
    ]
    return Plan(at, profiles, unknown, movements)


def _statement(asked: Sequence[Change], at: int) -> str:
    """Made of definitions that passed the linter, which lets nothing through but features and numbers."""
    used = features.named_in(change.now.where for change in asked if change.now is not None)
    values = [f"{features.in_clickhouse(feature, at)} AS {feature.name}" for feature in used]
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
    columns = ("".join(f", {each}" for each in some) for some in (figures, values))
    return _SQL.format(rings_since=_RINGS_SINCE, **dict(zip(("asked", "values"), columns, strict=True)))


def _membership(segment: Segment | None) -> str:
    return "0" if segment is None else f"has(segments, '{segment.name}')"


def machine_form(found: Plan) -> dict[str, Any]:
    """Return a plan for `--json`; times in UTC ms."""
    return vars(found) | {"movements": [_movement(each) for each in found.movements]}


def _movement(moved: Movement) -> dict[str, Any]:
    change, what = moved.change, kind(moved.change)
    before = change.before if what else None  # where none were put in force, it is not known here
    told: dict[str, Any] = {"change": what or None, "number": change.number}
    for name, segment in (("before", before), ("after", change.now)):
        told[name] = None if segment is None else segment.model_dump()
    return told | {name: value for name, value in vars(moved).items() if name != "change"}
