"""Records of cuts decoded and judged: an event, a dead letter, or one for another partition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
import xxhash

from models import columns, human
from schemas import codec, ids, topics, zones
from schemas import columns as blocks
from schemas.codec import MalformedRecord, UnknownSchema
from schemas.profile import CLICK, DAY_MS, DAYS, KINDS, MINUTE_MS, PURCHASE
from schemas.reasons import DeadLetterReason
from streams.engine.batch import NOTHING, Batch
from streams.engine.cut import Cut, Out
from streams.engine.kafka import Record
from streams.engine.partitioner import partition_of

ORIGIN_TOPIC: Final = "origin-topic"
ORIGIN_PARTITION: Final = "origin-partition"
ORIGIN_OFFSET: Final = "origin-offset"
REKEYED: Final = "rekeyed"

_TOO_LATE_MS: Final = DAYS * DAY_MS
_TOO_EARLY_MS: Final = 5 * MINUTE_MS
_LATE_MS: Final = 60 * MINUTE_MS
_BEHAVIOUR: Final = (topics.PURCHASES.name, topics.CLICKS.name)
_KIND_NUMBER: Final = {kind: number for number, kind in enumerate(KINDS)}
_TEXT_LIMITS: Final = {"locale": 8, "place": 8, "provider": 12}


@dataclass
class Taken:
    """The columns of some cuts' n records, cut after cut, each in its order; position is the index.

    `fields` holds the decoded records of consent, attributes and delivery; `dead` the dead letters' reasons
    and errors. Both by position.
    """

    cut: np.ndarray  # number of the record's cut, from 0
    partition: np.ndarray
    topic: np.ndarray  # rank of the source topic, u1
    records: Batch
    recipient: list[bytes]  # key; b"" where none
    at: np.ndarray  # event time UTC ms, 0 unknown
    kind: np.ndarray  # column of the counters, -1 where none
    amount: np.ndarray
    doubt: np.ndarray  # that a person did it, u1: `models.human`
    event_ids: list[str | None]  # the producer's
    fields: dict[int, Mapping[str, Any]]  # by position: consent, attributes, delivery
    dead: dict[int, tuple[DeadLetterReason, str]] = field(default_factory=dict)

    def event_id(self, position: int) -> str:
        """Return the event's id: the producer's, or one derived from where the record first stood."""
        given = self.event_ids[position]
        if given is not None:
            return given
        record = self.records[position]
        origin = origin_of(record)
        if origin is not None:
            return ids.event_id(*origin)
        topic = topics.SOURCES[self.topic[position]].name
        return ids.event_id(topic, int(self.partition[position]), record.offset)

    def hashes(self, positions: np.ndarray) -> np.ndarray:
        """Hashes by which repeats are known, u8; 0 where neither producer nor re-keying gave an id."""
        listed = positions.tolist()
        given = [self.event_ids[position] for position in listed]
        if self.records.headers is not None:
            for place, position in enumerate(listed):
                if given[place] is None and origin_of(self.records[position]) is not None:
                    given[place] = self.event_id(position)
        out = np.zeros(len(given), np.uint64)
        named = [place for place, event_id in enumerate(given) if event_id is not None]
        names = given if len(named) == len(given) else [given[place] for place in named]
        hashed = np.fromiter(map(xxhash.xxh3_64_intdigest, map(str.encode, names)), np.uint64, len(names))
        out[named] = np.maximum(hashed, 1)
        return out

    def late(self, now: int) -> np.ndarray:
        """Bool (n,): event time more than an hour before the cut."""
        return (self.at > 0) & (self.at < now - _LATE_MS)


def headers_of(record: Record) -> dict[str, bytes]:
    """Headers by name; a null value, which one client gives and another does not, counts as empty."""
    return {name: value or b"" for name, value in record.headers}


def origin_of(record: Record) -> tuple[str, int, int] | None:
    """Where a re-keyed or re-driven record first stood, from its headers; None for any other."""
    if not record.headers:
        return None
    headers = headers_of(record)
    try:
        return headers[ORIGIN_TOPIC].decode(), int(headers[ORIGIN_PARTITION]), int(headers[ORIGIN_OFFSET])
    except (KeyError, ValueError):
        return None


def origin_headers(topic: str, partition: int, record: Record) -> list[tuple[str, bytes]]:
    """Headers that name where a record first stood, kept from the record if it was moved before."""
    origin = origin_of(record) or (topic, partition, record.offset)
    names = (ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET)
    return [(name, str(value).encode()) for name, value in zip(names, origin, strict=True)]


def take(cuts: Sequence[Cut]) -> Taken:
    """Decode the records of cuts of one moment by columns; each cut's by timestamp, topic rank, offset."""
    parts = [_of_topic(rank, topic.name, cuts) for rank, topic in enumerate(topics.SOURCES)]
    parts = [part for part in parts if len(part.records)] or parts[:1]
    if len(parts) == 1:
        return parts[0]  # in the order of offsets, which timestamps made non-decreasing keep
    timestamp = np.concatenate([columns.running_max(part.records.timestamps, part.cut) for part in parts])
    cut = np.concatenate([part.cut for part in parts])
    rank = np.concatenate([part.topic for part in parts])
    records = Batch.joined([part.records for part in parts])
    order = np.lexsort((records.offsets, rank, timestamp, cut))
    starts = np.cumsum([0] + [len(part.records) for part in parts])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    listed = order.tolist()
    recipients = [recipient for part in parts for recipient in part.recipient]
    event_ids = [event_id for part in parts for event_id in part.event_ids]
    fields: dict[int, Mapping[str, Any]] = {}
    dead: dict[int, tuple[DeadLetterReason, str]] = {}
    for start, part in zip(starts.tolist(), parts, strict=False):
        fields |= {int(place[start + i]): record for i, record in part.fields.items()}
        dead |= {int(place[start + i]): letter for i, letter in part.dead.items()}
    return Taken(
        cut[order],
        np.concatenate([part.partition for part in parts])[order],
        rank[order],
        records.picked(order),
        [recipients[i] for i in listed],
        np.concatenate([part.at for part in parts])[order],
        np.concatenate([part.kind for part in parts])[order],
        np.concatenate([part.amount for part in parts])[order],
        np.concatenate([part.doubt for part in parts])[order],
        [event_ids[i] for i in listed],
        fields,
        dead,
    )


