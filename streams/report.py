"""What a deployment has done: the figures of `opportune report`, gathered in one pass over each topic."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from schemas import codec, topics
from schemas.lanes import Lanes
from streams import reading
from streams.engine.journal import Entry
from streams.engine.kafka import Client, bytes_of
from streams.figures.cuts import Cuts, Fates, Rate
from streams.figures.delivery import Deliveries, Outcomes, Pacing
from streams.figures.latency import Decided, Latencies, Stamps
from streams.figures.times import HoursOfDay, column, quarters, shares_of_day, usual_zone
from streams.figures.trail import Campaign, Example, Segments, Trail

_CHUNK: Final = 20_000

Take = Callable[[Sequence[Any]], None]


@dataclass(frozen=True)
class Report:
    """All that the report prints; `begins_late` names the topics whose beginning retention has deleted."""

    begin: int | None
    end: int | None
    history: Rate
    live: Rate
    fates: list[Fates]
    dead_letters: dict[str, int]
    campaigns: list[Campaign]
    segments: Segments
    hours: HoursOfDay
    outcomes: list[Outcomes]
    pacing: Pacing
    latencies: Latencies
    examples: list[Example]
    begins_late: list[str]


def gather(client: Client, lanes: Lanes, zone: str | None = None) -> Report:
    """Read the topics and count; workers may go on meanwhile, then topics differ by a few cuts.

    Parameters
    ----------
    lanes
        What is set for each lane, beside which its figures are put.
    zone
        IANA zone in which hours of day are told; None: that of most recipients.

    Raises
    ------
    NoTopic, KafkaUnavailable
        As `streams.reading`.
    MalformedRecord, UnknownSchema, NewerRow
        A newer program has written a journal, the audit trail, a command, a dead letter or DELIVER's table.
    """
    made = _Pass()
    takes = made.takes()
    # A reader mostly waits for the end of each partition, so the topics are read side by side.
    with ThreadPoolExecutor(len(takes)) as pool:
        whole = list(pool.map(lambda item: _read(client, *item), takes.items()))
    made.deliveries.table(made.rows)
    cuts, trail, deliveries = made.cuts, made.trail, made.deliveries
    zone = zone or usual_zone(made.zone_of)
    acts = sum(made.activity.values(), Counter[int]())
    return Report(
        begin=cuts.begin,
        end=cuts.end,
        history=cuts.rate(True),
        live=cuts.rate(False),
        fates=cuts.fates(),
        dead_letters=dict(made.dead),
        campaigns=trail.campaigns(),
        segments=trail.segments(cuts.begin, cuts.end),
        hours=HoursOfDay(
            zone,
            shares_of_day(trail.sends, zone),
            shares_of_day(acts, zone),
            trail.sends.total(),
            acts.total(),
        ),
        outcomes=deliveries.outcomes(),
        pacing=deliveries.pacing(lanes),
        latencies=made.decided.latencies(made.stamps, cuts.historic, deliveries),
        examples=trail.examples(),
        begins_late=[
            name
            for name, kept in zip(takes, whole, strict=True)
            if not kept and not topics.BY_NAME[name].compact
        ],
    )


@dataclass
class _Pass:
    """What one pass over the topics gathers.

    Each topic is read in a thread of its own, and no two of them write to the same dict, list or number.
    """

    cuts: Cuts = field(default_factory=Cuts)
    trail: Trail = field(default_factory=Trail)
    decided: Decided = field(default_factory=Decided)
    deliveries: Deliveries = field(default_factory=Deliveries)
    stamps: Stamps = field(default_factory=Stamps)
    dead: Counter[str] = field(default_factory=Counter)
    zone_of: dict[str, str] = field(default_factory=dict)
    activity: dict[str, Counter[int]] = field(
        default_factory=lambda: {topics.CLICKS.name: Counter(), topics.PURCHASES.name: Counter()}
    )
    rows: dict[bytes, bytes] = field(default_factory=dict)  # DELIVER's table

    def takes(self) -> Mapping[str, Take]:
        """Topics in the order of the work that they are, each with what takes its records in."""
        return {
            topics.AUDIT.name: self._audit,
            topics.CLICKS.name: self._source(topics.CLICKS.name, self._behaviour(topics.CLICKS.name)),
            topics.PURCHASES.name: self._source(
                topics.PURCHASES.name, self._behaviour(topics.PURCHASES.name)
            ),
            topics.COMMANDS.name: self._commands,
            topics.JOURNAL.name: self._journal,
            topics.DELIVER_JOURNAL.name: self._deliver_journal,
            topics.DISPATCHES.name: self._table,
            topics.ATTRIBUTES.name: self._source(topics.ATTRIBUTES.name, self._attributes),
            topics.CONSENT.name: self._source(topics.CONSENT.name),
            topics.DELIVERY.name: self._source(topics.DELIVERY.name),
            topics.DEAD_LETTERS.name: self._letters,
        }

    def _audit(self, found: Sequence[Any]) -> None:
        for message in found:
            record, written_at = codec.decode(topics.AUDIT.name, _value(message)), message.timestamp()[1]
            if record["line"] == "deliver":
                self.deliveries.delivery(record["body"], written_at)
            else:
                self.trail.add(record)
                self.decided.add(record, written_at)

    def _commands(self, found: Sequence[Any]) -> None:
        for message in found:
            record = codec.decode(topics.COMMANDS.name, _value(message))
            self.deliveries.command(record, message.timestamp()[1])

    def _journal(self, found: Sequence[Any]) -> None:
        for message in found:
            self.cuts.add(Entry.decode(topics.JOURNAL.name, _value(message)), message.timestamp()[1])

    def _deliver_journal(self, found: Sequence[Any]) -> None:
        for message in found:
            self.deliveries.reached(Entry.decode(topics.DELIVER_JOURNAL.name, _value(message)).now)

    def _table(self, found: Sequence[Any]) -> None:
        for message in found:
            key, value = bytes_of(message.key()) or b"", bytes_of(message.value())
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    def _letters(self, found: Sequence[Any]) -> None:
        for message in found:
            self.dead[codec.decode(topics.DEAD_LETTERS.name, _value(message))["reason"]] += 1

    def _attributes(self, found: Sequence[Any]) -> None:
        self.zone_of.update(column(topics.ATTRIBUTES.name, _pairs(found), "zone").drop_nulls().iter_rows())

    def _behaviour(self, topic: str) -> Take:
        return lambda found: self.activity[topic].update(
            quarters(column(topic, _pairs(found), "occurred_at")["occurred_at"])
        )

    def _source(self, topic: str, take: Take = lambda _: None) -> Take:
        def stamped(found: Sequence[Any]) -> None:
            offsets = [message.offset() for message in found]
            self.stamps.add(
                topic, found[0].partition(), offsets, [message.timestamp()[1] for message in found]
            )
            take(found)

        return stamped


def _read(client: Client, topic: str, take: Take) -> bool:
    """Hand a topic's records over in chunks of one partition each; whether it still has its beginning."""
    consumer = client.reader()
    try:
        parts = reading.parts(consumer, topic)
        for part in parts:
            for chunk in _chunks(reading.messages(consumer, part)):
                take(chunk)
        return all(part.low == 0 for part in parts)
    finally:
        consumer.close()


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    source = iter(items)
    while chunk := list(islice(source, _CHUNK)):
        yield chunk


def _value(message: Any) -> bytes:
    return bytes_of(message.value()) or b""


def _pairs(found: Iterable[Any]) -> list[tuple[bytes, bytes]]:
    return [(bytes_of(message.key()) or b"", _value(message)) for message in found]
