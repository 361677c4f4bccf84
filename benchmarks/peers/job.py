"""The state suite's job for one event in plain Python; needs nothing but fastavro.

The state is that of `benchmarks.state_handler`: a count, the last moment, six counters by kind, eight by the
part of the day.
"""

import io
import json
import struct
from pathlib import Path
from typing import Any, Final

import fastavro

TOPIC: Final = "behaviour.clicks"
STATE: Final = struct.Struct("<16q")
_HEADER_BYTES: Final = 5
_HOUR_MS: Final = 3_600_000
_KINDS: Final = {"view": 2, "click": 3, "scroll": 4, "search": 5, "cart": 6, "open": 7}
_PARTS: Final = 8


def _schema() -> Any:
    schema = json.loads((Path(__file__).parents[2] / "schemas" / "avro" / f"{TOPIC}.avsc").read_text())
    for field in schema["fields"]:
        if field["name"] == "occurred_at":
            field["type"] = "long"  # the number is what is wanted; a datetime would be made in vain
    return fastavro.parse_schema(schema)


_SCHEMA: Final = _schema()


def updated(state: bytes | None, value: bytes) -> bytes:
    """Return the state, 128 bytes, after one more click in wire format; None is that of a new recipient."""
    body = io.BytesIO(value)
    body.seek(_HEADER_BYTES)
    click: Any = fastavro.schemaless_reader(body, _SCHEMA, None)
    at = click["occurred_at"]
    fields = list(STATE.unpack(state)) if state is not None else [0] * 16
    fields[0] += 1
    fields[1] = max(fields[1], at)
    fields[_KINDS[click["kind"]]] += 1
    fields[_PARTS + at // _HOUR_MS % 24 // 3] += 1
    return STATE.pack(*fields)
