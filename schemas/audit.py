"""Audit records in wire format, put together from pieces.

A cut writes hundreds of them, most of them transitions, and what they share is most of their bytes: encoded
once, a transition takes 2 us instead of the 9 that fastavro needs for its unions.
"""

import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

import fastavro
from fastavro.types import Schema

from schemas import codec, topics
from schemas.binary import long, sized

TRANSITION: Final = "opportune.SegmentTransition"
DECISION: Final = "opportune.Decision"
RELEASE: Final = "opportune.Release"
_NULL: Final = b"\x00"
_PRESENT: Final = b"\x02"
_BODY: Final = "body"
_NAMESPACE: Final = "opportune"


class Gate(NamedTuple):
    """One check of a decision or a release; `needed` is what would have let the message pass."""

    name: str
    passed: bool
    detail: str
    needed: str


Body = tuple[str, Mapping[str, Any]]  # name of the record in the union `body`, and the record


class AuditWriter:
    """Encodes audit records of one cut; `about` holds the fields that these share.

    Those are the fields of an audit record but for `recipient_id`, its first, and `body`, its last.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        self._header = codec.header(_id())
        self._about = _written(_shared(), about)

    def encode(self, recipient_id: bytes, body: Body) -> bytes:
        """One record, as `codec.encode` would.

        A cause is a record, with all but `due_at`, or a due time alone; gates are `Gate`. Raises ValueError,
        TypeError, KeyError, AttributeError or struct.error if something does not fit.
        """
        kind, record = body
        branch, schema = _branches()[kind]
        write = _IN_PIECES.get(kind)
        written = _written(schema, record) if write is None else write(record)
        return b"".join((self._header, sized(recipient_id), self._about, branch, written))


def _transition(record: Mapping[str, Any]) -> bytes:
    head, tail = _segment(record["segment"], record["entered"], record["definition"])
    return head + _cause(record["cause"]) + tail


def _cause(cause: Mapping[str, Any]) -> bytes:
    if cause["due_at"] is not None:
        return b"".join((_NULL * 4, _PRESENT, long(cause["due_at"])))
    place = _place(cause["topic"], cause["partition"])
    return b"".join((place, long(cause["offset"]), _PRESENT, sized(cause["event_id"].encode()), _NULL))


def _decision(record: Mapping[str, Any]) -> bytes:
    features: Mapping[str, float] = record["features"]
    return b"".join(
        (
            sized(record["decision_id"].encode()),
            _name(record["campaign"]),
            long(record["campaign_version"]),
            _outcome(DECISION, record["outcome"]),
            _name(record["reason"]),
            _cause(record["cause"]),
            _name(record["purpose"]),
            _block(list(map(_name, record["segments"]))),
            _block([_name(name) + _double(value) for name, value in features.items()]),
            _block(list(map(_gate, record["gates"]))),
            _or_null(long, record["due_at"]),
            _or_null(long, record["expires_at"]),
            _or_null(_name, record["tier"]),
            _or_null(_double, record["score"]),
            _or_null(long, record["runner_up_at"]),
            _or_null(_double, record["runner_up_score"]),
            _or_null(_double, record["propensity"]),
            _name(record["policy"]),
            _name(record["arm"]),
            _or_null(_double, record["worth"]),
            _or_null(_name, record["outranked_by"]),
            _or_null(long, record["best_at"]),
            _or_null(_double, record["regret"]),
            _or_null(long, record["would_be_due_at"]),
            _or_null(_name, record["model"]),
            bytes([record["canary"]]),
            _or_null(_double, record["active_hours"]),
            _or_null(long, record["hours_left"]),
            _or_null(long, record["hours_mask"]),
            _or_null(long, record["first_at"]),
            _or_null(long, record["likeliest_at"]),
            _block([_name(name) + _double(value) for name, value in record["terms"].items()]),
            _or_null(_name, record["shadow_model"]),
            _or_null(long, record["shadow_at"]),
            _or_null(_double, record["shadow_score"]),
            _or_null(_double, record["shadow_propensity"]),
        )
    )


def _release(record: Mapping[str, Any]) -> bytes:
    return b"".join(
        (
            sized(record["decision_id"].encode()),
            sized(record["dispatch_id"].encode()),
            _name(record["campaign"]),
            _outcome(RELEASE, record["outcome"]),
            _name(record["reason"]),
            long(record["due_at"]),
            _or_null(_name, record["lane"]),
            bytes([record["history"]]),
            _block(list(map(_gate, record["gates"]))),
        )
    )


_IN_PIECES: Final[Mapping[str, Callable[[Mapping[str, Any]], bytes]]] = {
    TRANSITION: _transition,
    DECISION: _decision,
    RELEASE: _release,
}
_double: Final = struct.Struct("<d").pack


def _or_null(write: Callable[[Any], bytes], value: Any) -> bytes:
    return _NULL if value is None else _PRESENT + write(value)


def _block(items: Sequence[bytes]) -> bytes:
    """An array or a map: one block of items, and the end."""
    return b"".join((long(len(items)), *items, _NULL)) if items else _NULL


@cache
def _outcome(kind: str, outcome: str) -> bytes:
    """The number of an outcome among those of its kind of record."""
    schema: Any = _branches()[kind][1]
    [field] = (field for field in schema["fields"] if field["name"] == "outcome")
    return long(field["type"]["symbols"].index(outcome))


@lru_cache(8192)
def _gate(gate: Gate) -> bytes:
    name, passed, detail, needed = gate
    return b"".join((_name(name), bytes([passed]), sized(detail.encode()), sized(needed.encode())))


@lru_cache(4096)
def _name(text: str) -> bytes:
    """A string of which there are few: of campaigns, features, reasons."""
    return sized(text.encode())


@cache
def _segment(segment: str, entered: bool, definition: str) -> tuple[bytes, bytes]:
    """What stands before and behind a transition's cause."""
    return sized(segment.encode()) + bytes([entered]), sized(definition.encode())


@cache
def _place(topic: str, partition: int) -> bytes:
    """What stands before a record's offset in a cause."""
    return _PRESENT + sized(topic.encode()) + _PRESENT + long(partition) + _PRESENT


def _written(schema: Schema, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


@cache
def _id() -> int:
    return codec.current_id(topics.AUDIT.name)


@cache
def _fields() -> list[Any]:
    parsed: Any = codec.parsed(_id())
    fields: list[Any] = parsed["fields"]
    return fields


@cache
def _shared() -> Schema:
    fields = [field for field in _fields()[1:] if field["name"] != _BODY]
    return fastavro.parse_schema({"type": "record", "name": "About", "fields": fields})


@cache
def _branches() -> Mapping[str, tuple[bytes, Schema]]:
    """Each record of the union `body` by name: what stands before it, and its schema.

    By itself: fastavro looks for a record's branch for 20 us.
    """
    known: dict[str, Any] = {}
    found: dict[str, tuple[bytes, Schema]] = {}
    for number, record in enumerate(json.loads(codec.schema_json(_id()))["fields"][-1]["type"]):
        schema = fastavro.parse_schema(record | {"namespace": _NAMESPACE}, known)
        found[f"{_NAMESPACE}.{record['name']}"] = long(number), schema
    return found
