"""What the topics say, read once and held compactly, for `streams.reconcile` to compare."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from schemas import codec, topics
from streams import reading
from streams.agents.intake import REKEYED, origin_of
from streams.engine.journal import Entry
from streams.engine.kafka import Client, Record, record_of
from streams.engine.partitioner import partition_of
from streams.explain import kind_of
from streams.reading import Part

# A transaction's markers reach its partitions one after the other, and brokers' clocks differ.
_SETTLE_S: Final = 0.5
_SURELY_LATER_MS: Final = 10 * 60_000
_SOURCES: Final = {topic.name for topic in topics.SOURCES}

Place = tuple[str, int]  # topic and partition


@dataclass(frozen=True, slots=True)
class Mark:
    """A decision, or the end of its waiting: in which cut; the reason if withheld, the lane if released."""

    partition: int
    cut: int
    withheld: str | None
    lane: str = ""
    appended_at: int = 0


@dataclass
class Facts:
    """Everything that reconciliation compares.

    `begins` has only those partitions whose first offset is above zero, `first_cut` the cut of the first
    record of an audit or dead-letter partition among these (None: none is left).
    """

    begins: dict[Place, int] = field(default_factory=dict)
    first_cut: dict[Place, int | None] = field(default_factory=dict)
    first_command: dict[int, int] = field(
        default_factory=dict
    )  # append time by partition, of those in `begins`
    partitions: int = 1  # of dispatch.commands

    journal: dict[int, list[Entry]] = field(default_factory=dict)
    sources: dict[Place, "array[int]"] = field(default_factory=dict)  # offsets
    rekeyed: dict[Place, list[int]] = field(default_factory=dict)  # offsets of origin
    letters: dict[Place, list[int]] = field(default_factory=dict)  # offsets of origin
    causes: dict[Place, set[int]] = field(default_factory=dict)  # offsets that set off decisions
    decisions: dict[str, Mark] = field(default_factory=dict)
    ends: dict[str, Mark] = field(default_factory=dict)
    # Audit records by partition and cut, under the names of the journal's figures.
    said: dict[int, dict[int, Counter[str]]] = field(default_factory=dict)
    # Records by decision id; each should be one.
    decided: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)

    def add(self, part: Part, record: Record) -> None:
        """Take in a record of any of the topics that count. Raises as `codec.decode`."""
        _TAKES.get(part.topic, Facts._source)(self, part, record)

    def _journal(self, part: Part, record: Record) -> None:
        self.journal.setdefault(part.partition, []).append(
            Entry.decode(topics.JOURNAL.name, record.value or b"")
        )

    def _source(self, part: Part, record: Record) -> None:
        self.sources.setdefault((part.topic, part.partition), array("q")).append(record.offset)
        if record.headers and any(name == REKEYED for name, _ in record.headers):
            origin = origin_of(record)
            if origin is not None:
                self.rekeyed.setdefault(origin[:2], []).append(origin[2])

    def _letter(self, part: Part, record: Record) -> None:
        letter = codec.decode(topics.DEAD_LETTERS.name, record.value or b"")
        if letter["topic"] not in _SOURCES:
            return  # DELIVER's
        self._begin(part, letter["cut"])
        self.letters.setdefault((letter["topic"], letter["partition"]), []).append(letter["offset"])

    def _command(self, part: Part, record: Record) -> None:
        if (part.topic, part.partition) in self.begins:
            self.first_command.setdefault(part.partition, record.timestamp)
        self.commands[codec.decode(topics.COMMANDS.name, record.value or b"")["decision_id"]] += 1

    def _audit(self, part: Part, record: Record) -> None:
        fields = codec.decode(topics.AUDIT.name, record.value or b"")
        if fields["line"] != "decide":
            return
        self._begin(part, fields["cut"])
        body, kind = fields["body"], kind_of(fields["body"])
        if kind not in ("decision", "release") or body["outcome"] == "deferred":
            return
        withheld = body["reason"] if body["outcome"] == "withheld" else None
        mark = Mark(fields["partition"], fields["cut"], withheld, body.get("lane") or "", record.timestamp)
        said = self.said.setdefault(mark.partition, {}).setdefault(mark.cut, Counter())
        if kind == "release":
            said["released" if withheld is None else "dropped"] += 1
            self.ended[body["decision_id"]] += 1
            self.ends.setdefault(body["decision_id"], mark)
            return
        said["decided"] += 1
        said["withheld"] += withheld is not None
        self.decided[body["decision_id"]] += 1
        self.decisions.setdefault(body["decision_id"], mark)
        cause = body["cause"]
        if cause["topic"] is not None:
            self.causes.setdefault((cause["topic"], cause["partition"]), set()).add(cause["offset"])

    def _begin(self, part: Part, cut: int) -> None:
        place = part.topic, part.partition
        if place in self.begins and self.first_cut.get(place) is None:
            self.first_cut[place] = cut

    def began(self, part: Part) -> None:
        """Note where a partition begins; before its records are added."""
        if part.low > 0:
            self.begins[part.topic, part.partition] = part.low
            self.first_cut[part.topic, part.partition] = None

    def after(self, topic: str, partition: int) -> int:
        """Cut up to which an audit or dead-letter partition may lack records; 0 if it is whole."""
        if (topic, partition) not in self.begins:
            return 0
        first = self.first_cut[topic, partition]
        # The first cut that is left may have lost some of its records. None left: no cut can be checked.
        return first if first is not None else self.journal[partition][-1].number

    def released(self) -> set[str]:
        """Decisions that were released."""
        return {decision_id for decision_id, end in self.ends.items() if end.withheld is None}

    def surely_kept(self, end: Mark) -> bool:
        """Whether the command of a release cannot have been deleted by retention."""
        partition = partition_of(end.lane.encode(), self.partitions)
        if (topics.COMMANDS.name, partition) not in self.begins:
            return True
        first = self.first_command.get(partition)
        return first is not None and end.appended_at > first + _SURELY_LATER_MS

    def within_journal(self, mark: Mark) -> bool:
        """Whether a cut is one of those read from the journal; later ones came in while reading."""
        entries = self.journal.get(mark.partition)
        return entries is not None and mark.cut <= entries[-1].number


_TAKES: Final = {
    topics.JOURNAL.name: Facts._journal,
    topics.AUDIT.name: Facts._audit,
    topics.COMMANDS.name: Facts._command,
    topics.DEAD_LETTERS.name: Facts._letter,
}


def read(client: Client, on_topic: Callable[[str], object] = lambda name: None) -> Facts:
    """Read everything from Kafka; workers may go on meanwhile.

    The journal is read first and decides up to which cut is counted; audit last, so that every command
    that was seen has its release there. Raises `KafkaUnavailable`, or as `codec.decode` where a newer
    program has written.
    """
    consumer = client.reader()
    facts = Facts()
    order: Iterable[str] = (
        topics.JOURNAL.name,
        *(topic.name for topic in topics.SOURCES),
        topics.DEAD_LETTERS.name,
        topics.COMMANDS.name,
        topics.AUDIT.name,
    )
    for name in order:
        on_topic(name)
        found = reading.parts(consumer, name)
        if name == topics.COMMANDS.name:
            facts.partitions = len(found)
        for part in found:
            facts.began(part)
            for message in reading.messages(consumer, part):
                facts.add(part, record_of(message))
        if name == topics.JOURNAL.name:
            time.sleep(_SETTLE_S)
    consumer.close()
    return facts
