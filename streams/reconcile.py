"""Reconciliation: everything that was consumed, decided and sent, counted anew from the topics and compared.

Two witnesses are asked about every figure: the journal, and the topic that the figure is about. Counts are
of records; offsets are only compared, never subtracted, since transaction markers leave gaps in them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas import topics
from streams.facts import Facts, Place

_NONE: Final[Counter[str]] = Counter()
FATES: Final = ("no_trigger", "decided", "filtered", "dead_lettered", "rekeyed")


@dataclass
class Flow:
    """One source topic and partition: records found, and the journal's tallies of their fates.

    The `found_` figures are counted in other topics than the journal, in the cuts for which these go back
    far enough.
    """

    topic: str
    partition: int
    next_offset: int = 0
    consumed: int = 0
    no_trigger: int = 0
    decided: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    rekeyed: int = 0
    late: int = 0
    found_decided: int = 0
    found_dead_lettered: int = 0
    found_rekeyed: int = 0

    def add(self, other: "Flow") -> None:
        """Add another's counts."""
        for name in ("consumed", *FATES, "late", "found_decided", "found_dead_lettered", "found_rekeyed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Decisions:
    """One partition's decisions: those made and those that waited when counting began, and their ends."""

    partition: int
    waited_before: int = 0
    decided: int = 0
    commands: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    withheld_at_release: Counter[str] = field(default_factory=Counter)
    pending: int = 0

    def add(self, other: "Decisions") -> None:
        """Add another's counts."""
        for name in ("waited_before", "decided", "commands", "withheld", "withheld_at_release", "pending"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def missing(self) -> int:
        """Decisions that went nowhere; below zero, more went than came."""
        gone = self.commands + self.withheld.total() + self.withheld_at_release.total()
        return self.waited_before + self.decided - gone - self.pending


@dataclass
class Report:
    """What was counted, what does not agree, and what could not be checked."""

    flows: list[Flow] = field(default_factory=list)
    decisions: list[Decisions] = field(default_factory=list)
    discrepancies: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(facts: Facts) -> Report:
    """Count and compare. Pure."""
    report = Report(notes=list(_retention(facts)))
    for partition in sorted(facts.journal):
        report.discrepancies += _journal(facts, partition)
        for topic in topics.SOURCES:
            flow, found = _flow(facts, (topic.name, partition))
            report.flows.append(flow)
            report.discrepancies += found
        decisions, found = _decisions(facts, partition)
        report.decisions.append(decisions)
        report.discrepancies += found
    report.discrepancies += _unjournalled(facts)
    report.discrepancies += _identities(facts)
    return report


def _retention(facts: Facts) -> Iterator[str]:
    """Tell what cannot be checked, since the topics do not go back so far."""
    what = {
        topics.JOURNAL.name: "earlier cuts are not counted",
        topics.AUDIT.name: "earlier cuts' decisions are not counted",
        topics.DEAD_LETTERS.name: "earlier cuts' dead letters are the journal's word alone",
        topics.COMMANDS.name: "commands missing before that go unnoticed, and are taken from the audit trail",
    }
    for (topic, partition), begins in sorted(facts.begins.items()):
        yield (
            f"{topic} partition {partition} begins at offset {begins}, retention deleted what stood before: "
            f"{what.get(topic, 'counts begin with the first cut that is whole')}"
        )
    for source in topics.SOURCES:
        if any(name == source.name for name, _ in facts.begins):
            yield f"{source.name}: re-keyed records are the journal's word alone, their copies may be deleted"


def _journal(facts: Facts, partition: int) -> Iterator[str]:
    """Check that the journal agrees with itself."""
    where = f"{topics.JOURNAL.name} partition {partition}"
    entries = facts.journal[partition]
    if entries[0].number != 1 and (topics.JOURNAL.name, partition) not in facts.begins:
        yield f"{where} begins with cut {entries[0].number}, not with 1"
    reached: dict[str, int] = {}
    for place, entry in enumerate(entries):
        here = f"{where}, cut {entry.number}"
        if entry.partition != partition:
            yield f"{here}: it says that it is of partition {entry.partition}"
        for tally in entry.topics:
            if tally.next_offset < reached.get(tally.topic, 0):
                yield f"{here}: {tally.topic} goes back from {reached[tally.topic]} to {tally.next_offset}"
            reached[tally.topic] = tally.next_offset
            fates = sum(getattr(tally, name) for name in FATES)
            if fates != tally.consumed:
                yield f"{here}: {tally.topic} has {tally.consumed} records consumed, but fates of {fates}"
        if place == 0:
            continue
        before = entries[place - 1]
        if entry.number != before.number + 1:
            yield f"{here}: follows cut {before.number}"
        if entry.now < before.now:
            yield f"{here}: its time goes back from {before.now} to {entry.now}"
        figures = entry.figures
        ended = figures["withheld"] + figures["released"] + figures["dropped"]
        pending = before.figures["pending"] + figures["decided"] - ended
        if figures["pending"] != pending:
            yield f"{here}: {figures['pending']} sends wait, but {pending} do by what came and went"


def _flow(facts: Facts, place: Place) -> tuple[Flow, list[str]]:
    """Count one source topic's partition cut by cut; the cuts whose records are all still there."""
    topic, partition = place
    entries = facts.journal[partition]
    numbers = np.array([entry.number for entry in entries])
    tallies = [next((t for t in entry.topics if t.topic == topic), None) for entry in entries]
    ends = np.maximum.accumulate(np.array([tally.next_offset if tally else 0 for tally in tallies], np.int64))
    whole = np.ones(len(entries), np.bool_)
    if entries[0].number != 1:
        whole[0] = False  # where it began stands in an entry that is gone
    whole &= np.concatenate([[0], ends[:-1]]) >= facts.begins.get(place, 0)

    def journal(name: str) -> np.ndarray:
        return np.array([getattr(tally, name) if tally else 0 for tally in tallies], np.int64)

    def found(offsets: Iterable[int]) -> np.ndarray:
        cut = np.searchsorted(ends, np.fromiter(offsets, np.int64), side="right")
        return np.bincount(cut, minlength=len(ends) + 1)[: len(ends)]

    witnesses = (
        ("consumed", "records", facts.sources.get(place, ()), whole),
        (
            "decided",
            "records with decisions in the audit trail",
            facts.causes.get(place, ()),
            whole & (numbers > facts.after(topics.AUDIT.name, partition)),
        ),
        (
            "dead_lettered",
            "dead letters",
            facts.letters.get(place, []),
            whole & (numbers > facts.after(topics.DEAD_LETTERS.name, partition)),
        ),
        (
            "rekeyed",
            "re-keyed copies",
            facts.rekeyed.get(place, []),
            whole & (not any(name == topic for name, _ in facts.begins)),
        ),
    )
    flow, off = Flow(topic, partition, int(ends[-1])), []
    for name in ("consumed", *FATES, "late"):
        setattr(flow, name, int(journal(name)[whole].sum()))
    for name, what, offsets, checked in witnesses:
        said, seen = journal(name), found(offsets)
        # Where the other witness is gone, the journal's word stands.
        count = int(np.where(checked, seen, said)[whole].sum())
        setattr(flow, name if name == "consumed" else f"found_{name}", count)
        wrong = np.flatnonzero(checked & (said != seen))
        if len(wrong):
            cut = wrong[0]
            off.append(
                f"{topic} partition {partition}: the journal says {said[checked].sum()} {name}, there are "
                f"{seen[checked].sum()} {what}; {len(wrong)} cuts differ, first cut {numbers[cut]} "
                f"({said[cut]} and {seen[cut]})"
            )
    return flow, off


def _decisions(facts: Facts, partition: int) -> tuple[Decisions, list[str]]:
    """Balance one partition's decisions over the cuts for which audit trail and journal are there."""
    entries = facts.journal[partition]
    after = facts.after(topics.AUDIT.name, partition)
    if entries[0].number != 1:
        after = max(after, entries[0].number)
    last = entries[-1].number
    result = Decisions(partition, pending=entries[-1].figures["pending"])
    result.waited_before = next((e.figures["pending"] for e in reversed(entries) if e.number <= after), 0)
    counted = range(after + 1, last + 1)
    for decision in facts.decisions.values():
        if decision.partition == partition and decision.cut in counted:
            result.decided += 1
            if decision.withheld is not None:
                result.withheld[decision.withheld] += 1
    for decision_id, end in facts.ends.items():
        if end.partition == partition and end.cut in counted:
            if end.withheld is not None:
                result.withheld_at_release[end.withheld] += 1
            else:
                result.commands += decision_id in facts.commands or not facts.surely_kept(end)
    off = list(_audit_per_cut(facts, partition, after))
    if missing := result.missing():
        gone = "went nowhere" if missing > 0 else "went somewhere that were never made"
        off.append(f"decisions of partition {partition}: {abs(missing)} {gone}")
    return result, off


def _audit_per_cut(facts: Facts, partition: int, after: int) -> Iterator[str]:
    """Compare the journal's figures of decisions with the audit records of each cut."""
    entries = [entry for entry in facts.journal[partition] if entry.number > after]
    trail = facts.said.get(partition, {})
    for name in ("decided", "withheld", "released", "dropped"):
        pairs = [(e.number, e.figures[name], trail.get(e.number, _NONE)[name]) for e in entries]
        wrong = [pair for pair in pairs if pair[1] != pair[2]]
        if wrong:
            cut, said, seen = wrong[0]
            sums = sum(pair[1] for pair in pairs), sum(pair[2] for pair in pairs)
            yield (
                f"{topics.AUDIT.name} partition {partition}: the journal says {sums[0]} {name}, "
                f"the audit trail {sums[1]}; {len(wrong)} cuts differ, first cut {cut} ({said} and {seen})"
            )


def _unjournalled(facts: Facts) -> Iterator[str]:
    """Find audit records of partitions that have no journal."""
    made = Counter(decision.partition for decision in facts.decisions.values())
    for partition, count in sorted(made.items()):
        if partition not in facts.journal:
            yield f"{topics.AUDIT.name} partition {partition} has {count} decisions, the journal no cut"


def _identities(facts: Facts) -> Iterator[str]:
    """Check that decisions, ends and commands are there once, and each has what it came from."""
    for what, counted in (
        ("was decided more than once (does a producer use an event id anew?)", facts.decided),
        ("was released or withheld at release more than once", facts.ended),
        ("has a command more than once", facts.commands),
    ):
        yield from _listed(what, [i for i, count in counted.items() if count > 1])
    # A command or a release may be of a decision that retention has deleted.
    if not any(topic == topics.AUDIT.name for topic, _ in facts.begins):
        yield from _listed("has a command, but no release", facts.commands.keys() - facts.released())
        yield from _listed("came due, but was never decided", facts.ends.keys() - facts.decisions.keys())
    held = {i for i, decision in facts.decisions.items() if decision.withheld is not None}
    yield from _listed("was withheld, but came due", held & facts.ends.keys())
    lost = [
        i
        for i in facts.released() - facts.commands.keys()
        if facts.surely_kept(facts.ends[i]) and facts.within_journal(facts.ends[i])
    ]
    yield from _listed("was released, but has no command", lost)


def _listed(text: str, found: Iterable[str], most: int = 5) -> Iterator[str]:
    """Tell of each decision in a line, and of those that are too many to list in one."""
    decisions = sorted(found)
    for decision_id in decisions[:most]:
        yield f"decision {decision_id} {text}"
    if len(decisions) > most:
        yield f"… and {len(decisions) - most} more: {text}"
