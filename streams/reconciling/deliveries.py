"""What the topics say of DELIVER, read once and held compactly."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from schemas import codec, topics
from schemas.codec import MalformedRecord
from schemas.dispatch import KEPT_MS, LAYOUTS, State
from streams.engine.journal import Entry
from streams.engine.kafka import Record
from streams.reading import Part

Place = tuple[str, int]  # topic and partition
ENDS: Final = ("delivered", "bounced", "expired", "recalled", "unknown")


@dataclass(frozen=True, slots=True)
class Command:
    """A dispatch's first command; its row must not be forgotten before `kept_until`, UTC ms."""

    partition: int
    offset: int
    campaign: str
    history: bool
    kept_until: int


@dataclass(frozen=True, slots=True)
class End:
    """How a dispatch ended by the audit trail: one of `ENDS`, and in which cut."""

    kind: str
    partition: int
    cut: int
    campaign: str


@dataclass(frozen=True, slots=True)
class Row:
    """Where a dispatch stands in DELIVER's table."""

    state: State
    attempts: int
    partition: int
    campaign: str


@dataclass
class Deliveries:
    """Journal, table, commands and audit records of DELIVER.

    `written` are the times at which Kafka took the journal's entries, by the same places; `now` is DELIVER's
    own time at the least, by partition, when its table was read; `said` are audit records by partition and
    cut, under the names of the journal's figures.
    """

    journal: dict[int, list[Entry]] = field(default_factory=dict)
    written: dict[int, list[int]] = field(default_factory=dict)
    now: dict[int, int] = field(default_factory=dict)
    taken: dict[Place, "array[int]"] = field(default_factory=dict)  # offsets of commands and recalls
    letters: dict[Place, list[int]] = field(default_factory=dict)  # offsets of origin
    commands: dict[str, Command] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    said: dict[int, dict[int, Counter[str]]] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)  # records by dispatch; each should be one
    deferred: set[str] = field(default_factory=set)

    def add_entry(self, part: Part, record: Record) -> None:
        """Take in an entry of the journal. Raises as `codec.decode`."""
        entry = Entry.decode(topics.DELIVER_JOURNAL.name, record.value or b"")
        self.journal.setdefault(part.partition, []).append(entry)
        self.written.setdefault(part.partition, []).append(record.timestamp)
        self.now[part.partition] = entry.now

    def add_row(self, part: Part, record: Record) -> None:
        """Take in a record of the table's changelog. Raises `NewerRow`."""
        dispatch = (record.key or b"").decode()
        if record.value is None:
            self.rows.pop(dispatch, None)
            return
        row = LAYOUTS.read([record.value])[0]
        self.rows[dispatch] = Row(
            State(int(row["state"])), int(row["attempts"]), part.partition, row["campaign"].decode()
        )

    def add_command(self, part: Part, record: Record) -> dict[str, Any] | None:
        """Take in a command and return it decoded; None if it is malformed. Raises `UnknownSchema`."""
        self.add_taken(part, record)
        try:
            fields = codec.decode(topics.COMMANDS.name, record.value or b"")
        except MalformedRecord:
            return None  # DELIVER makes a dead letter of it, which is counted
        # A lane may let a message expire sooner than its command does, but not before it was released.
        earliest = min(codec.millis(fields["released_at"]), codec.millis(fields["expires_at"]))
        command = Command(
            part.partition, record.offset, fields["campaign"], fields["history"], earliest + KEPT_MS
        )
        self.commands.setdefault(fields["dispatch_id"], command)
        return fields

    def add_taken(self, part: Part, record: Record) -> None:
        """Take in a command or a recall as one that some cut consumes."""
        self.taken.setdefault((part.topic, part.partition), array("q")).append(record.offset)

    def add_audit(self, fields: dict[str, Any]) -> None:
        """Take in a decoded audit record of DELIVER."""
        body, partition, cut = fields["body"], fields["partition"], fields["cut"]
        kind = "historic" if body["kind"] == "history" else body["kind"]
        self.said.setdefault(partition, {}).setdefault(cut, Counter())[kind] += 1
        if kind in ENDS:
            self.ended[body["dispatch_id"]] += 1
            self.ends.setdefault(body["dispatch_id"], End(kind, partition, cut, body["campaign"]))
        elif kind == "deferred":
            self.deferred.add(body["dispatch_id"])

    def taken_up(self, partition: int) -> int:
        """Offset of a partition's commands at which the cuts that were read end."""
        entries = self.journal.get(partition)
        return entries[-1].next_offsets().get(topics.COMMANDS.name, 0) if entries else 0

    def within_journal(self, end: End) -> bool:
        """Whether an end is in one of the cuts that were read; later ones came in while reading."""
        entries = self.journal.get(end.partition)
        return entries is not None and end.cut <= entries[-1].number
