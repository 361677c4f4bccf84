"""What is truly sequential in a cut: records that change rows, and triggers that meet them as they stand."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from models import columns, contact, deciding, profile, slots
from models.arms import arm_of, in_canary
from models.audit import Output
from models.campaigns import EVERYONE
from models.changes import Changes
from models.deciding import Asked
from models.inputs import Causes, Moment, Other, Rules
from models.profile import NEVER, Events, Lives, Times
from models.sendtime.histories import UNSEEN, Histories
from models.triggers import States, Triggers
from schemas import ids
from schemas.policy import Trigger
from schemas.profile import HOUR_MS
from schemas.reasons import Filtered

_LATEST = 1 << 42  # UTC ms, in the year 2109
_TRIGGERS = -1  # number of a record, for items that are none


@dataclass(frozen=True)
class _Items:
    """What happens to rows one after the other, sorted by row: records, and triggers that ask together.

    `record` is a record's number or `_TRIGGERS`; then item k are the triggers `[first[k], first[k + 1])`.
    `until` is the next record of the row, or its end. Each row's items are one of `runs`.
    """

    record: list[int]
    first: list[int]
    until: list[int]
    runs: list[tuple[int, int]]


@dataclass
class Rounds:
    """In a round every row goes on until a trigger changes it; what that leaves is asked again in the next.

    Most triggers change nothing, since their campaign rests: a hot recipient's 500 take two rounds.
    """

    names: Sequence[str]
    rows: np.ndarray
    events: Events
    added: profile.Additions
    others: Sequence[Other]
    lives: Lives
    times: Times  # of the lives, before any of the events
    found: States
    asked: Triggers
    causes: Causes
    passed: np.ndarray
    rules: Rules
    moment: Moment
    out: Output

    def run(self) -> tuple[list[int], list[int]]:
        """Handle all; returns the positions filtered as stale and as unknown dispatch."""
        items = self._items()
        changes = Changes(self.rows, self.rules.policy, self.causes, self.out)
        filtered: dict[Filtered, list[int]] = {Filtered.STALE: [], Filtered.UNKNOWN_DISPATCH: []}
        going = items.runs
        while going:
            asking: list[tuple[int, int, int]] = []
            for at, end in going:
                while at < end and items.record[at] != _TRIGGERS:
                    other = self.others[items.record[at]]
                    why = changes.apply(other)
                    if why is not None:
                        filtered[why].append(other.position)
                    at += 1
                if at < end:
                    asking.append((at, items.until[at], end))
            going = self._ask(items, asking) if asking else []
        self._keep_activity()
        return filtered[Filtered.STALE], filtered[Filtered.UNKNOWN_DISPATCH]

    def _items(self) -> _Items:
        """The records and the triggers in order; the triggers are sorted so already."""
        records, asked = len(self.others), self.asked
        row = np.concatenate([np.array([o.row for o in self.others], np.int64), asked.row])
        position = np.concatenate([np.array([o.position for o in self.others], np.int64), asked.position])
        rank = np.concatenate([np.full(records, -1), self.rules.campaigns.rank[asked.campaign]])
        order = np.lexsort((rank, position, row))
        row, position, rank = row[order], position[order], rank[order]
        begins = columns.starts(row) | columns.starts(position) | columns.starts(rank)
        first = np.flatnonzero(begins)
        is_record, row = order[first] < records, row[first]
        # Triggers before each place; they come in their own order.
        before = np.concatenate([[0], np.cumsum(order >= records)])[np.append(first, len(order))]
        ends = np.flatnonzero(np.append(row[1:] != row[:-1], True)) + 1 if len(row) else row
        runs = [*zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)] if len(row) else []
        stops = np.union1d(np.flatnonzero(is_record), ends)
        until = stops[np.searchsorted(stops, np.arange(len(row)) + 1)] if len(row) else row
        return _Items(
            np.where(is_record, order[first], _TRIGGERS).tolist(), before.tolist(), until.tolist(), runs
        )

    def _ask(self, items: _Items, asking: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
        """Ask the items `[at, until)` of each row, up to the first that changes it; what is left to do."""
        first = items.first
        spans = [(first[at], first[until]) for at, until, _ in asking]
        which = np.concatenate([np.arange(*span) for span in spans])
        weighed = deciding.weigh(
            self.rows, self._histories(which), self._asks.picked(which), self.rules, self.moment
        )
        changing = np.flatnonzero(weighed.changes).tolist()
        left: list[tuple[int, int]] = []
        settled: list[np.ndarray] = []
        base = 0
        for (_, until, end), (begin, stop) in zip(asking, spans, strict=True):
            hit = bisect_left(changing, base)
            if hit < len(changing) and changing[hit] < base + stop - begin:
                until = bisect_right(first, begin + changing[hit] - base)  # behind the item of that trigger
            settled.append(np.arange(base, base + first[until] - begin))
            base += stop - begin
            if until < end:
                left.append((until, end))
        self._settle(weighed, np.concatenate(settled), which)
        return left

    def _settle(self, weighed: deciding.Weighed, mine: np.ndarray, which: np.ndarray) -> None:
        records, at_once = deciding.settle(self.rows, weighed, mine)
        segments, states = self.rules.segments, self.asked.state
        for record, number in zip(records, which[mine].tolist(), strict=True):
            state = int(states[number])
            record["cause"] = self._causes[number]
            record["policy"] = self.rules.policy.digest
            record["segments"] = [
                segments.definitions[c].name for c in np.flatnonzero(self.found.holds[state])
            ]
            values = self.found.values[state].tolist()
            record["features"] = {
                feature.name: value
                for feature, value in zip(segments.features, values, strict=True)
                if value == value  # NaN stands for NULL
            }
            self.out.decision(int(self.asked.row[number]), record)
        if at_once and not self.moment.paused:
            row, slot = np.array(at_once).T
            slots.come_due(self.rows, row, slot, self.rules.policy, self.moment.now, self.out)

    @cached_property
    def _causes(self) -> list[dict[str, Any]]:
        states = self.asked.state.tolist()
        return [self.found.cause(state, self.causes, self.passed) for state in states]

    @cached_property
    def _asks(self) -> Asked:
        """All triggers, with what does not hang on what became of others."""
        asked, campaigns = self.asked, self.rules.campaigns
        names = [self.names[row] for row in asked.row.tolist()]
        of = [campaigns.definitions[number] for number in asked.campaign.tolist()]
        decisions = [
            ids.decision_id(_cause_id(cause, campaign.trigger), name, campaign.name, campaign.version)
            for cause, campaign, name in zip(self._causes, of, names, strict=True)
        ]
        audience = campaigns.audience[asked.campaign]
        in_audience = audience == EVERYONE
        some = np.flatnonzero(~in_audience)
        in_audience[some] = self.found.holds[asked.state[some], audience[some]]
        rank = campaigns.rank[asked.campaign]
        begins = columns.starts(asked.row) | columns.starts(asked.position) | columns.starts(rank)
        arms = [arm_of(name, campaign, self.rules.policy) for name, campaign in zip(names, of, strict=True)]
        canary = self._canary(names)
        return Asked(asked.row, np.cumsum(begins), asked.campaign, decisions, arms, in_audience, canary)

    def _canary(self, names: Sequence[str]) -> np.ndarray:
        """Whose hours the model on trial chooses, bool of the names' length."""
        models = self.rules.models
        if models.canary is None:
            return np.zeros(len(names), np.bool_)
        version, share = models.canary.version, models.share
        return np.array([in_canary(name, version, share) for name in names], np.bool_)

    def _histories(self, which: np.ndarray) -> Histories:
        """What is known of recipients at triggers, in the zone that their row has by now."""
        place = self._place[which]
        zone = contact.known_zone(self.rows["zone"][self.asked.row[which]], self.rules.policy.contact)
        return Histories(self._active[place], self._last[place], self._first[place], zone)

    @cached_property
    def _place(self) -> np.ndarray:
        """Where each trigger stands in `_active`, int64 (t,)."""
        return np.argsort(self._order, kind="stable")

    @cached_property
    def _order(self) -> np.ndarray:
        """Triggers by life and position."""
        return np.lexsort((self.asked.position, self._life))

    @cached_property
    def _life(self) -> np.ndarray:
        return self.lives.of(self.asked.row, self.asked.position)

    @cached_property
    def _reached(self) -> tuple[np.ndarray, np.ndarray]:
        """Events that come up to some trigger, and the first that each comes up to, by life and position."""
        life, position = self._life[self._order], self.asked.position[self._order]
        events = self.events
        span = int(max(position.max(initial=0), events.position.max(initial=0))) + 2
        keys, of_events = life * span + position + 1, events.life * span + events.position + 1
        first = np.searchsorted(keys, of_events)
        here = np.flatnonzero(np.append(life, -1)[first] == events.life)
        return here, first[here]

    @cached_property
    def _active(self) -> np.ndarray:
        """Hour-of-week weights at each trigger, int64 (t, 168): with those of the events up to its own."""
        life, (here, first) = self._life[self._order], self._reached
        grown = np.zeros((len(life), self.rows["active"].shape[1]), np.int64)
        np.add.at(grown, (first, self.added.slot[here]), self.added.weight[here])
        stored = self.lives.rows["active"][life]
        return np.asarray(np.minimum(stored + columns.running_sum(grown, life), profile.ACTIVE_MAX))

    @cached_property
    def _last(self) -> np.ndarray:
        """UTC hour of the latest activity at each trigger, int64 (t,)."""
        life, (here, first) = self._life[self._order], self._reached
        newest = self.times.last[life]
        np.maximum.at(newest, first, np.where(self.events.counts, self.events.at, 0)[here])
        latest = columns.running_max(newest, life)
        return np.where(latest > 0, latest // HOUR_MS, UNSEEN)

    @cached_property
    def _first(self) -> np.ndarray:
        """UTC hour of the earliest activity at each trigger, int64 (t,)."""
        life, (here, first) = self._life[self._order], self._reached
        oldest = np.where(self.times.first > 0, self.times.first, NEVER)[life]
        np.minimum.at(oldest, first, np.where(self.events.counts, self.events.at, NEVER)[here])
        before = _LATEST - columns.running_max(_LATEST - np.minimum(oldest, _LATEST), life)
        return np.where(before < _LATEST, before // HOUR_MS, UNSEEN)

    def _keep_activity(self) -> None:
        """Add to owned rows what the events of their last lives weigh."""
        events, last = self.events, np.arange(len(self.rows))
        last[self.lives.row] = len(self.rows) + np.arange(len(self.lives.row))
        self.rows["active"][self.lives.row] = 0
        which = events.life == last[events.row]
        profile.add_activity(self.rows, events.row[which], self.added.slot[which], self.added.weight[which])


def _cause_id(cause: Mapping[str, Any], trigger: Trigger) -> str:
    """What a decision id is made of: the event's id, or the condition and its due time."""
    if cause["event_id"] is not None:
        return str(cause["event_id"])
    condition = f"enter:{trigger.enter}" if trigger.enter else f"leave:{trigger.leave}"
    return ids.due_id(condition, cause["due_at"])
