"""Records of the recorded topics decoded for tables: times as integers, bodies with their names."""

import io
import json
from functools import cache
from typing import Any, Final

import fastavro
from fastavro.types import Schema

from schemas import codec
from schemas.codec import HEADER_BYTES, MalformedRecord


def decode(topic: str, value: bytes) -> dict[str, Any]:
    """One record, read as today's schema of `topic`.

    As `codec.decode`, but for what tables have no use for: times are UTC milliseconds, and a record of a
    union is a pair of its name and itself. Raises as `codec.decode`.
    """
    reader = _plain(codec.current_id(topic))
    if value.startswith(codec.header(codec.current_id(topic))):
        body = io.BytesIO(value)
        body.seek(HEADER_BYTES)
        try:
            record = fastavro.schemaless_reader(body, reader, None, return_record_name=True)
        except Exception:
            codec.decode(topic, value)  # it says what is wrong, the same way for every topic
            raise
        if body.tell() == len(value) and isinstance(record, dict):
            return record
    return _former(topic, value, reader)


def _former(topic: str, value: bytes, reader: Schema) -> dict[str, Any]:
    """Read a record of a former schema, or find what is wrong with it."""
    codec.decode(topic, value)
    writer = _plain(int.from_bytes(value[1:HEADER_BYTES]))
    body = io.BytesIO(value[HEADER_BYTES:])
    record = fastavro.schemaless_reader(body, writer, reader, return_record_name=True)
    if not isinstance(record, dict):
        raise MalformedRecord("the schema is not a record")
    return record


@cache
def _plain(number: int) -> Schema:
    return fastavro.parse_schema(_without_logical_types(json.loads(codec.schema_json(number))))


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(each) for each in schema]
    if isinstance(schema, dict):
        return {k: _without_logical_types(v) for k, v in schema.items() if k != _LOGICAL}
    return schema


_LOGICAL: Final = "logicalType"
