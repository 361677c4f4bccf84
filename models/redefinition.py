"""Segments defined anew while recipients are in them: what changes for whom, and when a row learns of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import xxhash

from models import columns
from models.audit import Output, control_cause
from models.segments import Segments, bit
from models.triggers import BEFORE_RECORDS, States
from schemas.policy import Applied, Segment
from schemas.profile import MINUTE_MS

_SWEEP_MS: Final = MINUTE_MS  # in which the sweep reaches every row


@dataclass(frozen=True)
class Change:
    """What became of a segment's number, in which version of control; None: there was or is no such one."""

    number: int
    before: Segment | None
    now: Segment | None
    version: int


def changes(applied: Sequence[Applied], since: int, version: int) -> list[Change]:
    """Segments that are not, by `version`, as a row knows them, which has those of `since`; by number.

    Each with the last version of those between in which it was changed. `since` may be the later one: a
    worker whose campaigns do not go with what was applied last goes by what was before.
    """
    known, in_force = _as_of(applied, since), _as_of(applied, version)
    first, last = sorted((known.version, in_force.version))
    between = [each for each in applied if first <= each.version <= last]
    found = []
    for number in sorted({segment.number for segment in (*known.segments, *in_force.segments)}):
        before, now = _numbered(known, number), _numbered(in_force, number)
        if _definition(before) != _definition(now):
            turns = [
                latter.version
                for former, latter in pairwise(between)
                if _definition(_numbered(former, number)) != _definition(_numbered(latter, number))
            ]
            found.append(Change(number, before, now, max(turns)))
    return found


def _as_of(applied: Sequence[Applied], version: int) -> Applied:
    return max((each for each in applied if each.version <= version), key=lambda each: each.version)


def _numbered(applied: Applied, number: int) -> Segment | None:
    return next((segment for segment in applied.segments if segment.number == number), None)


def _definition(segment: Segment | None) -> str | None:
    return None if segment is None else segment.definition


def reached_at(keys: Sequence[bytes], after: int) -> np.ndarray:
    """When the sweep comes to recipients next, UTC ms, int64 (n,): to each at its own moment of a minute.

    It needs no memory of how far it came: a row that is not reached yet shows the version it knows.
    """
    moment = np.fromiter((xxhash.xxh3_64_intdigest(key) % _SWEEP_MS for key in keys), np.int64, len(keys))
    return after + 1 + (moment - after - 1) % _SWEEP_MS


def sweep(
    rows: np.ndarray,
    outdated: np.ndarray,
    timed: np.ndarray,
    found: States,
    segments: Segments,
    applied: Sequence[Applied],
    version: int,
    out: Output,
) -> None:
    """Write down who enters and leaves because segments are defined anew; to `found` it is no news any more.

    Nobody is asked about a campaign for that: whoever defines a segment does not mean to write to all of it.

    Parameters
    ----------
    outdated
        Bool (n,): rows that know other definitions than those of `version`; `found` has a state of each
        before its records.
    timed
        Bool (n,): rows whose evaluation time has passed. In the others segments that are defined as before
        are left alone.
    """
    if not applied or not outdated.any():
        return
    first = np.flatnonzero((found.position == BEFORE_RECORDS) & outdated[found.row])
    known = rows["segments_version"][found.row[first]]
    told: list[tuple[int, int, Segment, bool, dict[str, Any]]] = []
    for since in np.unique(known).tolist():
        mine = first[known == since]
        untouched = np.ones(len(segments.definitions), np.bool_)
        for change in changes(applied, since, version):
            before, now, cause = change.before, change.now, control_cause(change.version)
            was = bit(rows["segments"][found.row[mine]], change.number)
            if before is not None and (now is None or now.name != before.name):
                told += [(state, change.number, before, False, cause) for state in mine[was].tolist()]
                was = np.zeros_like(was)
            if now is None:
                continue
            column = segments.column(now.name)
            untouched[column] = False
            holds = found.holds[mine, column]
            found.held[mine, column] = holds
            moved = holds != (was & (before is not None))
            told += [
                (state, change.number, now, entered, cause)
                for state, entered in zip(mine[moved].tolist(), holds[moved].tolist(), strict=True)
            ]
        left_alone = np.ix_(mine[~timed[found.row[mine]]], untouched)
        found.holds[left_alone] = found.held[left_alone]
    after = first[(first + 1 < len(found.row)) & ~np.append(columns.starts(found.row)[1:], True)[first]] + 1
    found.held[after] = found.holds[after - 1]
    for state, _, segment, entered, cause in sorted(told, key=lambda each: each[:2]):
        out.transition(int(found.row[state]), segment.name, entered, cause, segment.definition)
