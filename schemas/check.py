"""Whether the schema files keep their promises: complete, explained, and able to read what was released."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import Schema, parse

from schemas.codec import FOLDER, topic_of
from schemas.topics import BY_NAME, TOPICS

RELEASED: Final = Path(__file__).parent / "released"


def check(folder: Path = FOLDER, released: Path = RELEASED) -> list[str]:
    """Check a folder of schema files with its `ids.toml` against the released ones.

    Every Avro topic has a schema with an id and every file belongs to one; every field has a doc; a file
    is as it was released under its id (docs may be mended); and the current schema of each topic reads
    every released one.

    Returns
    -------
    One sentence for each problem, with its remedy; empty if there is none.
    """
    with (folder / "ids.toml").open("rb") as file:
        ids = {int(number): str(stem) for number, stem in tomllib.load(file)["ids"].items()}
    found = [*_ids(folder, ids)]
    files = _read(folder, found)
    old = _read(released, found)
    for stem, text in files.items():
        found += _docs(stem, text)
    found += _unchanged(ids, files, old)
    found += _readable(ids, files, old)
    return found


def versioned(stem: str) -> str:
    """Name under which a schema file is released: `behaviour.clicks` is `behaviour.clicks.v1`."""
    return stem if topic_of(stem) != stem else f"{stem}.v1"


def _ids(folder: Path, ids: Mapping[int, str]) -> Iterator[str]:
    """Topics, ids and files belong together."""
    stems = {path.stem for path in folder.glob("*.avsc")}
    for known in TOPICS:
        if known.avro and known.name not in map(topic_of, ids.values()):
            yield f"{known.name} has no schema id; add its schema to ids.toml"
    for stem in sorted(stems - set(ids.values())):
        yield f"{stem}.avsc has no id; add it at the end of ids.toml"
    for number, stem in ids.items():
        if stem not in stems:
            yield f"id {number} names {stem}.avsc, which is missing; an id stays for ever, restore the file"
        topic = topic_of(stem)
        if topic not in BY_NAME or not BY_NAME[topic].avro:
            yield f"id {number} is of {topic}, which is no topic with a schema; name one of schemas/topics.py"
    for stem in sorted(set(ids.values())):
        numbers = [number for number, name in ids.items() if name == stem]
        if len(numbers) > 1:
            yield f"{stem} has ids {', '.join(map(str, numbers))}; a file has one id"
    for topic in sorted({*map(topic_of, ids.values())}):
        order = [_version(stem) for _, stem in sorted(ids.items()) if topic_of(stem) == topic]
        if order != sorted(order):
            yield f"{topic}: a later version has a lower id, but the highest is written; give it a new one"


def _version(stem: str) -> int:
    return int(versioned(stem).rpartition(".v")[2])


def _read(folder: Path, found: list[str]) -> dict[str, dict[str, Any]]:
    """Contents of a folder's schemas by stem; those that are no schemas are problems."""
    files = {}
    for path in sorted(folder.glob("*.avsc")):
        try:
            parse(path.read_text())
            files[path.stem] = json.loads(path.read_text())
        except (AvroException, ValueError) as error:
            found.append(f"{path.parent.name}/{path.name} is no Avro schema: {error}")
    return files


def _docs(stem: str, node: Any, where: str = "") -> Iterator[str]:
    """Fields without a doc, at any depth."""
    if isinstance(node, list):
        for branch in node:
            yield from _docs(stem, branch, where)
    elif isinstance(node, dict):
        for field in node.get("fields", ()):
            name = f"{where}{field['name']}"
            if not str(field.get("doc", "")).strip():
                yield f"{stem}.avsc: field {name} has no doc; say what it means, and its unit"
            yield from _docs(stem, field["type"], f"{name}.")
        for inner in ("type", "items", "values"):
            if isinstance(node.get(inner), dict | list):
                yield from _docs(stem, node[inner], where)


def _without_docs(node: Any) -> Any:
    """Return a schema as far as bytes and readers care."""
    if isinstance(node, list):
        return [_without_docs(branch) for branch in node]
    if isinstance(node, dict):
        # A field named doc is a value of "name", so the key is never anything but an explanation.
        return {key: _without_docs(value) for key, value in node.items() if key != "doc"}
    return node


def _unchanged(
    ids: Mapping[int, str], files: Mapping[str, dict[str, Any]], old: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    """Check that what was released stands as it was, under its id."""
    by_release = {versioned(stem): (number, stem) for number, stem in ids.items()}
    for name, schema in old.items():
        if name not in by_release:
            yield f"released/{name}.avsc has no id any more; records of it may exist, restore its id and file"
            continue
        number, stem = by_release[name]
        if stem in files and _without_docs(files[stem]) != _without_docs(schema):
            new = f"{topic_of(stem)}.v{_version(stem) + 1}"
            yield (
                f"{stem}.avsc differs from what was released under id {number}; restore it, put the change "
                f"into {new}.avsc, and add a new id for {new} at the end of ids.toml"
            )


def _readable(
    ids: Mapping[int, str], files: Mapping[str, dict[str, Any]], old: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    """Check that the current schema of a topic reads every released one."""
    for topic in sorted({*map(topic_of, ids.values())}):
        _, current = max((number, stem) for number, stem in ids.items() if topic_of(stem) == topic)
        if current not in files:
            continue
        reader = _parsed(files[current])
        for name, schema in old.items():
            if topic_of(name) != topic:
                continue
            checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # avro's __init__
            result = checker.get_compatibility(reader, _parsed(schema))
            if result.compatibility is not SchemaCompatibilityType.compatible:
                why = "; ".join(sorted(result.messages))
                where = ", ".join(sorted(result.locations))
                yield (
                    f"{current}.avsc cannot read what {name} wrote: {why} (at {where}); a new field needs a "
                    "default, and none may lose its type, its symbols or its branches"
                )


def _parsed(schema: dict[str, Any]) -> Schema:
    return parse(json.dumps(schema))
