"""Segments defined anew while recipients are in them: what changes for whom, and when a row learns of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import xxhash

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


def changes(applied: Sequence[Applied], since: int) -> list[Change]:
    """Segments that are not as a row knows them whose definitions are those of version `since`, by number."""
    known = max((each for each in applied if each.version <= since), key=lambda each: each.version)
    defined = [known, *(each for each in applied if each.version > known.version)]
    by_number = [{segment.number: segment for segment in each.segments} for each in defined]
    found = []
    for number in sorted(by_number[0].keys() | by_number[-1].keys()):
        before, now = by_number[0].get(number), by_number[-1].get(number)
        if _definition(before) != _definition(now):
            version = max(
                at.version
                for at, (former, latter) in zip(defined[1:], pairwise(by_number), strict=True)
                if _definition(former.get(number)) != _definition(latter.get(number))
            )
            found.append(Change(number, before, now, version))
    return found


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
    stale: np.ndarray,
    found: States,
    segments: Segments,
    applied: Sequence[Applied],
    out: Output,
) -> None:
    """Write down who enters and leaves because segments are defined anew; to `found` it is no news any more.

    Nobody is asked about a campaign for that: whoever defines a segment does not mean to write to all of it.
    `stale` is bool (n,): rows that know other definitions; `found` has a state of each before its records.
    """
    if not applied or not stale.any():
        return
    first = np.flatnonzero((found.position == BEFORE_RECORDS) & stale[found.row])
    known = rows["segments_version"][found.row[first]]
    told: list[tuple[int, int, Segment, bool, dict[str, Any]]] = []
    for since in np.unique(known).tolist():
        mine = first[known == since]
        for change in changes(applied, since):
            before, now, cause = change.before, change.now, control_cause(change.version)
            was = bit(rows["segments"][found.row[mine]], change.number)
            if before is not None and (now is None or now.name != before.name):
                told += [(state, change.number, before, False, cause) for state in mine[was].tolist()]
                was = np.zeros_like(was)
            if now is None:
                continue
            column = segments.column(now.name)
            holds = found.holds[mine, column]
            found.held[mine, column] = holds
            which = mine[holds != (was & (before is not None))]
            told += [
                (state, change.number, now, bool(holds_now), cause)
                for state, holds_now in zip(which.tolist(), found.holds[which, column].tolist(), strict=True)
            ]
    for state, _, segment, entered, cause in sorted(told, key=lambda each: each[:2]):
        out.transition(int(found.row[state]), segment.name, entered, cause, segment.definition)
