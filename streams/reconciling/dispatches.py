"""What became of the commands: DELIVER's journal against the topics, the audit trail and its table."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from schemas import topics
from schemas.dispatch import State
from streams.engine.journal import Entry
from streams.facts import Facts
from streams.reconciling.cuts import Cuts, against_audit, check_order, listed
from streams.reconciling.deliveries import ENDS, Command, Row

FATES: Final = ("historic", *ENDS, "duplicate", "dead_lettered")
_TALLIED: Final = ("accepted", "filtered", "dead_lettered")
_TOLD: Final = ("historic", "duplicate", *ENDS, "deferred")
# What ends a claim: outcomes, and what makes the message wait again.
_SETTLED: Final = ("delivered", "bounced", "unknown", "deferred", "returned")
_STANDING: Final = (State.WAITING, State.CLAIMED)
_COMMANDS: Final = topics.COMMANDS.name


@dataclass
class Commands:
    """One partition's commands and their fates; `found` counts these outside the journal.

    Where the other witness is gone, `found` has the journal's word. `not_taken_up` are commands on the topic
    that no cut has consumed.
    """

    partition: int
    stood_before: int = 0
    consumed: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    deferred: int = 0
    pending: int = 0
    in_flight: int = 0
    not_taken_up: int = 0

    def add(self, other: "Commands") -> None:
        """Add another's counts."""
        for name, value in vars(other).items():
            if name != "partition":
                setattr(self, name, getattr(self, name) + value)

    def missing(self) -> int:
        """Commands that went nowhere; below zero, more went than came."""
        gone = sum(self.fates[name] for name in FATES)
        return self.stood_before + self.consumed - gone - self.pending - self.in_flight


def compare(facts: Facts) -> tuple[list[Commands], list[str]]:
    """Count and compare. Pure."""
    counts: list[Commands] = []
    off: list[str] = []
    for partition in sorted(facts.deliver.journal):
        off += _journal(facts, partition)
        some, found = _commands(facts, partition)
        counts.append(some)
        off += found
        off += _standing(facts, partition)
    off += _unjournalled(facts)
    off += _ends(facts)
    off += _rows(facts)
    return counts, off


def _journal(facts: Facts, partition: int) -> Iterator[str]:
    """Check that the journal agrees with itself."""
    name = topics.DELIVER_JOURNAL.name
    entries = facts.deliver.journal[partition]
    yield from check_order(name, partition, entries, _TALLIED, (name, partition) in facts.begins)
    for before, entry in pairwise(entries):
        here, figures = f"{name} partition {partition}, cut {entry.number}", entry.figures
        tally = next((tally for tally in entry.topics if tally.topic == _COMMANDS), None)
        came = tally.accepted if tally else 0
        if tally and tally.filtered != figures["duplicate"]:
            yield f"{here}: {tally.filtered} commands had no effect, but {figures['duplicate']} were repeats"
        ended = sum(figures[kind] for kind in ("historic", *ENDS))
        standing = _stood(before) + came - ended
        if _stood(entry) != standing:
            yield f"{here}: {_stood(entry)} dispatches stand, but {standing} do by what came and went"
        settled = sum(figures[kind] for kind in _SETTLED)
        in_flight = before.figures["in_flight"] + figures["claimed"] - settled
        if figures["in_flight"] != in_flight:
            yield (
                f"{here}: {figures['in_flight']} are in flight, but {in_flight} are by what was claimed "
                "and settled"
            )


def _stood(entry: Entry) -> int:
    """How many dispatches wait or are in flight after a cut."""
    return int(entry.figures["pending"] + entry.figures["in_flight"])


def _commands(facts: Facts, partition: int) -> tuple[Commands, list[str]]:
    """Balance one partition's commands over the cuts that the journal has whole."""
    deliver = facts.deliver
    entries, written = deliver.journal[partition], np.array(deliver.written[partition])
    counted = [entry for entry in entries if entry.number == 1 or entry is not entries[0]]
    result = Commands(partition, pending=entries[-1].figures["pending"])
    result.in_flight = entries[-1].figures["in_flight"]
    result.stood_before = _stood(entries[0]) if len(counted) < len(entries) else 0
    for entry in counted:
        result.fates.update({name: entry.figures[name] for name in _TOLD if name != "deferred"})
        result.deferred += entry.figures["deferred"]
        for tally in entry.topics:
            if tally.topic == _COMMANDS:
                result.consumed += tally.consumed
                result.fates["dead_lettered"] += tally.dead_lettered
    result.found.update(result.fates)

    off: list[str] = []
    for topic in topics.DISPATCH_SOURCES:
        place = topic.name, partition
        cuts, taken = Cuts.of(entries, topic.name, facts.begins.get(place, 0)), deliver.taken.get(place, ())
        if topic.name == _COMMANDS:
            result.not_taken_up = int((np.array(taken, np.int64) >= cuts.ends[-1]).sum())
        lettered = cuts.whole & (written > facts.whole_since(topics.DEAD_LETTERS.name, partition))
        for name, what, offsets, checked in (
            ("consumed", "records", taken, cuts.whole),
            ("dead_lettered", "dead letters", deliver.letters.get(place, ()), lettered),
        ):
            seen = cuts.found(offsets)
            off += cuts.differ(f"{topic.name} partition {partition}", name, what, seen, checked)
            if (name, topic.name) == ("dead_lettered", _COMMANDS):
                result.found[name] += int((seen - cuts.said(name))[checked].sum())
    off += _audited(facts, partition, result)
    if missing := result.missing():
        gone = "went nowhere" if missing > 0 else "went somewhere that never came"
        off.append(f"commands of partition {partition}: {abs(missing)} {gone}")
    return result, off


