"""States of a cut's rows, the segments they hold, and the campaigns that a change or an event triggers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import audit, columns, features
from models.campaigns import Campaigns
from models.features import Feature
from models.inputs import Causes
from models.profile import Additions, Events, Lives
from models.segments import Segments
from schemas.profile import HOUR_MS, KINDS, UNITS

BEFORE_RECORDS = -1  # position of what the passage of time sets off


@dataclass(frozen=True)
class States:
    """Every state in which segments are evaluated: as time left rows, after each event, as rows were emptied.

    Sorted by (row, position). `values` is float64 (n, f) per feature of the segments, `holds` and `held`
    bool (n, s): membership in this state and in the one before it. `event` indexes the events, -1 for none.
    """

    row: np.ndarray
    position: np.ndarray
    event: np.ndarray
    values: np.ndarray
    holds: np.ndarray
    held: np.ndarray

    def cause(self, state: int, causes: Causes, passed: np.ndarray) -> dict[str, Any]:
        """What brought a state about; `passed` are the due times that passed, by row."""
        if self.position[state] == BEFORE_RECORDS:
            return audit.due_cause(int(passed[self.row[state]]))
        return causes.of(int(self.position[state]))


def states(
    lives: Lives, evaluated: np.ndarray, events: Events, added: Additions, segments: Segments, now: int
) -> States:
    """Evaluate segments for rows that time may have changed, after each event, and where a new life begins.

    Parameters
    ----------
    lives
        Of rolled rows before any of the events.
    evaluated
        Numbers of the rows that are evaluated before the first record.
    """
    row = np.concatenate([evaluated, events.row, lives.row])
    position = np.concatenate([np.full(len(evaluated), BEFORE_RECORDS), events.position, lives.position])
    event = np.concatenate([np.full(len(evaluated), -1), np.arange(len(events)), np.full(len(lives.row), -1)])
    order = np.lexsort((position, row))
    row, position, event = row[order], position[order], event[order]
    values = _values(segments.features, lives.rows, lives.of(row, position + 1), event, events, added, now)
    holds = segments.holds(values)
    stored = segments.members(lives.rows["segments"])[row]
    first = columns.starts(row)
    held = np.where(first[:, None], stored, np.roll(holds, 1, axis=0)) if len(row) else stored
    return States(row, position, event, values, holds, held)


def _values(
    used: Sequence[Feature],
    rows: np.ndarray,
    life: np.ndarray,
    event: np.ndarray,
    events: Events,
    added: Additions,
    now: int,
) -> np.ndarray:
    """Features in each state, float64 (n, f): the row's base and what the events of its run added so far."""
    values = np.empty((len(life), len(used)))
    counted = dict.fromkeys(part for feature in used for part in feature.counted)
    sums = dict(zip(counted, _sums([*counted], rows, life, event, events, added, now), strict=True))
    for i, feature in enumerate(used):
        if feature.source == "rate":
            values[:, i] = features.rate(*(sums[part] for part in feature.parts))
        elif feature.counted:
            values[:, i] = sums[feature]
        else:
            integers = _latest(feature, features.base(rows, feature, now)[life], event, life, events)
            values[:, i] = features.value(feature, integers, now)
    return values


def _sums(
    counted: Sequence[Feature],
    rows: np.ndarray,
    life: np.ndarray,
    event: np.ndarray,
    events: Events,
    added: Additions,
    now: int,
) -> np.ndarray:
    """Counts and sums in each state, float64 (f, n)."""
    if not counted:
        return np.empty((0, len(life)))
    gains = _gains(counted, events, added, now)
    bases = np.stack([features.base(rows, feature, now) for feature in counted], axis=1)
    units = [feature.unit_of_count for feature in counted]
    return np.asarray(((bases[life] + columns.running_sum(gains[event], life)) / units).T)


def _gains(additive: Sequence[Feature], events: Events, added: Additions, now: int) -> np.ndarray:
    """What each event adds to each count or sum, int64 (e + 1, f); the last row, zeros, is time."""
    hour, age = now // HOUR_MS, now // HOUR_MS - added.hour
    days = hour // 24 - added.hour // 24
    gains = np.zeros((len(events) + 1, len(additive)), np.int64)
    for column, feature in enumerate(additive):
        if feature.source == "revenue":
            gains[:-1, column] = added.to_revenue * (days < feature.days)
        elif feature.hours:
            gains[:-1, column] = added.to_hour * ((events.kind == feature.kind) & (age < feature.hours))
        else:
            gains[:-1, column] = added.to_day * ((events.kind == feature.kind) & (days < feature.days))
    return gains


def _latest(
    feature: Feature, base: np.ndarray, event: np.ndarray, life: np.ndarray, events: Events
) -> np.ndarray:
    """Latest or earliest event time in each state, UTC ms, 0 for none."""
    counts = events.counts & ((events.kind == feature.kind) | (feature.source != "last"))
    of_state = np.append(np.where(counts, events.at, 0), 0)[event]  # the zero stands for no event: -1
    if feature.source == "last":
        return np.asarray(np.maximum(base, columns.running_max(of_state, life)))
    mirror = 1 << 42  # a running minimum of non-zero times is a running maximum of their mirror images
    earliest = columns.running_max(np.where(of_state > 0, mirror - of_state, 0), life)
    earliest = np.maximum(earliest, np.where(base > 0, mirror - base, 0))
    return np.where(earliest > 0, mirror - earliest, 0)


@dataclass(frozen=True)
class Triggers:
    """n triggers sorted by (row, position, rank of the purpose, campaign); the last two are indexes."""

    row: np.ndarray
    position: np.ndarray
    campaign: np.ndarray
    state: np.ndarray


def triggers(
    found: States, events: Events, forgotten: np.ndarray, campaigns: Campaigns, segments: Segments
) -> Triggers:
    """Campaigns that ask: a segment entered or left, or an event of their kind that a person probably made.

    Nobody asks where a recipient is forgotten: of their own will, or, bool (n,) by row, before the records.
    """
    kinds = np.append(events.kind, -1)[found.event]
    probable = np.append(2 * events.weight >= UNITS[events.kind], False)[found.event]
    may_ask = (found.event >= 0) | ((found.position == BEFORE_RECORDS) & ~forgotten[found.row])
    which: list[np.ndarray] = []
    states_of: list[np.ndarray] = []
    for number, campaign in enumerate(campaigns.definitions):
        cause = campaign.trigger
        if cause.event is not None:
            asks = (kinds == KINDS.index(cause.event)) & probable
        else:
            column = segments.column(str(cause.enter or cause.leave))
            now, then = found.holds[:, column], found.held[:, column]
            asks = now & ~then if cause.enter else then & ~now
        states_of.append(np.flatnonzero(asks & may_ask))
        which.append(np.full(len(states_of[-1]), number))
    state = np.concatenate([np.empty(0, np.int64), *states_of])
    campaign_of = np.concatenate([np.empty(0, np.int64), *which])
    order = np.lexsort((campaign_of, campaigns.rank[campaign_of], state))
    state, campaign_of = state[order], campaign_of[order]
    return Triggers(found.row[state], found.position[state], campaign_of, state)