def _of_topic(rank: int, topic: str, cuts: Sequence[Cut]) -> Taken:
    """One topic's records as columns, cut after cut, each in offset order."""
    parts = [cut.records.get(topic, NOTHING) for cut in cuts]
    counts = [len(part) for part in parts]
    records, n, now = Batch.joined(parts), sum(counts), cuts[0].now
    keys = [key or b"" for key in records.keys]
    taken = Taken(
        np.repeat(np.arange(len(cuts)), counts),
        np.repeat([cut.partition for cut in cuts], counts),
        np.full(n, rank, np.uint8),
        records,
        keys,
        np.zeros(n, np.int64),
        np.full(n, -1),
        np.zeros(n, np.int64),
        np.zeros(n, np.uint8),
        [None] * n,
        {},
    )
    done: list[int] = []
    for number in codec.ids_of(topic) if topic in _BEHAVIOUR and n else ():
        header = codec.header(number)
        plain = [
            i
            for i, value in enumerate(records.values)
            if value is not None and value.startswith(header) and len(value) <= topics.MAX_RECORD_BYTES
        ]
        if plain:
            done += _block(taken, topic, number, plain, now)
    if len(done) < n:
        for i in sorted(set(range(n)) - set(done)):
            _one(taken, topic, i, now)
    return taken


def _block(taken: Taken, topic: str, number: int, places: list[int], now: int) -> list[int]:
    """Decode records of one topic and one schema together; returns the places of those that could be."""
    values, keys = taken.records.values, taken.recipient
    try:
        frame = blocks.decode(number, [values[i] or b"" for i in places], [keys[i] for i in places])
    except blocks.ColumnsRefused:
        # By cut, then: a block is laxer than a single record, and a cut's fate must not hang on another's.
        cuts = taken.cut[places].tolist()
        if cuts[0] == cuts[-1]:
            return []
        by_cut: dict[int, list[int]] = {}
        for cut, place in zip(cuts, places, strict=True):
            by_cut.setdefault(cut, []).append(place)
        return [place for some in by_cut.values() for place in _block(taken, topic, number, some, now)]
    _fill(taken, topic, np.array(places), frame, now)
    return places


def _fill(taken: Taken, topic: str, places: np.ndarray, frame: pl.DataFrame, now: int) -> None:
    """Put a decoded frame into the columns, and judge each row."""
    # Through numpy: what polars does to a single column goes through its query engine, 75 us each time.
    taken.at[places] = frame.get_column("occurred_at").to_numpy().astype(np.int64)
    if topic == topics.PURCHASES.name:
        taken.kind[places] = PURCHASE
        taken.amount[places] = frame.get_column("amount").to_numpy()
    else:
        kinds = frame.get_column("kind").to_list()
        taken.kind[places] = [_KIND_NUMBER[kind] for kind in kinds]
        taken.doubt[places] = _doubt(frame, kinds, taken.kind[places])
    event_ids = frame.get_column("event_id")
    lengths: int | np.ndarray = 1
    whole = len(places) == len(taken.recipient)
    keys = taken.recipient if whole else [taken.recipient[i] for i in places.tolist()]
    recipients = np.fromiter(map(len, keys), np.int64, len(places))
    if event_ids.null_count() < len(event_ids):
        listed = event_ids.to_list()
        lengths = np.array([1 if event_id is None else len(event_id) for event_id in listed])
        if whole:
            taken.event_ids = listed
        else:
            for i, event_id in zip(places.tolist(), listed, strict=True):
                taken.event_ids[i] = event_id
    at = taken.at[places]
    suspect = (
        (lengths < 1) | (lengths > 64) | (recipients < 1) | (recipients > 128) | (taken.amount[places] < 0)
    )
    suspect |= (at < now - _TOO_LATE_MS) | (at > now + _TOO_EARLY_MS)
    for i in places[suspect].tolist():
        _one(taken, topic, i, now)


