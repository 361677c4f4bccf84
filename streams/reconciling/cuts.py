"""A journal beside the topics that it speaks of, cut by cut."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.engine.journal import Entry, Tally

_NONE: Final[Counter[str]] = Counter()


@dataclass(frozen=True)
class Cuts:
    """One topic partition's part in the cuts of a journal, as columns (n,).

    `ends` are the offsets where the next cut goes on; `whole` marks cuts whose records are all still there.
    """

    numbers: np.ndarray
    ends: np.ndarray
    whole: np.ndarray
    tallies: Sequence[Tally | None]

    @classmethod
    def of(cls, entries: Sequence[Entry], topic: str, begins: int) -> "Cuts":
        """Columns of a topic whose first offset is `begins`; at least one entry."""
        numbers = np.array([entry.number for entry in entries])
        tallies = [next((t for t in entry.topics if t.topic == topic), None) for entry in entries]
        nexts = np.array([tally.next_offset if tally else 0 for tally in tallies], np.int64)
        ends = np.maximum.accumulate(nexts)
        whole = np.ones(len(entries), np.bool_)
        if entries[0].number != 1:
            whole[0] = False  # where it began stands in an entry that is gone
        whole &= np.concatenate([[0], ends[:-1]]) >= begins
        return cls(numbers, ends, whole, tallies)

    def said(self, name: str) -> np.ndarray:
        """One figure of the tallies, int64."""
        return np.array([getattr(tally, name) if tally else 0 for tally in self.tallies], np.int64)

    def found(self, offsets: Iterable[int]) -> np.ndarray:
        """How many of these records belong to each cut; those behind the last are not counted."""
        cut = np.searchsorted(self.ends, np.fromiter(offsets, np.int64), side="right")
        return np.bincount(cut, minlength=len(self.ends) + 1)[: len(self.ends)]

    def differ(
        self, where: str, name: str, what: str, seen: np.ndarray, checked: np.ndarray
    ) -> Iterator[str]:
        """Tell where a figure is not what another witness counts, among the cuts that can be checked."""
        said = self.said(name)
        wrong = np.flatnonzero(checked & (said != seen))
        if len(wrong):
            cut = wrong[0]
            yield (
                f"{where}: the journal says {said[checked].sum()} {name}, there are "
                f"{seen[checked].sum()} {what}; {len(wrong)} cuts differ, first cut {self.numbers[cut]} "
                f"({said[cut]} and {seen[cut]})"
            )


def check_order(
    journal: str, partition: int, entries: Sequence[Entry], fates: Sequence[str], begun: bool
) -> Iterator[str]:
    """Check that cuts follow each other, nothing goes back, and every record has one of the fates.

    `begun`: retention has deleted the journal's beginning.
    """
    where = f"{journal} partition {partition}"
    if entries[0].number != 1 and not begun:
        yield f"{where} begins with cut {entries[0].number}, not with 1"
    reached: dict[str, int] = {}
    before: Entry | None = None
    for entry in entries:
        here = f"{where}, cut {entry.number}"
        if entry.partition != partition:
            yield f"{here}: it says that it is of partition {entry.partition}"
        for tally in entry.topics:
            if tally.next_offset < reached.get(tally.topic, 0):
                yield f"{here}: {tally.topic} goes back from {reached[tally.topic]} to {tally.next_offset}"
            reached[tally.topic] = tally.next_offset
            told = sum(getattr(tally, name) for name in fates)
            if told != tally.consumed:
                yield f"{here}: {tally.topic} has {tally.consumed} records consumed, but fates of {told}"
        if before is not None and entry.number != before.number + 1:
            yield f"{here}: follows cut {before.number}"
        if before is not None and entry.now < before.now:
            yield f"{here}: its time goes back from {before.now} to {entry.now}"
        before = entry


def against_audit(
    where: str, entries: Sequence[Entry], names: Iterable[str], trail: Mapping[int, Counter[str]]
) -> Iterator[str]:
    """Compare figures of the journal with the audit records of each cut."""
    for name in names:
        pairs = [(e.number, e.figures[name], trail.get(e.number, _NONE)[name]) for e in entries]
        wrong = [pair for pair in pairs if pair[1] != pair[2]]
        if wrong:
            cut, said, seen = wrong[0]
            sums = sum(pair[1] for pair in pairs), sum(pair[2] for pair in pairs)
            yield (
                f"{where}: the journal says {sums[0]} {name}, "
                f"the audit trail {sums[1]}; {len(wrong)} cuts differ, first cut {cut} ({said} and {seen})"
            )


def listed(what: str, text: str, found: Iterable[str], most: int = 5) -> Iterator[str]:
    """Tell of each `what` in a line, by id, and of those that are too many to list in one."""
    ids = sorted(found)
    for each in ids[:most]:
        yield f"{what} {each} {text}"
    if len(ids) > most:
        yield f"… and {len(ids) - most} more: {text}"
