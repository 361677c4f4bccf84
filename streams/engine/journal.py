"""The journal: which cut held what, when. It is the offset store."""

from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer

from schemas import codec, topics
from streams.engine.kafka import Record, bounds, read_all

FATES: Final = ("no_trigger", "decided", "filtered", "dead_lettered", "rekeyed")


@dataclass
class Tally:
    """One source topic's part in a cut; every consumed record is in exactly one of the five fates."""

    topic: str
    next_offset: int
    consumed: int = 0
    no_trigger: int = 0
    decided: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    rekeyed: int = 0
    late: int = 0


@dataclass(frozen=True)
class Entry:
    """One cut as the journal holds it."""

    partition: int
    number: int
    now: int
    control_version: int
    policy: str
    plan_offset: int
    plan_id: str | None
    history: bool
    topics: list[Tally] = field(default_factory=list)
    decided: int = 0
    withheld: int = 0
    released: int = 0
    dropped: int = 0
    pending: int = 0

    def encode(self) -> bytes:
        """Wire format of decide.journal."""
        return codec.encode(
            topics.JOURNAL.name, vars(self) | {"topics": [vars(tally) for tally in self.topics]}
        )

    @classmethod
    def decode(cls, value: bytes) -> "Entry":
        """Read the wire format. Raises as `codec.decode`."""
        fields: dict[str, Any] = codec.decode(topics.JOURNAL.name, value)
        fields["now"] = codec.millis(fields["now"])
        fields["topics"] = [Tally(**tally) for tally in fields["topics"]]
        return cls(**fields)

    def next_offsets(self) -> dict[str, int]:
        """Where each source topic goes on."""
        return {tally.topic: tally.next_offset for tally in self.topics}


def last_entry(consumer: Consumer, partition: int) -> tuple[Entry, int] | None:
    """Last committed entry of a partition and its offset; None where there is none.

    The stable end has a transaction marker before it, and after aborted transactions more, so the search
    steps back in doubling steps.
    """
    name = topics.JOURNAL.name
    low, end = bounds(consumer, name, partition)
    step = 4
    while end > low:
        start = max(low, end - step)
        found: Record | None = None
        for record in read_all(consumer, name, partition, start):
            found = record
        if found is not None and found.value is not None:
            return Entry.decode(found.value), found.offset
        if start == low:
            return None
        step *= 2
    return None
