"""Audit records in wire format, put together from pieces.

A cut writes hundreds of them, most of them transitions, and what they share is most of their bytes: encoded
once, a transition takes 2 us instead of the 9 that fastavro needs for its unions.
"""

import io
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import fastavro
from fastavro.types import Schema

from schemas import codec, topics
from schemas.binary import long, sized

TRANSITION: Final = "opportune.SegmentTransition"
_NULL: Final = b"\x00"
_PRESENT: Final = b"\x02"
_BODY: Final = "body"
_NAMESPACE: Final = "opportune"

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

        A transition's cause is a record, with all but `due_at`, or a due time alone. Raises ValueError,
        TypeError, KeyError or AttributeError if something does not fit.
        """
        kind, record = body
        branch, schema = _branches()[kind]
        written = _transition(record) if kind == TRANSITION else _written(schema, record)
        return b"".join((self._header, sized(recipient_id), self._about, branch, written))


def _transition(record: Mapping[str, Any]) -> bytes:
    head, tail = _segment(record["segment"], record["entered"], record["definition"])
    cause = record["cause"]
    if cause["due_at"] is not None:
        return b"".join((head, _NULL * 4, _PRESENT, long(cause["due_at"]), tail))
    place = _place(cause["topic"], cause["partition"])
    event_id = sized(cause["event_id"].encode())
    return b"".join((head, place, long(cause["offset"]), _PRESENT, event_id, _NULL, tail))


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
