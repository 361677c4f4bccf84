"""The Confluent wire header and Avro bodies, record by record. Columns are in `schemas.columns`."""

import io
import json
import re
import struct
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import fastavro
from fastavro.types import Schema

FOLDER: Final = Path(__file__).parent / "avro"
HEADER_BYTES: Final = 5
_HEADER: Final = struct.Struct(">bI")
_OBJECT: Final = re.compile(r"( from)? <[^>]*>")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class MalformedRecord(ValueError):
    """The bytes are not what their schema says. Dead-letter; the producer must be mended."""


class UnknownSchema(ValueError):
    """The header names a schema id that `schemas/avro/ids.toml` lacks. Dead-letter; deploy it, re-drive."""


@cache
def ids() -> Mapping[int, str]:
    """Schema id to the stem of its `.avsc` file."""
    with (FOLDER / "ids.toml").open("rb") as file:
        return {int(number): stem for number, stem in tomllib.load(file)["ids"].items()}


@cache
def current_id(topic: str) -> int:
    """Id that is written to `topic` today: the last whose file belongs to it."""
    return ids_of(topic)[-1]


@cache
def ids_of(topic: str) -> tuple[int, ...]:
    """Every id that was ever written to `topic`, the oldest first."""
    return tuple(sorted(number for number, stem in ids().items() if topic_of(stem) == topic))


def topic_of(stem: str) -> str:
    """Topic of a schema file: `behaviour.clicks.v2` belongs to `behaviour.clicks`."""
    head, _, tail = stem.rpartition(".v")
    return head if tail.isdigit() else stem


@cache
def schema_json(number: int) -> str:
    """Text of the schema with this id. Raises `UnknownSchema`."""
    if number not in ids():
        raise UnknownSchema(f"schema id {number} is not in schemas/avro/ids.toml")
    return (FOLDER / f"{ids()[number]}.avsc").read_text()


@cache
def parsed(number: int) -> Schema:
    """The schema with this id, as fastavro wants it. Raises `UnknownSchema`."""
    return fastavro.parse_schema(json.loads(schema_json(number)))


@cache
def header(number: int) -> bytes:
    """Magic zero and the schema id, big-endian."""
    return _HEADER.pack(0, number)


def encode(topic: str, record: Mapping[str, Any]) -> bytes:
    """One record of `topic` with its wire header. Raises ValueError or TypeError if it does not fit."""
    number = current_id(topic)
    return header(number) + body(number, record)


def body(number: int, record: Mapping[str, Any]) -> bytes:
    """One record by the schema of this id, without header. Raises as `encode`."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed(number), record)
    return out.getvalue()


def decode(topic: str, value: bytes) -> dict[str, Any]:
    """One record, read as today's schema of `topic`.

    Raises
    ------
    MalformedRecord
        No header, a schema of another topic, or bytes that do not match or are left over.
    UnknownSchema
        An id that this version does not know.
    """
    if len(value) < HEADER_BYTES or value[0] != 0:
        raise MalformedRecord("no Confluent header: the first byte must be 0, then 4 bytes of schema id")
    number = _HEADER.unpack_from(value)[1]
    writer = parsed(number)
    if topic_of(ids()[number]) != topic:
        raise MalformedRecord(f"schema id {number} belongs to {topic_of(ids()[number])}, not to {topic}")
    bytes_of = io.BytesIO(value)
    bytes_of.seek(HEADER_BYTES)
    try:
        # fastavro leaves out-of-range enum indexes, bad UTF-8 and short reads to different exceptions.
        today = None if number == current_id(topic) else parsed(current_id(topic))
        record = fastavro.schemaless_reader(bytes_of, writer, today)
    except Exception as error:
        # An object's address in the text would make a cut that is handled again differ.
        raise MalformedRecord(f"{type(error).__name__}: {_OBJECT.sub('', str(error))}") from error
    if bytes_of.tell() != len(value):
        raise MalformedRecord(f"{len(value) - bytes_of.tell()} bytes are left over after the record")
    if not isinstance(record, dict):
        raise MalformedRecord("the schema is not a record")
    return record


def millis(moment: datetime) -> int:
    """UTC milliseconds of a timestamp field."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)
