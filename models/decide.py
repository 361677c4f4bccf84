"""Cuts decided: rows, records and time in; rows, audit and commands out. Pure; see docs/decisions.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models import columns, contact, human, profile, redefinition, slots, triggers
from models.audit import Output
from models.changes import state_of
from models.inputs import Behaviour, Causes, Moment, Other, Rules
from models.profile import Events
from models.rounds import Rounds
from models.segments import Segments
from models.triggers import BEFORE_RECORDS, States
from schemas import topics
from schemas.layouts import opaque, picked
from schemas.policy import Policy
from schemas.profile import CLICK, HOUR_MS, PURPOSES

_PROFILING: Final = PURPOSES.index("profiling")


@dataclass
class Fates:
    """By position: which records were filtered, and which triggered a campaign."""

    filtered: np.ndarray  # duplicates, and what machines did
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
    out = Output(names, rules.models.names, moment.history, now)
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
    accepted = behaviour.doubt != human.MACHINE
    some = np.flatnonzero(accepted)
    accepted[some] = profile.accept(rows, behaviour.row[some], behaviour.hashes[some])
    events = _events(rows, behaviour, accepted, others, policy, spells, lives, now)
    added = profile.additions(lives.rows, events, now)
    passed = profile.last_evaluation(rows, before, now) * known
    passed = np.where(stale_profiles & (passed == 0), now // HOUR_MS * HOUR_MS, passed)
    outdated = known & (rows["segments_version"] != rules.version)
    timed = passed != 0
    evaluated = np.flatnonzero(timed | outdated)
    found = triggers.states(lives, evaluated, events, added, rules.segments, now)
    redefinition.sweep(rows, outdated, timed, found, rules.segments, rules.applied, rules.version, out)
    rows["segments_version"] = rules.version
    changed |= outdated
    times = profile.Times.of(lives.rows)
    asked = triggers.triggers(found, events, stale_profiles, rules.campaigns, rules.segments)
    profile.add(lives.rows, events, added)
    lives.end(rows)
    members = rows["segments"].copy()
    _transitions(rows, found, events, causes, passed, rules.segments, out)

    rounds = Rounds(
        names, rows, events, added, others, lives, times, found, asked, causes, passed, rules, moment, out
    )
    stale, unknown = rounds.run()

    changed |= (rows["segments"] != members).any(1)
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
            now = bool(contact.may_profile(np.array(state_of(other)), policy.contact))
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


def _events(
    rows: np.ndarray,
    behaviour: Behaviour,
    accepted: np.ndarray,
    others: Sequence[Other],
    policy: Policy,
    spells: _Spells,
    lives: profile.Lives,
    now: int,
) -> Events:
    """The accepted events, each with its recipient's zone at that moment, and what of it may be kept."""
    row, position = behaviour.row[accepted], behaviour.position[accepted]
    zone = contact.zone_of(rows, policy.contact)[row]
    moves = sorted((o.row, o.position, o.fields["zone"].encode()) for o in others if o.fields.get("zone"))
    if moves:
        moved, since, name = (np.array(column) for column in zip(*moves, strict=True))
        latest = profile.latest_of(moved, since, row, position)
        zone[latest >= 0] = name[latest[latest >= 0]]
    kind, at, amount = behaviour.kind[accepted], behaviour.at[accepted], behaviour.amount[accepted]
    counts, life = spells.may_at(row, position), lives.of(row, position)
    last, doubt = lives.rows["last"][:, CLICK], behaviour.doubt[accepted]
    weight = human.weights((row, life), kind, at, counts, doubt, last, rows["sent_at"], now)
    return Events(row, position, kind, at, amount, zone, counts, life, weight)


def _transitions(
    rows: np.ndarray,
    found: States,
    events: Events,
    causes: Causes,
    passed: np.ndarray,
    segments: Segments,
    out: Output,
) -> None:
    """Write down every membership change and store the last state in owned rows."""
    state, column = np.nonzero(found.holds != found.held)
    changes = (state, column, found.row[state], found.holds[state, column])
    for at, which, row, entered in zip(*(each.tolist() for each in changes), strict=True):
        segment, cause = segments.definitions[which], found.cause(at, causes, passed)
        out.transition(row, segment.name, entered, cause, segment.definition)
    last = np.flatnonzero(np.append(columns.starts(found.row)[1:], True)) if len(found.row) else found.row
    rows["segments"][found.row[last]] = segments.packed(found.holds[last])