def _audited(facts: Facts, partition: int, result: Commands) -> Iterator[str]:
    """Hold the journal's figures against DELIVER's audit records, cut by cut."""
    # They stand on the partitions of their recipients, so what any of these lost counts for every line.
    trimmed = [place for place in facts.begins if place[0] == topics.AUDIT.name]
    since = max((facts.whole_since(*place) for place in trimmed), default=-np.inf)
    deliver = facts.deliver
    whole = [
        entry
        for entry, at in zip(deliver.journal[partition], deliver.written[partition], strict=True)
        if at > since and (entry.number == 1 or entry is not deliver.journal[partition][0])
    ]
    trail = deliver.said.get(partition, {})
    for entry in whole:
        for name in _TOLD:
            if name in FATES:
                result.found[name] += trail.get(entry.number, Counter())[name] - entry.figures[name]
    where = f"{topics.AUDIT.name}, cuts of DELIVER's partition {partition}"
    yield from against_audit(where, whole, _TOLD, trail)


def _standing(facts: Facts, partition: int) -> Iterator[str]:
    """Count the rows that stood after the last cut that was read.

    The table was read later: what it has newer is left out, what has ended since is counted in.
    """
    deliver = facts.deliver
    until = deliver.taken_up(partition)

    def had_come(dispatch: str) -> bool:
        command = deliver.commands.get(dispatch)
        return command is None or command.offset < until  # None: retention has taken it, so it is older

    mine = {d: row for d, row in deliver.rows.items() if row.partition == partition}
    rows = {d for d, row in mine.items() if row.state in _STANDING}
    # Only of rows that were seen: a message may come, go and end between the readings of table and audit.
    since = {d for d in mine if (end := deliver.ends.get(d)) and not deliver.within_journal(end)}
    count = sum(map(had_come, rows | since))
    expected = _stood(deliver.journal[partition][-1])
    if count != expected:
        yield (
            f"{topics.DISPATCHES.name} partition {partition}: {count} dispatches wait or are in flight, "
            f"but {expected} do by the journal"
        )


def _unjournalled(facts: Facts) -> Iterator[str]:
    """Find rows and audit records of partitions whose journal was never begun, not even meanwhile."""
    deliver = facts.deliver
    rows = Counter(row.partition for row in deliver.rows.values())
    told = {partition: sum(c.total() for c in cuts.values()) for partition, cuts in deliver.said.items()}
    trimmed = {partition for topic, partition in facts.begins if topic == topics.DELIVER_JOURNAL.name}
    begun = deliver.now.keys() | trimmed
    for what, counted in ((topics.DISPATCHES.name, rows), (topics.AUDIT.name, told)):
        for partition, count in sorted(counted.items()):
            if partition not in begun:
                yield f"{what} has {count} records of DELIVER's partition {partition}, the journal no cut"


def _ends(facts: Facts) -> Iterator[str]:
    """Check that every dispatch ends once, by a command, and that its row says the same."""
    deliver = facts.deliver
    yield from listed("dispatch", "has ended more than once", [d for d, n in deliver.ended.items() if n > 1])
    historic = [d for d in deliver.ends if (command := deliver.commands.get(d)) and command.history]
    yield from listed("dispatch", "is of loaded history, but has an end", historic)
    sure = {d: end for d, end in deliver.ends.items() if deliver.within_journal(end)}
    if not any(topic == _COMMANDS for topic, _ in facts.begins):
        yield from listed("dispatch", "has an end, but no command", sure.keys() - deliver.commands.keys())
    lost, differing = [], dict[str, list[str]]()
    for dispatch, end in sure.items():
        row = _row(facts, dispatch)
        if row is None:
            if _kept(facts, deliver.commands.get(dispatch)):
                lost.append(dispatch)
        elif row.state.name.lower() != end.kind:
            text = f"was {end.kind} by the audit trail, but is {row.state.name.lower()} in the table"
            differing.setdefault(text, []).append(dispatch)
    yield from listed("dispatch", "has an end, but no row any more that would know its repeats", lost)
    for text, dispatches in sorted(differing.items()):
        yield from listed("dispatch", text, dispatches)


def _rows(facts: Facts) -> Iterator[str]:
    """Check that every ended row has its end, and every command a row or an end."""
    deliver = facts.deliver
    audit_whole = not any(topic == topics.AUDIT.name for topic, _ in facts.begins)
    if audit_whole:
        ended = {d for d, row in deliver.rows.items() if row.state not in (State.AWAITED, *_STANDING)}
        untold = ended - deliver.ends.keys()
        yield from listed("dispatch", "has ended in the table, but not in the audit trail", untold)
    lost = [
        dispatch
        for dispatch, command in deliver.commands.items()
        if not command.history
        and command.offset < deliver.taken_up(command.partition)
        and dispatch not in deliver.ends
        and _row(facts, dispatch) is None
        and command.offset not in deliver.letters.get((_COMMANDS, command.partition), ())
        and (audit_whole or _kept(facts, command))
    ]
    yield from listed("dispatch", "has a command, but neither row nor end", lost)


def _row(facts: Facts, dispatch: str) -> Row | None:
    """A dispatch's row, unless a recall alone has made it."""
    row = facts.deliver.rows.get(dispatch)
    return None if row is None or row.state == State.AWAITED else row


def _kept(facts: Facts, command: Command | None) -> bool:
    """Whether a dispatch's row cannot have been forgotten yet."""
    return command is not None and facts.deliver.now.get(command.partition, 0) < command.kept_until
