"""The pipeline held to the reference: rows and decisions recomputed from the topics and the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from confluent_kafka import Consumer

from schemas import codec, topics
from schemas.policy import Policy
from schemas.profile import ROW
from streams.engine.kafka import Client, Record, read_all
from tests.reference.cuts import RefRecord
from tests.reference.recompute import recompute

_UNCOMPARED = {"gates", "segments", "features", "policy"}  # figures for people; the rules say nothing of them


def differences(client: Client, policy: Policy, partitions: int) -> list[str]:
    """Everything in which the pipeline and the reference differ, readable; empty if nothing."""
    # Spawned: librdkafka does not survive a fork.
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        work = [pool.submit(_of_partition, client, policy, partitions, p) for p in range(partitions)]
        found = [each.result() for each in work]
    out = [line for lines, _, _ in found for line in lines]
    expected_commands = [command for _, commands, _ in found for command in commands]
    expected_recalls = [recall for _, _, recalls in found for recall in recalls]
    out += _sets("command", decoded(client, topics.COMMANDS.name, partitions), expected_commands)
    out += _sets("recall", decoded(client, topics.RECALLS.name, partitions), expected_recalls)
    return out


def _of_partition(
    client: Client, policy: Policy, partitions: int, partition: int
) -> tuple[list[str], list[dict[str, Any]], list[dict[str, Any]]]:
    """Differences of one partition, and the commands and recalls that the reference gives for it."""
    consumer = client.reader()
    control = [
        codec.decode(topics.CONTROL.name, record.value or b"") | {"offset": record.offset}
        for record in read_all(consumer, topics.CONTROL.name, 0)
    ]
    sources = {
        topic.name: [_reference(topic.name, partition, r) for r in read_all(consumer, topic.name, partition)]
        for topic in topics.SOURCES
    }
    journal = [
        codec.decode(topics.JOURNAL.name, record.value or b"")
        for record in read_all(consumer, topics.JOURNAL.name, partition)
    ]
    reference, results = recompute(policy, partition, partitions, sources, journal, control)
    out = [*_fates(partition, journal, [result.fates for result in results])]
    expected_rows = reference.rows(partition)
    out += _rows(partition, rows(client, partition), expected_rows)
    if journal and journal[-1]["rows"] != len(expected_rows):
        out.append(f"journal {partition} counts {journal[-1]['rows']} rows, expected {len(expected_rows)}")
    expected = [
        (entry["number"], who, body)
        for entry, result in zip(journal, results, strict=True)
        for who, body in result.audit
    ]
    out += _audit(partition, consumer, expected)
    consumer.close()
    commands = [command for result in results for command in result.commands]
    return out, commands, [recall for result in results for recall in result.recalls]


def rows(client: Client, partition: int) -> dict[str, bytes]:
    """Rows of a partition as its changelog has them."""
    consumer = client.reader()
    found: dict[str, bytes] = {}
    for record in read_all(consumer, topics.PROFILES.name, partition):
        name = (record.key or b"").decode()
        if record.value is None:
            found.pop(name, None)
        else:
            found[name] = record.value
    consumer.close()
    return found


def decoded(client: Client, topic: str, partitions: int) -> list[dict[str, Any]]:
    """All committed records of a topic."""
    consumer = client.reader()
    try:
        return list(_by(partitions, consumer, topic))
    finally:
        consumer.close()


def _by(partitions: int, consumer: Consumer, topic: str) -> list[dict[str, Any]]:
    return [
        plain(codec.decode(topic, record.value or b""))
        for partition in range(partitions)
        for record in read_all(consumer, topic, partition)
    ]


def plain(value: Any) -> Any:
    """Decoded Avro with timestamps as milliseconds."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return codec.millis(value) if hasattr(value, "tzinfo") else value


def _reference(topic: str, partition: int, record: Record) -> RefRecord:
    return RefRecord(
        topic, partition, record.offset, record.key, record.value, dict(record.headers), record.timestamp
    )


def _fates(
    partition: int, journal: list[dict[str, Any]], expected: list[dict[str, dict[str, int]]]
) -> Iterator[str]:
    for entry, fates in zip(journal, expected, strict=True):
        for tally in entry["topics"]:
            found = {name: tally[name] for name in fates[tally["topic"]]}
            if found != fates[tally["topic"]]:
                wanted = fates[tally["topic"]]
                yield f"cut {partition}/{entry['number']} {tally['topic']}: {found}, expected {wanted}"


def _rows(partition: int, found: dict[str, bytes], expected: dict[str, bytes]) -> Iterator[str]:
    for name in sorted(found.keys() | expected.keys()):
        if name not in found or name not in expected:
            yield f"row {partition}/{name} is only in the {'changelog' if name in found else 'reference'}"
        elif found[name] != expected[name]:
            yield f"row {partition}/{name} differs in {_fields(found[name], expected[name])}"


def _fields(found: bytes, expected: bytes) -> str:
    a, b = (np.frombuffer(value, ROW)[0] for value in (found, expected))
    return ", ".join(
        f"{name}: {a[name]} not {b[name]}"
        for name in ROW.names or ()
        if a[name].tobytes() != b[name].tobytes()
    )


def _audit(partition: int, consumer: Consumer, expected: list[tuple[int, str, dict[str, Any]]]) -> list[str]:
    found = []
    for record in read_all(consumer, topics.AUDIT.name, partition):
        audit = plain(codec.decode(topics.AUDIT.name, record.value or b""))
        if audit["line"] == "decide":
            found.append((audit["cut"], audit["recipient_id"], _comparable(audit["body"])))
    wanted = [(cut, who, _comparable(body)) for cut, who, body in expected]
    return _sets(f"audit {partition}", found, wanted)


def _comparable(body: dict[str, Any]) -> dict[str, Any]:
    return {
        key: str(v) if key == "reason" and v is not None else v
        for key, v in body.items()
        if key not in _UNCOMPARED | {"kind"}
    }


def _sets(what: str, found: list[Any], expected: list[Any]) -> list[str]:
    """Differences of two collections as multisets; a repeated record is a difference too."""
    left, right = sorted(map(repr, map(_ordered, found))), sorted(map(repr, map(_ordered, expected)))
    if left == right:
        return []
    a, b = Counter(left), Counter(right)
    return [f"{what}: unexpected {text}" for text in (a - b).elements()] + [
        f"{what}: missing {text}" for text in (b - a).elements()
    ]


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return tuple(map(_ordered, value)) if isinstance(value, tuple) else value
