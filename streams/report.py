"""What a deployment has done: the figures of `opportune report`, gathered in one pass over each topic."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from schemas import codec, topics
from streams import reading
from streams.engine.journal import Entry
from streams.engine.kafka import Client, bytes_of
from streams.figures import (
    Campaign,
    Cuts,
    Example,
    Fates,
    HoursOfDay,
    Rate,
    Segments,
    Trail,
    column,
    quarters,
    shares_of_day,
    usual_zone,
)

_CHUNK: Final = 20_000


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
    examples: list[Example]
    begins_late: list[str]


def gather(client: Client, zone: str | None = None) -> Report:
    """Read the topics and count; workers may go on meanwhile, then topics differ by a few cuts.

    Parameters
    ----------
    zone
        IANA zone in which hours of day are told; None: that of most recipients.

    Raises
    ------
    NoTopic, KafkaUnavailable
        As `streams.reading`.
    MalformedRecord, UnknownSchema
        A newer program has written the journal, the audit trail or a dead letter.
    """
    cuts, trail = Cuts(), Trail()
    dead: Counter[str] = Counter()
    zone_of: dict[str, str] = {}
    activity: tuple[Counter[int], ...] = (Counter(), Counter())

    def journal(found: Sequence[Any]) -> None:
        for message in found:
            cuts.add(Entry.decode(topics.JOURNAL.name, _value(message)), message.timestamp()[1])

    def audit(found: Sequence[Any]) -> None:
        for message in found:
            trail.add(codec.decode(topics.AUDIT.name, _value(message)))

    def letters(found: Sequence[Any]) -> None:
        for message in found:
            dead[codec.decode(topics.DEAD_LETTERS.name, _value(message))["reason"]] += 1

    def attributes(found: Sequence[Any]) -> None:
        zone_of.update(column(topics.ATTRIBUTES.name, _pairs(found), "zone").drop_nulls().iter_rows())

    def behaviour(topic: str, counts: Counter[int]) -> Callable[[Sequence[Any]], None]:
        return lambda found: counts.update(
            quarters(column(topic, _pairs(found), "occurred_at")["occurred_at"])
        )

    takes = {
        topics.AUDIT.name: audit,
        topics.CLICKS.name: behaviour(topics.CLICKS.name, activity[0]),
        topics.PURCHASES.name: behaviour(topics.PURCHASES.name, activity[1]),
        topics.JOURNAL.name: journal,
        topics.ATTRIBUTES.name: attributes,
        topics.DEAD_LETTERS.name: letters,
    }
    # A reader mostly waits for the end of each partition, so the topics are read side by side.
    with ThreadPoolExecutor(len(takes)) as pool:
        whole = list(pool.map(lambda item: _read(client, *item), takes.items()))
    zone = zone or usual_zone(zone_of)
    acts = activity[0] + activity[1]
    return Report(
        begin=cuts.begin,
        end=cuts.end,
        history=cuts.rate(True),
        live=cuts.rate(False),
        fates=cuts.fates(),
        dead_letters=dict(dead),
        campaigns=trail.campaigns(),
        segments=trail.segments(cuts.begin, cuts.end),
        hours=HoursOfDay(
            zone,
            shares_of_day(trail.sends, zone),
            shares_of_day(acts, zone),
            trail.sends.total(),
            acts.total(),
        ),
        examples=trail.examples(),
        begins_late=[name for name, kept in zip(takes, whole, strict=True) if not kept],
    )


def _read(client: Client, topic: str, take: Callable[[Sequence[Any]], None]) -> bool:
    """Hand a topic's records over in chunks; returns whether it still has its beginning."""
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
