"""What DECIDE's journal gives: how much was consumed, how fast, and what became of it."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from schemas import topics
from streams.engine.journal import Entry

# Between two cuts so far apart in wall-clock time nobody was at work.
_PAUSE_MS: Final = 10_000


@dataclass
class Fates:
    """Records of one source topic that cuts have consumed, and what became of them; `late` is among these."""

    topic: str
    consumed: int = 0
    no_trigger: int = 0
    decided: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    rekeyed: int = 0
    late: int = 0

    def add(self, other: Any) -> None:
        """Add the counts of another, or of a journal's tally."""
        for name in list(vars(self))[1:]:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class Rate:
    """Cuts of one kind, the events in them, and the rate at which they were consumed.

    `seconds` are of the brokers' wall clock, without pauses; `per_second` counts the events that were
    consumed in these, all but those of each stretch's first cut. None where that gives no time.
    """

    cuts: int
    events: int
    seconds: float
    per_second: float | None


@dataclass
class Cuts:
    """Figures of the journal."""

    begin: int | None = None
    end: int | None = None
    historic: set[tuple[int, int]] = field(default_factory=set)  # partition and number; an hour each, so few
    _fates: dict[str, Fates] = field(default_factory=lambda: {t.name: Fates(t.name) for t in topics.SOURCES})
    # Events by broker timestamp, of live cuts and of history.
    _stamps: tuple[Counter[int], Counter[int]] = field(default_factory=lambda: (Counter(), Counter()))
    _cuts: Counter[bool] = field(default_factory=Counter)

    def add(self, entry: Entry, appended_at: int) -> None:
        """Take in a cut; `appended_at` is the broker's timestamp of its journal record."""
        self.begin = entry.now if self.begin is None else min(self.begin, entry.now)
        self.end = entry.now if self.end is None else max(self.end, entry.now)
        self._cuts[entry.history] += 1
        if entry.history:
            self.historic.add((entry.partition, entry.number))
        self._stamps[entry.history][appended_at] += sum(tally.consumed for tally in entry.topics)
        for tally in entry.topics:
            self._fates.setdefault(tally.topic, Fates(tally.topic)).add(tally)

    def fates(self) -> list[Fates]:
        """Each source topic's, in the order of topics."""
        return list(self._fates.values())

    def rate(self, history: bool) -> Rate:
        """Of the cuts of history, or of the live ones."""
        stamps = sorted(self._stamps[history].items())
        timed = [
            (at - before, events)
            for (before, _), (at, events) in pairwise(stamps)
            if at - before <= _PAUSE_MS
        ]
        seconds = sum(gap for gap, _ in timed) / 1000
        per_second = sum(events for _, events in timed) / seconds if seconds else None
        return Rate(self._cuts[history], sum(events for _, events in stamps), seconds, per_second)
