"""Section 1 of docs/decisions.md, as far as the row is not needed: from bytes to an event, or to its fate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import xxhash
from aiokafka.partitioner import murmur2

from schemas import codec, ids
from schemas.profile import DAY_MS, DAYS, HOUR_MS, MINUTE_MS
from schemas.reasons import DeadLetterReason
from schemas.topics import ATTRIBUTES, MAX_RECORD_BYTES, PURCHASES
from tests.reference.cuts import Cause, RefRecord, milliseconds

TOO_LATE_MS = DAYS * DAY_MS
TOO_EARLY_MS = 5 * MINUTE_MS
LATE_MS = HOUR_MS
_BYTES_AT_MOST = {"locale": 8, "place": 8, "provider": 12}


@dataclass(frozen=True)
class Event:
    """A record that got past the re-keyed step."""

    record: RefRecord
    body: dict[str, Any]
    occurred_at: int
    event_id: str
    hash: int | None  # None: nothing to recognise a duplicate by

    @property
    def recipient_id(self) -> str:
        return str(self.body["recipient_id"])

    @property
    def cause(self) -> Cause:
        record = self.record
        return Cause(
            self.event_id,
            {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "event_id": self.event_id,
                "due_at": None,
            },
        )


def dead_letter_reason(record: RefRecord, now: int) -> DeadLetterReason | None:
    """The dead-letter rows of the table up to `too_early`, in order."""
    if record.value is not None and len(record.value) > MAX_RECORD_BYTES:
        return DeadLetterReason.OVERSIZED
    if record.value is None:
        return DeadLetterReason.MALFORMED
    try:
        body = codec.decode(record.topic, record.value)
    except codec.UnknownSchema:
        return DeadLetterReason.UNKNOWN_SCHEMA
    except codec.MalformedRecord:
        return DeadLetterReason.MALFORMED
    if record.key is None or record.key != body["recipient_id"].encode():
        return DeadLetterReason.KEY_MISMATCH
    if is_invalid(record.topic, body):
        return DeadLetterReason.INVALID
    occurred_at = milliseconds(body["occurred_at"])
    if occurred_at < now - TOO_LATE_MS:
        return DeadLetterReason.TOO_LATE
    if occurred_at > now + TOO_EARLY_MS:
        return DeadLetterReason.TOO_EARLY
    return None


def is_invalid(topic: str, body: dict[str, Any]) -> bool:
    """The `invalid` row of the table."""
    if not 1 <= len(body["recipient_id"].encode()) <= 128:
        return True
    if body["event_id"] is not None and not 1 <= len(body["event_id"]) <= 64:
        return True
    if topic == PURCHASES.name and body["amount"] < 0:
        return True
    if topic == ATTRIBUTES.name:
        if body["zone"] is not None and body["zone"] not in _zones():
            return True
        for name, limit in _BYTES_AT_MOST.items():
            if body[name] is not None and len(body[name].encode()) > limit:
                return True
    return False


@cache
def _zones() -> set[str]:
    return set((files("tzdata") / "zones").read_text().split())


def is_elsewhere(record: RefRecord, partitions: int) -> bool:
    """Whether the key belongs to another partition than the record's."""
    if record.key is None:
        raise ValueError("a record without a key is a dead letter before this is asked")
    home: int = (murmur2(record.key) & 0x7FFFFFFF) % partitions
    return home != record.partition


def origin(record: RefRecord) -> tuple[str, int, int] | None:
    """Where a re-keyed or re-driven record stood at first; None if its headers do not say so in full."""
    try:
        return (
            record.headers["origin-topic"].decode(),
            int(record.headers["origin-partition"]),
            int(record.headers["origin-offset"]),
        )
    except (KeyError, ValueError):
        return None


def read(record: RefRecord) -> Event:
    """The event of a record that is no dead letter."""
    if record.value is None:
        raise ValueError("a record without a value is a dead letter before this is asked")
    body = codec.decode(record.topic, record.value)
    came_from = origin(record)
    derived = ids.event_id(*(came_from or (record.topic, record.partition, record.offset)))
    event_id = derived if body["event_id"] is None else body["event_id"]
    recognisable = body["event_id"] is not None or came_from is not None
    return Event(
        record=record,
        body=body,
        occurred_at=milliseconds(body["occurred_at"]),
        event_id=event_id,
        hash=event_hash(event_id) if recognisable else None,
    )


def event_hash(event_id: str) -> int:
    """`xxh3_64` of the id; 0 becomes 1."""
    return xxhash.xxh3_64_intdigest(event_id.encode()) or 1
