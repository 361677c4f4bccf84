"""Reconciliation: everything that was consumed, decided and sent, counted anew from the topics and compared.

Two witnesses are asked about every figure: the journal, and the topic that the figure is about. Counts are
of records; offsets are only compared, never subtracted, since transaction markers leave gaps in them.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from schemas import topics
from streams.facts import Facts
from streams.reconciling import dispatches, mail, recorded
from streams.reconciling.cuts import Cuts, against_audit, check_order, listed
from streams.reconciling.deliveries import Place
from streams.reconciling.dispatches import Commands
from streams.reconciling.mail import Mail
from streams.reconciling.recorded import Spot, Sums, Table

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
    """What was counted, what does not agree, and what could not be checked.

    `mail` and `tables` are None and empty where the sandbox and ClickHouse were not compared.
    """

    flows: list[Flow] = field(default_factory=list)
    decisions: list[Decisions] = field(default_factory=list)
    commands: list[Commands] = field(default_factory=list)
    mail: Mail | None = None
    tables: list[Table] = field(default_factory=list)
    discrepancies: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(
    facts: Facts, at_least_once: Collection[str] = (), rows: Mapping[Spot, Sums] | None = None
) -> Report:
    """Count and compare. Pure.

    Parameters
    ----------
    facts
        What the topics say.
    at_least_once
        Campaigns that may send one dispatch twice.
    rows
        What ClickHouse holds of the facts' `recorded`.
    """
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
    report.commands, found = dispatches.compare(facts)
    report.discrepancies += found
    if facts.mails is not None:
        report.mail, found = mail.compare(facts.mails, facts.deliver, facts.begins, at_least_once)
        report.discrepancies += found
    if facts.recorded is not None and rows is not None:
        report.tables, found = recorded.compare(facts.recorded, rows)
        report.discrepancies += found
    return report


def _retention(facts: Facts) -> Iterator[str]:
    """Tell what cannot be checked, since the topics do not go back so far."""
    what = {
        topics.JOURNAL.name: "earlier cuts are not counted",
        topics.DELIVER_JOURNAL.name: "DELIVER's earlier cuts are not counted",
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
    begun = (topics.JOURNAL.name, partition) in facts.begins
    yield from check_order(topics.JOURNAL.name, partition, entries, FATES, begun)
    for before, entry in pairwise(entries):
        figures = entry.figures
        ended = figures["withheld"] + figures["released"] + figures["dropped"]
        pending = before.figures["pending"] + figures["decided"] - ended
        if figures["pending"] != pending:
            yield (
                f"{where}, cut {entry.number}: {figures['pending']} sends wait, "
                f"but {pending} do by what came and went"
            )


def _flow(facts: Facts, place: Place) -> tuple[Flow, list[str]]:
    """Count one source topic's partition cut by cut; the cuts whose records are all still there."""
    topic, partition = place
    cuts = Cuts.of(facts.journal[partition], topic, facts.begins.get(place, 0))
    whole = cuts.whole
    witnesses = (
        ("consumed", "records", facts.sources.get(place, ()), whole),
        (
            "decided",
            "records with decisions in the audit trail",
            facts.causes.get(place, ()),
            whole & (cuts.numbers > facts.after(topics.AUDIT.name, partition)),
        ),
        (
            "dead_lettered",
            "dead letters",
            facts.letters.get(place, []),
            whole & (cuts.numbers > facts.after(topics.DEAD_LETTERS.name, partition)),
        ),
        (
            "rekeyed",
            "re-keyed copies",
            facts.rekeyed.get(place, []),
            whole & (not any(name == topic for name, _ in facts.begins)),
        ),
    )
    flow = Flow(topic, partition, int(cuts.ends[-1]))
    off: list[str] = []
    for name in ("consumed", *FATES, "late"):
        setattr(flow, name, int(cuts.said(name)[whole].sum()))
    for name, what, offsets, checked in witnesses:
        seen = cuts.found(offsets)
        # Where the other witness is gone, the journal's word stands.
        count = int(np.where(checked, seen, cuts.said(name))[whole].sum())
        setattr(flow, name if name == "consumed" else f"found_{name}", count)
        off += cuts.differ(f"{topic} partition {partition}", name, what, seen, checked)
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
    off = list(
        against_audit(
            f"{topics.AUDIT.name} partition {partition}",
            [entry for entry in entries if entry.number > after],
            ("decided", "withheld", "released", "dropped"),
            facts.said.get(partition, {}),
        )
    )
    if missing := result.missing():
        gone = "went nowhere" if missing > 0 else "went somewhere that were never made"
        off.append(f"decisions of partition {partition}: {abs(missing)} {gone}")
    return result, off


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
        yield from listed("decision", what, [i for i, count in counted.items() if count > 1])
    # A command or a release may be of a decision that retention has deleted.
    if not any(topic == topics.AUDIT.name for topic, _ in facts.begins):
        yield from listed(
            "decision", "has a command, but no release", facts.commands.keys() - facts.released()
        )
        yield from listed(
            "decision", "came due, but was never decided", facts.ends.keys() - facts.decisions.keys()
        )
    held = {i for i, decision in facts.decisions.items() if decision.withheld is not None}
    yield from listed("decision", "was withheld, but came due", held & facts.ends.keys())
    lost = [
        i
        for i in facts.released() - facts.commands.keys()
        if facts.surely_kept(facts.ends[i]) and facts.within_journal(facts.ends[i])
    ]
    yield from listed("decision", "was released, but has no command", lost)
