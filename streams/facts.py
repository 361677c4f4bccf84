"""What the topics say, read once and held compactly, for `streams.reconcile` to compare."""

import math
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from schemas import codec, topics
from sinks.clickhouse import shape
from streams import reading
from streams.agents.intake import REKEYED, origin_of
from streams.engine.journal import Entry, last_entry
from streams.engine.kafka import Client, Record, record_of
from streams.engine.partitioner import partition_of
from streams.explain import kind_of
from streams.reading import Part
from streams.reconciling import mail
from streams.reconciling.deliveries import Deliveries, Place
from streams.reconciling.recorded import Recorded

# A transaction's markers reach its partitions one after the other, and brokers' clocks differ.
_SETTLE_S: Final = 0.5
_SURELY_LATER_MS: Final = 10 * 60_000
_SOURCES: Final = {topic.name for topic in topics.SOURCES}
_DISPATCH_SOURCES: Final = {topic.name for topic in topics.DISPATCH_SOURCES}


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
    record of an audit or dead-letter partition among these (None: none is left), `first_written` the time at
    which Kafka took the first record that is left of each. `mails` counts the stored messages by dispatch;
    `recorded` is what ClickHouse must hold; None where these are not compared.
    """

    begins: dict[Place, int] = field(default_factory=dict)
    first_cut: dict[Place, int | None] = field(default_factory=dict)
    first_written: dict[Place, int] = field(default_factory=dict)
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

    deliver: Deliveries = field(default_factory=Deliveries)
    mails: Counter[str] | None = None
    recorded: Recorded | None = None

    def add(self, part: Part, record: Record) -> None:
        """Take in a record of any of the topics that count. Raises as `codec.decode`, and `NewerRow`."""
        if (part.topic, part.partition) in self.begins:
            self.first_written.setdefault((part.topic, part.partition), record.timestamp)
        _TAKES.get(part.topic, Facts._source)(self, part, record)

    def _journal(self, part: Part, record: Record) -> None:
        self.journal.setdefault(part.partition, []).append(
            Entry.decode(topics.JOURNAL.name, record.value or b"")
        )
        self._record("cut", part, record)

    def _deliver_journal(self, part: Part, record: Record) -> None:
        self.deliver.add_entry(part, record)
        self._record("cut", part, record)

    def _row(self, part: Part, record: Record) -> None:
        self.deliver.add_row(part, record)

    def _recall(self, part: Part, record: Record) -> None:
        self.deliver.add_taken(part, record)

    def _source(self, part: Part, record: Record) -> None:
        self.sources.setdefault((part.topic, part.partition), array("q")).append(record.offset)
        if record.headers and any(name == REKEYED for name, _ in record.headers):
            origin = origin_of(record)
            if origin is not None:
                self.rekeyed.setdefault(origin[:2], []).append(origin[2])

    def _letter(self, part: Part, record: Record) -> None:
        letter = codec.decode(topics.DEAD_LETTERS.name, record.value or b"")
        origin = letter["topic"], letter["partition"]
        if self.recorded is not None:
            name = *origin, letter["offset"], letter["reason"]
            self.recorded.add_letter((part.topic, part.partition), record.offset, name)
        if letter["topic"] in _SOURCES:
            self._begin(part, letter["cut"])
            self.letters.setdefault(origin, []).append(letter["offset"])
        elif letter["topic"] in _DISPATCH_SOURCES:
            self.deliver.letters.setdefault(origin, []).append(letter["offset"])
        elif self.recorded is not None:
            self.recorded.refused.setdefault(origin, set()).add(letter["offset"])

    def _command(self, part: Part, record: Record) -> None:
        command = self.deliver.add_command(part, record)
        if command is not None:
            self.commands[command["decision_id"]] += 1

    def _record(self, table: str, part: Part, record: Record) -> None:
        if self.recorded is not None:
            self.recorded.add(table, (part.topic, part.partition), record.offset)

    def _audit(self, part: Part, record: Record) -> None:
        fields = codec.decode(topics.AUDIT.name, record.value or b"")
        self._record(shape.table_of(fields["body"]), part, record)
        if fields["line"] == "deliver":
            self.deliver.add_audit(fields)
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
        return end.appended_at > self.whole_since(topics.COMMANDS.name, partition)

    def whole_since(self, topic: str, partition: int) -> float:
        """When Kafka had taken the last record that retention may have deleted; minus infinity: none."""
        place = topic, partition
        if place not in self.begins:
            return -math.inf
        return self.first_written.get(place, math.inf) + _SURELY_LATER_MS

    def within_journal(self, mark: Mark) -> bool:
        """Whether a cut is one of those read from the journal; later ones came in while reading."""
        entries = self.journal.get(mark.partition)
        return entries is not None and mark.cut <= entries[-1].number


_TAKES: Final = {
    topics.JOURNAL.name: Facts._journal,
    topics.DELIVER_JOURNAL.name: Facts._deliver_journal,
    topics.DISPATCHES.name: Facts._row,
    topics.AUDIT.name: Facts._audit,
    topics.COMMANDS.name: Facts._command,
    topics.RECALLS.name: Facts._recall,
    topics.DEAD_LETTERS.name: Facts._letter,
}


def read(
    client: Client,
    on_topic: Callable[[str], object] = lambda name: None,
    mail_folder: Path | None = None,
    recorded: Recorded | None = None,
) -> Facts:
    """Read everything from Kafka, and the names of stored messages; workers may go on meanwhile.

    The journals are read first and decide up to which cut is counted. Then come the messages, which are
    stored before a journal says that they were delivered; then DELIVER's table, by which every stored message
    is claimed at least; audit last, so that whatever was seen before has its record there. `recorded` says
    what is in ClickHouse, where that is compared, and was asked before.

    Raises
    ------
    KafkaUnavailable
        Kafka did not answer.
    UnknownSchema, MalformedRecord, NewerRow
        A newer program has written; deploy it.
    """
    consumer = client.reader()
    facts = Facts(recorded=recorded)
    order: Iterable[str] = (
        topics.JOURNAL.name,
        topics.DELIVER_JOURNAL.name,
        topics.DISPATCHES.name,
        *(topic.name for topic in topics.SOURCES),
        topics.DEAD_LETTERS.name,
        *(topic.name for topic in topics.DISPATCH_SOURCES),
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
        if name == topics.DELIVER_JOURNAL.name:
            facts.mails = None if mail_folder is None else mail.stored(mail_folder)
            time.sleep(_SETTLE_S)
        if name == topics.DISPATCHES.name:
            for part in found:
                last = last_entry(consumer, topics.DELIVER_JOURNAL.name, part.partition)
                if last is not None:
                    facts.deliver.now[part.partition] = last[0].now
    consumer.close()
    return facts
