"""Avro bodies of one schema decoded as columns: one in-memory container block, read by polars."""

import io
import json
from collections.abc import Sequence
from functools import cache
from typing import Final

import polars as pl

from schemas import codec
from schemas.binary import long, sized

_SYNC: Final = b"opportune-block!"
_SENTINEL: Final = "\x00sentinel"


class ColumnsRefused(ValueError):
    """The block did not decode as a whole, or a guard failed. Decode record by record instead."""


@cache
def _container_header(number: int) -> bytes:
    """Header of an Avro container file with the schema of this id and no compression."""
    schema = json.loads(codec.schema_json(number))
    for field in schema["fields"]:
        field.pop("default", None)  # polars refuses some, and reading what was written needs none
    meta = {b"avro.schema": json.dumps(schema).encode(), b"avro.codec": b"null"}
    entries = b"".join(sized(key) + sized(value) for key, value in meta.items())
    return b"Obj\x01" + long(len(meta)) + entries + b"\x00" + _SYNC


@cache
def _sentinel(number: int) -> bytes:
    """A valid record that no producer writes; decoded last, it proves that the block was consumed whole."""
    fields = json.loads(codec.schema_json(number))["fields"]
    record = {}
    for field in fields:
        kind = field["type"]
        name = kind.get("type") if isinstance(kind, dict) else kind
        if isinstance(kind, list):
            continue
        if name == "enum":
            record[field["name"]] = kind["symbols"][0]
        elif name in ("long", "int"):
            record[field["name"]] = 0
        elif name == "boolean":
            record[field["name"]] = False
        else:
            record[field["name"]] = _SENTINEL
    return codec.body(number, record)


def decode(number: int, values: Sequence[bytes], keys: Sequence[bytes]) -> pl.DataFrame:
    """Records that were all written with the schema of this id, as a frame with one row a record.

    Parameters
    ----------
    values
        n wire-format records whose headers were checked.
    keys
        n Kafka keys; each must equal its record's `recipient_id`, the first field.

    Raises
    ------
    ColumnsRefused
        Polars could not read the block, the row count differs, the sentinel behind the last record was
        not found where it must stand, or a key differs. Some record is bad; only decoding one by one
        tells which.
    """
    lengths = {length: long(length) for length in set(map(len, keys))}
    # Or a record that is cut short could be mended by what stands before the next.
    if not all(
        [
            value.startswith(lengths[len(key)] + key, codec.HEADER_BYTES)
            for value, key in zip(values, keys, strict=True)
        ]
    ):
        raise ColumnsRefused("a record does not begin with its key")
    bodies = [value[codec.HEADER_BYTES :] for value in values]
    bodies.append(_sentinel(number))
    block = b"".join(bodies)
    container = b"".join((_container_header(number), long(len(bodies)), sized(block), _SYNC))
    try:
        frame = pl.read_avro(io.BytesIO(container))
    except BaseException as error:  # a panic of the reader on bad bytes is not an Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise ColumnsRefused(f"{type(error).__name__}: {error}") from error
    if frame.height != len(bodies):
        raise ColumnsRefused(f"{frame.height} rows out of {len(bodies)} records")
    found = frame.get_column("recipient_id")
    if found[-1] != _SENTINEL:
        raise ColumnsRefused("the block was not consumed whole")
    if not (found.head(len(keys)).cast(pl.Binary) == pl.Series(keys, dtype=pl.Binary)).all():
        raise ColumnsRefused("a recipient_id differs from its key")
    return frame.head(len(values))
