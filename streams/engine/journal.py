"""The journal: which cut held what, when. It is the offset store."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer

from schemas import codec
from streams.engine.kafka import Record, bounds, read_all

FATES: Final = ("no_trigger", "decided", "accepted", "filtered", "dead_lettered", "rekeyed")
UNCOUNTED: Final = -1  # the schemas' default


@dataclass
class Tally:
    """One source topic's part in a cut; every consumed record is in exactly one of the fates.

    DECIDE has no use for `accepted`, DELIVER none for `no_trigger`, `decided`, `rekeyed` and `late`; their
    journals' schemas say which are stored.
    """

    topic: str
    next_offset: int
    consumed: int = 0
    no_trigger: int = 0
    decided: int = 0
    accepted: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    rekeyed: int = 0
    late: int = 0


@dataclass(frozen=True)
class Entry:
    """One cut as a line's journal holds it; `figures` are the line's own, by their names there.

    `rows` is how many rows the table has after the cut; `UNCOUNTED` in entries that are older than the count.
    """

    partition: int
    number: int
    now: int
    control_version: int
    policy: str
    plan_offset: int = 0
    plan_id: str | None = None
    history: bool = False
    topics: list[Tally] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    rows: int = UNCOUNTED

    def encode(self, journal: str) -> bytes:
        """Wire format of a journal; what its schema does not name is left out."""
        return codec.encode(
            journal, vars(self) | {"topics": [vars(tally) for tally in self.topics]} | self.figures
        )

    @classmethod
    def decode(cls, journal: str, value: bytes) -> "Entry":
        """Read the wire format. Raises as `codec.decode`."""
        fields: dict[str, Any] = codec.decode(journal, value)
        own = {name: fields.pop(name) for name in [*fields] if name in _ENTRY}
        own["now"] = codec.millis(own["now"])
        own["topics"] = [Tally(**tally) for tally in own["topics"]]
        return cls(**own, figures=fields)

    def agrees(self, rows: int) -> bool:
        """Whether a table of so many rows can be that of after the cut."""
        return self.rows in (UNCOUNTED, rows)

    def next_offsets(self) -> dict[str, int]:
        """Where each source topic goes on."""
        return {tally.topic: tally.next_offset for tally in self.topics}


_ENTRY: Final = {each.name for each in dataclasses.fields(Entry)}


def last_entry(consumer: Consumer, name: str, partition: int) -> tuple[Entry, int] | None:
    """Last committed entry of a journal's partition and its offset; None where there is none.

    The stable end has a transaction marker before it, and after aborted transactions more, so the search
    steps back in doubling steps.
    """
    low, end = bounds(consumer, name, partition)
    step = 4
    while end > low:
        start = max(low, end - step)
        found: Record | None = None
        for record in read_all(consumer, name, partition, start):
            found = record
        if found is not None and found.value is not None:
            return Entry.decode(name, found.value), found.offset
        if start == low:
            return None
        step *= 2
    return None


class JournalLost(RuntimeError):
    """There are rows and no journal: going on would count every event twice. Stop."""

    def __init__(self, journal: str, partition: int, keys: int) -> None:
        super().__init__(
            f"partition {partition} has {keys} rows and no journal entry: the journal's retention has "
            f"taken all of it, or the topic was made anew; restore {journal}, or begin with "
            "empty topics"
        )


class ChangelogLost(RuntimeError):
    """The changelog gives more or fewer rows than the journal counts: the table would be wrong. Stop."""

    def __init__(self, changelog: str, partition: int, expected: int, found: int) -> None:
        super().__init__(
            f"partition {partition} has {found} rows, its journal counts {expected}: {changelog} was made "
            f"anew, or has lost records; restore {changelog} from a backup, or begin with empty topics"
        )


class OffsetOutOfRange(RuntimeError):
    """The journal goes on where the topic has nothing (any more): records were lost to retention. Stop."""

    def __init__(self, topic: str, partition: int, offset: int, low: int, high: int) -> None:
        super().__init__(
            f"{topic}/{partition}: the journal goes on at {offset}, the topic holds {low} to {high}; "
            f"records were lost, raise its retention and decide whether to accept the gap"
        )