def _doubt(frame: pl.DataFrame, kinds: Sequence[str], numbers: np.ndarray) -> np.ndarray:
    """See `models.human`: of decoded clicks, u1 (n,)."""
    of_mail = frame.get_column("dispatch_id").is_not_null().to_numpy()
    told = [frame.get_column(name) for name in ("agent", "network") if name in frame.columns]
    if all(column.null_count() == len(column) for column in told):
        return np.where((numbers == CLICK) & of_mail, human.OF_MAIL, 0)
    agents, networks = (column.to_list() for column in told)
    return np.array(list(map(human.doubt, kinds, agents, networks, of_mail.tolist())), np.uint8)


def _one(taken: Taken, topic: str, i: int, now: int) -> None:
    """Decode and judge a single record; what cannot be handled becomes a dead letter."""
    record = taken.records[i]
    value = record.value
    if value is None:
        taken.dead[i] = DeadLetterReason.MALFORMED, "no value; a source record needs one"
        return
    if len(value) > topics.MAX_RECORD_BYTES:
        taken.dead[i] = (
            DeadLetterReason.OVERSIZED,
            f"{len(value)} bytes, at most {topics.MAX_RECORD_BYTES}; send references, not contents",
        )
        return
    try:
        fields = codec.decode(topic, value)
    except UnknownSchema as error:
        taken.dead[i] = (
            DeadLetterReason.UNKNOWN_SCHEMA,
            f"{error}; deploy the version that knows it, then re-drive",
        )
        return
    except MalformedRecord as error:
        taken.dead[i] = DeadLetterReason.MALFORMED, f"{error}; mend the producer"
        return
    if not record.key or record.key != fields["recipient_id"].encode():
        taken.dead[i] = DeadLetterReason.KEY_MISMATCH, "the Kafka key must be recipient_id in UTF-8"
        return
    problem = _invalid(topic, fields)
    if problem is not None:
        taken.dead[i] = DeadLetterReason.INVALID, problem
        return
    at = codec.millis(fields["occurred_at"])
    if at < now - _TOO_LATE_MS:
        taken.dead[i] = DeadLetterReason.TOO_LATE, f"occurred_at lies more than {DAYS} days before {now}"
        return
    if at > now + _TOO_EARLY_MS:
        taken.dead[i] = (
            DeadLetterReason.TOO_EARLY,
            f"occurred_at lies more than 5 minutes after {now}; check the clock",
        )
        return
    taken.at[i] = at
    taken.event_ids[i] = fields["event_id"]
    if topic == topics.PURCHASES.name:
        taken.kind[i], taken.amount[i] = PURCHASE, fields["amount"]
    elif topic == topics.CLICKS.name:
        taken.kind[i] = KINDS.index(fields["kind"])
        of_mail = fields["dispatch_id"] is not None
        taken.doubt[i] = human.doubt(fields["kind"], fields["agent"], fields["network"], of_mail)
    else:
        taken.fields[i] = fields


def _invalid(topic: str, fields: Mapping[str, Any]) -> str | None:
    """What is wrong with a record that decoded; None if nothing."""
    if not 1 <= len(fields["recipient_id"].encode()) <= 128:
        return "recipient_id must have 1 to 128 bytes"
    if fields["event_id"] is not None and not 1 <= len(fields["event_id"]) <= 64:
        return "event_id must have 1 to 64 characters, or be null"
    if topic == topics.PURCHASES.name and fields["amount"] < 0:
        return "amount must not be negative; a refund is no purchase"
    if topic != topics.ATTRIBUTES.name:
        return None
    if fields["zone"] is not None and fields["zone"] not in zones.NAMES:
        return f"zone {fields['zone']!r} is no IANA time zone; write for example America/New_York"
    for name, limit in _TEXT_LIMITS.items():
        if fields[name] is not None and len(fields[name].encode()) > limit:
            return f"{name} must have at most {limit} bytes"
    return None


def rekey(taken: Taken, cut: Cut, unknown: Sequence[int], partitions: int) -> tuple[list[int], list[Out]]:
    """Send records of unknown recipients that stand on a wrong partition to the right one, once.

    A key's row is only ever made where the key belongs, so a known row needs no check. A record that comes
    wrong a second time becomes a dead letter. Returns the positions sent on, and what to produce.
    """
    right: dict[bytes, int] = {}
    moved: list[int] = []
    outputs: list[Out] = []
    for position in unknown:
        key = taken.recipient[position]
        to = right.setdefault(key, partition_of(key, partitions))
        if to == cut.partition:
            continue
        record, topic = taken.records[position], topics.SOURCES[taken.topic[position]].name
        if any(name == REKEYED for name, _ in record.headers):
            taken.dead[position] = (
                DeadLetterReason.MISROUTED_TWICE,
                f"belongs to partition {to} of {partitions}; has the number changed?",
            )
            continue
        headers = [*origin_headers(topic, cut.partition, record), (REKEYED, b"1")]
        outputs.append(Out(topic, record.key, record.value, to, headers))
        moved.append(position)
    return moved, outputs
