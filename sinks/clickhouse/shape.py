"""How a record lies in columns: the same rule there and back, read off its Avro schema.

A plain field is a column of its name; a field that is a record gives a column for each of its own
(`cause_topic`); an array of records gives one array for each (`gates.name`), as ClickHouse's Nested does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal
from uuid import UUID

from schemas import codec, topics

# `partition` and `offset` are those of the record on Kafka, in every table alike.
_RENAMED: Final = {"partition": "cut_partition", "number": "cut", "now": "at"}
# Bodies of audit.records' union, by the names that Avro gives them, and the table of each.
BODIES: Final = {
    "opportune.Decision": "decision",
    "opportune.Release": "release",
    "opportune.Closure": "closure",
    "opportune.Delivery": "delivery",
    "opportune.ConsentRecord": "consent",
    "opportune.SegmentTransition": "segment_transition",
}


@dataclass(frozen=True)
class Leaf:
    """One column: from which field it comes, and for a nested one from which field of that."""

    column: str
    kind: Literal["plain", "record", "array"]
    field: str
    inner: str = ""


@dataclass(frozen=True)
class Shape:
    """The columns of a record."""

    leaves: tuple[Leaf, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(leaf.column for leaf in self.leaves)

    def columns(self, records: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """Decoded records as columns. Raises LookupError or TypeError if one is not of this shape."""
        return [_column(leaf, records) for leaf in self.leaves]

    def record(self, values: Sequence[Any]) -> dict[str, Any]:
        """Put one record together from a row: ids as text again."""
        record: dict[str, Any] = {}
        arrays: dict[str, dict[str, list[Any]]] = {}
        for leaf, value in zip(self.leaves, values, strict=True):
            if leaf.kind == "plain":
                record[leaf.field] = str(value) if isinstance(value, UUID) else value
            elif leaf.kind == "record":
                record.setdefault(leaf.field, {})[leaf.inner] = value
            else:
                arrays.setdefault(leaf.field, {})[leaf.inner] = value
        for field, inner in arrays.items():
            items = zip(*inner.values(), strict=True)
            record[field] = [dict(zip(inner, item, strict=True)) for item in items]
        return record


def _column(leaf: Leaf, records: Sequence[Mapping[str, Any]]) -> list[Any]:
    field, inner = leaf.field, leaf.inner
    if leaf.kind == "plain":
        return [record[field] for record in records]
    if leaf.kind == "record":
        return [record[field][inner] for record in records]
    return [[item[inner] for item in record[field]] for record in records]


@cache
def envelope() -> Shape:
    """Columns that all audit records have."""
    return _shape([field for field in _schema(topics.AUDIT.name)["fields"] if field["name"] != "body"], {})


@cache
def body(name: str) -> Shape:
    """Columns of one body of audit.records, by its name in `BODIES`."""
    union = _schema(topics.AUDIT.name)["fields"][-1]["type"]
    named: dict[str, Any] = {}
    shapes = {f"opportune.{each['name']}": _shape(each["fields"], named) for each in union}
    return shapes[name]


def table_of(fields: Mapping[str, Any]) -> str:
    """Table of a decoded body, known by its fields, which no other has alike. Raises LookupError if none."""
    return _tables()[frozenset(fields)]


@cache
def _tables() -> dict[frozenset[str], str]:
    return {frozenset(leaf.field for leaf in body(name).leaves): table for name, table in BODIES.items()}


@cache
def journal(topic: str) -> Shape:
    """Columns of a journal's entry."""
    return _shape(_schema(topic)["fields"], {})


def _schema(topic: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(codec.schema_json(codec.current_id(topic)))
    return schema


def _shape(fields: Sequence[Mapping[str, Any]], named: dict[str, Any]) -> Shape:
    """Walk the fields; `named` collects records, since Avro writes one out only where it first stands."""
    leaves: list[Leaf] = []
    for field in fields:
        name, kind = field["name"], field["type"]
        items = kind["items"] if isinstance(kind, dict) and kind["type"] == "array" else None
        record = _record(kind if items is None else items, named)
        if record is None:
            leaves.append(Leaf(_RENAMED.get(name, name), "plain", name))
        elif items is None:
            leaves += (Leaf(f"{name}_{i['name']}", "record", name, i["name"]) for i in record["fields"])
        else:
            leaves += (Leaf(f"{name}.{i['name']}", "array", name, i["name"]) for i in record["fields"])
    return Shape(tuple(leaves))


def _record(kind: Any, named: dict[str, Any]) -> Any:
    if isinstance(kind, dict) and kind["type"] == "record":
        named[kind["name"]] = kind
        return kind
    return named.get(kind) if isinstance(kind, str) else None
