"""States of a cut's rows, the segments they hold, and the campaigns that a change or an event triggers."""

from dataclasses import dataclass

import numpy as np

from models import columns, features
from models.profile import Additions, Events
from models.segments import Segments
from schemas.policy import Campaign
from schemas.profile import HOUR_MS, KINDS

BEFORE_RECORDS = -1  # position of what the passage of time sets off


@dataclass(frozen=True)
class States:
    """Every state in which segments are evaluated: rows as time left them, then rows after each event.

    Sorted by (row, position). `values` is float64 (n, f) per feature of the segments, `holds` and `held`
    bool (n, s): membership in this state and in the one before it. `event` indexes the events, -1 for time.
    """

    row: np.ndarray
    position: np.ndarray
    event: np.ndarray
    values: np.ndarray
    holds: np.ndarray
    held: np.ndarray


def states(
    rows: np.ndarray, evaluated: np.ndarray, events: Events, added: Additions, segments: Segments, now: int
) -> States:
    """Evaluate segments for rows that time may have changed and after each event.

    Parameters
    ----------
    rows
        Rolled rows before any of the events.
    evaluated
        Numbers of the rows that are evaluated before the first record.
    """
    row = np.concatenate([evaluated, events.row])
    position = np.concatenate([np.full(len(evaluated), BEFORE_RECORDS), events.position])
    event = np.concatenate([np.full(len(evaluated), -1), np.arange(len(events))])
    order = np.lexsort((position, row))
    row, position, event = row[order], position[order], event[order]
    values = np.empty((len(row), len(segments.features)))
    for column, feature in enumerate(segments.features):
        base = features.base(rows, feature, now)[row]
        integers = _after_each(feature, base, event, row, events, added, now)
        values[:, column] = features.value(feature, integers, now)
    holds = segments.holds(values)
    stored = segments.members(rows["segments"])[row]
    first = columns.starts(row)
    held = np.where(first[:, None], stored, np.roll(holds, 1, axis=0)) if len(row) else stored
    return States(row, position, event, values, holds, held)


def _after_each(
    feature: features.Feature,
    base: np.ndarray,
    event: np.ndarray,
    row: np.ndarray,
    events: Events,
    added: Additions,
    now: int,
) -> np.ndarray:
    """Integers of a feature in each state: the row's base and a prefix over the events of its run."""
    hour = now // HOUR_MS
    if feature.source == "counter":
        inside = (
            added.hour > hour - feature.hours
            if feature.hours
            else added.hour // 24 > hour // 24 - feature.days
        )
        gain = (added.to_hour if feature.hours else added.to_day) * inside * (events.kind == feature.kind)
    elif feature.source == "revenue":
        gain = added.to_revenue * (added.hour // 24 > hour // 24 - feature.days)
    else:
        counts = events.kind == feature.kind if feature.source == "last" else np.ones(len(events), np.bool_)
        gain = np.where(counts, events.at, 0)
    of_state = np.append(gain, 0)[event]  # the appended zero stands for time: event -1
    if feature.source in ("counter", "revenue"):
        return np.asarray(base + columns.running_sum(of_state, row))
    if feature.source == "last":
        return np.asarray(np.maximum(base, columns.running_max(of_state, row)))
    mirror = 1 << 42  # a running minimum of non-zero times is a running maximum of their mirror images
    earliest = columns.running_max(np.where(of_state > 0, mirror - of_state, 0), row)
    earliest = np.maximum(earliest, np.where(base > 0, mirror - base, 0))
    return np.where(earliest > 0, mirror - earliest, 0)


@dataclass(frozen=True)
class Triggers:
    """n triggers sorted by (row, position, campaign); `state` and `campaign` are indexes."""

    row: np.ndarray
    position: np.ndarray
    campaign: np.ndarray
    state: np.ndarray


def triggers(found: States, events: Events, campaigns: tuple[Campaign, ...], segments: Segments) -> Triggers:
    """Campaigns that ask: a segment entered or left, or an event of the kind they name."""
    kinds = np.append(events.kind, -1)[found.event]
    which: list[np.ndarray] = []
    states_of: list[np.ndarray] = []
    for number, campaign in enumerate(campaigns):
        cause = campaign.trigger
        if cause.event is not None:
            asks = kinds == KINDS.index(cause.event)
        else:
            column = segments.column(str(cause.enter or cause.leave))
            now, then = found.holds[:, column], found.held[:, column]
            asks = now & ~then if cause.enter else then & ~now
        states_of.append(np.flatnonzero(asks))
        which.append(np.full(len(states_of[-1]), number))
    state = np.concatenate([np.empty(0, np.int64), *states_of])
    campaign_of = np.concatenate([np.empty(0, np.int64), *which])
    order = np.lexsort((campaign_of, state))
    state, campaign_of = state[order], campaign_of[order]
    return Triggers(found.row[state], found.position[state], campaign_of, state)
