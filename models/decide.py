"""Cuts decided: rows, records and time in; rows, audit and commands out. Pure; see docs/decisions.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, get_args

import numpy as np

from models import audit, columns, contact, deciding, profile, slots, triggers
from models.audit import Output
from models.hours import FullHours
from models.profile import Events
from models.segments import Segments
from models.sendtime import SendTimeModel
from models.triggers import BEFORE_RECORDS, States, Triggers
from schemas import ids, topics
from schemas.layouts import opaque, picked
from schemas.policy import Policy, Purpose
from schemas.profile import HOUR_MS, MINUTE_MS, PURPOSES, TIMED_SEGMENTS, Consent, Suppression
from schemas.reasons import Reason


@dataclass(frozen=True)
class Moment:
    """When cuts happen, UTC ms, what control says, and which hours the lanes have no room in."""

    now: int
    paused: bool
    history: bool
    full: FullHours = field(default_factory=dict)


@dataclass(frozen=True)
class Behaviour:
    """n clicks and purchases sorted by (row, position): as `profile.Events`, plus hashes of ids (0 none)."""

    row: np.ndarray
    position: np.ndarray
    kind: np.ndarray
    at: np.ndarray
    amount: np.ndarray
    hashes: np.ndarray


@dataclass(frozen=True)
class Other:
    """A record of consent, attributes or delivery: its row, its position, its topic's name and its fields."""

    row: int
    position: int
    topic: str
    fields: Mapping[str, Any]


@dataclass
class Fates:
    """By position: which records were filtered, and which triggered a campaign."""

    duplicate: np.ndarray
    stale: list[int]
    unknown_dispatch: list[int]
    deciding: np.ndarray


@dataclass(frozen=True)
class Decided:
    """What cuts give: their rows, which of them changed (bool), when each is due next, and what leaves."""

    rows: np.ndarray
    changed: np.ndarray
    due_at: np.ndarray
    output: Output
    fates: Fates


@dataclass(frozen=True)
class Rules:
    """The policy in force, compiled, and the send-time model."""

    policy: Policy
    segments: Segments
    model: SendTimeModel


class Causes(Protocol):
    """Names the record at a position for audit and ids; the intake knows."""

    def of(self, position: int) -> dict[str, Any]:
        """Cause record: topic, partition, offset, event_id, and no due time."""
        ...


def decide(
    names: Sequence[str],
    rows: np.ndarray,
    known: np.ndarray,
    before: np.ndarray,
    behaviour: Behaviour,
    others: Sequence[Other],
    causes: Causes,
    moment: Moment,
    rules: Rules,
) -> Decided:
    """Decide one cut, or several of different partitions: no row knows of another, so they do not differ.

    Parameters
    ----------
    names
        Recipient ids of the n touched rows.
    rows
        Their rows, owned: they are changed in place and returned.
    known
        bool (n,): False for recipients first seen in their cut.
    before
        int64 (n,): when the cut before each row's was, UTC ms.
    behaviour, others
        The cuts' records that decoded, were in time and rightly keyed.
    """
    policy, now = rules.policy, moment.now
    out = Output(names, moment.history, now)
    of_records = np.zeros(len(rows), np.bool_)
    of_records[behaviour.row] = True
    of_records[[other.row for other in others]] = True
    only_due = np.flatnonzero(~of_records & known)
    stored = picked(rows, only_due)
    rows["hour"] = np.where(known, rows["hour"], now // HOUR_MS)
    profile.roll(rows, now)

    changed = slots.settle(rows, policy, moment.paused, now, out)
    spells = _Spells.of(rows, others, policy)
    stale_profiles = ~spells.at_first & (rows["first"] != 0)
    profile.forget(rows, stale_profiles)
    changed |= stale_profiles
    lives = profile.Lives.begin(rows, *spells.withdrawals())
    accepted = profile.accept(rows, behaviour.row, behaviour.hashes)
    events = _events(rows, behaviour, accepted, others, policy, spells, lives)
    added = profile.additions(lives.rows, events, now)
    passed = profile.last_evaluation(rows, before, now) * known
    found = triggers.states(lives, np.flatnonzero(passed), events, added, rules.segments, now)
    asked = triggers.triggers(found, events, policy.campaigns, rules.segments)
    profile.add(lives.rows, events, added)
    lives.end(rows)
    _transitions(rows, found, events, causes, passed, rules.segments, now, out)

    rounds = _Rounds(names, rows, events, added, others, found, asked, causes, passed, rules, moment, out)
    stale, unknown = rounds.run()

    changed[found.row[(found.holds != found.held).any(1)]] = True
    changed |= of_records | ~known
    unchanged = ~changed[only_due]
    opaque(rows)[only_due[unchanged]] = opaque(stored)[unchanged]
    decided = np.unique(asked.position[asked.position != BEFORE_RECORDS])
    fates = Fates(behaviour.position[~accepted], stale, unknown, decided)
    return Decided(rows, changed, profile.next_due(rows, now, moment.paused), out, fates)


@dataclass(frozen=True)
class _Spells:
    """Whether each of n rows may be profiled at first, bool (n,), and where that changes, in order."""

    at_first: np.ndarray
    row: np.ndarray
    position: np.ndarray
    may: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, others: Sequence[Other], policy: Policy) -> "_Spells":
        at_first = contact.may_profile(rows["consent"][:, _PROFILING], policy.contact)
        versions: dict[int, int] = {}
        may: dict[int, bool] = {}
        changes: list[tuple[int, int, bool]] = []
        told = (o for o in others if o.topic == topics.CONSENT.name and o.fields["purpose"] == "profiling")
        for other in sorted(told, key=lambda o: (o.row, o.position)):
            row, version = other.row, other.fields["version"]
            if version <= versions.get(row, int(rows["consent_version"][row, _PROFILING])):
                continue
            versions[row] = version
            now = bool(contact.may_profile(np.array(_state(other)), policy.contact))
            if now != may.get(row, bool(at_first[row])):
                changes.append((row, other.position, now))
            may[row] = now
        rows_of, positions, now_may = ([change[i] for change in changes] for i in range(3))
        where = np.array(rows_of, np.int64), np.array(positions, np.int64)
        return cls(at_first, *where, np.array(now_may, np.bool_))

    def withdrawals(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and positions at which all is forgotten."""
        return self.row[~self.may], self.position[~self.may]

    def may_at(self, row: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Whether rows may be profiled at positions, bool (m,)."""
        latest = profile.latest_of(self.row, self.position, row, position)
        return np.asarray(np.where(latest >= 0, np.append(self.may, False)[latest], self.at_first[row]))


def _state(other: Other) -> Consent:
    return Consent.GRANTED if other.fields["state"] == "granted" else Consent.WITHDRAWN


def _events(
    rows: np.ndarray,
    behaviour: Behaviour,
    accepted: np.ndarray,
    others: Sequence[Other],
    policy: Policy,
    spells: _Spells,
    lives: profile.Lives,
) -> Events:
    """The accepted events, each with its recipient's zone at that moment, and whether it may be kept."""
    row, position = behaviour.row[accepted], behaviour.position[accepted]
    zone = contact.zone_of(rows, policy.contact)[row]
    moves = sorted((o.row, o.position, o.fields["zone"].encode()) for o in others if o.fields.get("zone"))
    if moves:
        moved, since, name = (np.array(column) for column in zip(*moves, strict=True))
        latest = profile.latest_of(moved, since, row, position)
        zone[latest >= 0] = name[latest[latest >= 0]]
    kind, at, amount = behaviour.kind[accepted], behaviour.at[accepted], behaviour.amount[accepted]
    counts, life = spells.may_at(row, position), lives.of(row, position)
    return Events(row, position, kind, at, amount, zone, counts, life)


def _transitions(
    rows: np.ndarray,
    found: States,
    events: Events,
    causes: Causes,
    passed: np.ndarray,
    segments: Segments,
    now: int,
    out: Output,
) -> None:
    """Write down every membership change and store the last state in owned rows."""
    state, column = np.nonzero(found.holds != found.held)
    changes = (state, column, found.row[state], found.holds[state, column])
    for at, which, row, entered in zip(*(each.tolist() for each in changes), strict=True):
        segment, cause = segments.definitions[which], _cause(found, at, causes, passed)
        out.transition(row, segment.name, entered, cause, segment.definition)
        if segment.number < TIMED_SEGMENTS:
            rows["entered"][row, segment.number] = now // MINUTE_MS if entered else 0
    last = np.flatnonzero(np.append(columns.starts(found.row)[1:], True)) if len(found.row) else found.row
    rows["segments"][found.row[last]] = segments.packed(found.holds[last])


def _cause(found: States, state: int, causes: Causes, passed: np.ndarray) -> dict[str, Any]:
    if found.position[state] == BEFORE_RECORDS:
        return audit.due_cause(int(passed[found.row[state]]))
    return causes.of(int(found.position[state]))


@dataclass
class _Rounds:
    """What is truly sequential in a cut: the k-th such item of every recipient is handled together."""

    names: Sequence[str]
    rows: np.ndarray
    events: Events
    added: profile.Additions
    others: Sequence[Other]
    found: States
    asked: Triggers
    causes: Causes
    passed: np.ndarray
    rules: Rules
    moment: Moment
    out: Output

    def run(self) -> tuple[list[int], list[int]]:
        """Handle all rounds; returns the positions filtered as stale and as unknown dispatch."""
        row = np.concatenate([np.array([o.row for o in self.others], np.int64), self.asked.row])
        position = np.concatenate(
            [np.array([o.position for o in self.others], np.int64), self.asked.position]
        )
        campaign = np.concatenate([np.full(len(self.others), -1), self.asked.campaign])
        purposes = np.array([_PURPOSES.index(c.purpose) for c in self.rules.policy.campaigns], np.int64)
        purpose = np.concatenate([np.full(len(self.others), -1), purposes[self.asked.campaign]])
        order = np.lexsort((campaign, purpose, position, row))
        row, position = row[order], position[order]
        # What asks of one recipient at one moment for one purpose is one item: at most one of it goes.
        begins = columns.starts(row) | columns.starts(position) | columns.starts(purpose[order])
        turn = columns.rank_of_group(row, begins)
        # An event's activity counts for the items that come after it, and for the triggers it sets off.
        span = int(max(position.max(initial=0), self.events.position.max(initial=0))) + 2
        first_after = np.searchsorted(
            row * span + position + 1, self.events.row * span + self.events.position + 1
        )
        here = np.append(row, -1)[first_after] == self.events.row
        event_turn = np.where(here, np.append(turn, 0)[first_after], int(turn.max(initial=-1)) + 1)
        stale: list[int] = []
        unknown: list[int] = []
        for k in range(int(turn.max(initial=-1)) + 1):
            self._add_activity(event_turn == k)
            mine = order[turn == k]
            for item in mine[mine < len(self.others)].tolist():
                self._other(self.others[item], stale, unknown)
            self._triggers(mine[mine >= len(self.others)] - len(self.others))
        self._add_activity(event_turn > int(turn.max(initial=-1)))
        return stale, unknown

    def _add_activity(self, which: np.ndarray) -> None:
        profile.add_activity(
            self.rows, self.events.row[which], self.added.slot[which], self.added.weight[which]
        )

    def _other(self, other: Other, stale: list[int], unknown: list[int]) -> None:
        if other.topic == topics.ATTRIBUTES.name:
            for name in ("zone", "locale", "provider", "place"):
                if other.fields[name] is not None:
                    self.rows[name][other.row] = other.fields[name].encode()
        elif other.topic == topics.CONSENT.name:
            if not self._consent(other):
                stale.append(other.position)
        elif not self._delivery(other):
            unknown.append(other.position)

    def _consent(self, other: Other) -> bool:
        """Store a consent change; a withdrawal frees what waits. Returns whether it took effect."""
        fields, purpose = other.fields, PURPOSES.index(other.fields["purpose"])
        if fields["version"] <= self.rows["consent_version"][other.row, purpose]:
            return False
        self.rows["consent"][other.row, purpose] = _state(other)
        self.rows["consent_version"][other.row, purpose] = fields["version"]
        cause = self.causes.of(other.position)
        self.out.consent(other.row, fields["purpose"], fields["state"], fields["version"], None, cause)
        policy = self.rules.policy
        if purpose == _PROFILING and not contact.may_profile(np.array(_state(other)), policy.contact):
            self.rows["active"][other.row] = 0
        if _state(other) is Consent.WITHDRAWN:
            slots.withdraw(
                self.rows,
                other.row,
                policy,
                lambda campaign: (
                    campaign.purpose == fields["purpose"] and policy.rule(campaign).consent != "not_needed"
                ),
                self.out,
            )
        return True

    def _delivery(self, other: Other) -> bool:
        """Confirm, fail or suppress. Returns whether it took effect."""
        kind, policy = other.fields["kind"], self.rules.policy
        slot = slots.find(self.rows, other.row, policy, other.fields["dispatch_id"])
        if slot is not None and kind != "deferred":
            reason = Reason.CONFIRMED if kind in ("sent", "delivered") else Reason.FAILED
            slots.close(self.rows, other.row, slot, policy, reason, self.out)
        suppression = _SUPPRESSES.get(kind)
        if suppression is None or (kind == "bounced" and not other.fields["permanent"]):
            return slot is not None or other.fields["dispatch_id"] is None
        before = self.rows["suppressed"][other.row]
        # An address that does not exist stops more than a complaint, whichever was told first.
        if before == Suppression.NONE or suppression == Suppression.BOUNCED != before:
            self.rows["suppressed"][other.row] = suppression
            cause = self.causes.of(other.position)
            self.out.consent(other.row, "suppression", "suppressed", 0, suppression.name.lower(), cause)
        suppressed = self.rows["suppressed"][other.row]
        slots.withdraw(
            self.rows,
            other.row,
            policy,
            lambda campaign: contact.suppresses(policy.rule(campaign), suppressed),
            self.out,
        )
        return True

    def _triggers(self, which: np.ndarray) -> None:
        """Decide those triggers of each of distinct rows that ask at one moment for one purpose."""
        if not len(which):
            return
        rules, found, asked = self.rules, self.found, self.asked
        states = asked.state[which]
        campaigns = [rules.policy.campaigns[c] for c in asked.campaign[which]]
        causes = [_cause(found, int(state), self.causes, self.passed) for state in states]
        rows = asked.row[which]
        decisions = [
            ids.decision_id(
                _cause_id(cause, campaign.trigger), self.names[row], campaign.name, campaign.version
            )
            for cause, campaign, row in zip(causes, campaigns, rows.tolist(), strict=True)
        ]
        in_audience = np.array(
            [
                campaign.audience is None or found.holds[state, rules.segments.column(campaign.audience)]
                for campaign, state in zip(campaigns, states, strict=True)
            ]
        )
        names = [self.names[row] for row in rows.tolist()]
        ask = deciding.Asked(rows, names, campaigns, decisions, in_audience)
        moment = self.moment
        records, at_once = deciding.decide(self.rows, ask, rules.policy, rules.model, moment.now, moment.full)
        for record, row, cause, state in zip(records, rows.tolist(), causes, states, strict=True):
            record["cause"] = cause
            record["policy"] = rules.policy.digest
            record["segments"] = [
                rules.segments.definitions[c].name for c in np.flatnonzero(found.holds[state])
            ]
            record["features"] = {
                feature.name: value
                for feature, value in zip(rules.segments.features, found.values[state].tolist(), strict=True)
                if value == value  # NaN stands for NULL
            }
            self.out.decision(row, record)
        if at_once and not moment.paused:
            row, slot = np.array(at_once).T
            slots.come_due(self.rows, row, slot, rules.policy, moment.now, self.out)


_PROFILING: Final = PURPOSES.index("profiling")
_PURPOSES: Final[tuple[str, ...]] = get_args(Purpose)[::-1]  # what is owed comes first
_SUPPRESSES = {
    "bounced": Suppression.BOUNCED,
    "complained": Suppression.COMPLAINED,
    "unsubscribed": Suppression.UNSUBSCRIBED,
}


def _cause_id(cause: Mapping[str, Any], trigger: Any) -> str:
    """What a decision id is made of: the event's id, or the condition and its due time."""
    if cause["event_id"] is not None:
        return str(cause["event_id"])
    condition = f"enter:{trigger.enter}" if trigger.enter else f"leave:{trigger.leave}"
    return ids.due_id(condition, cause["due_at"])
