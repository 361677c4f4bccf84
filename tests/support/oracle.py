"""What must hold after every fault: what was written is what topics and journal say, each record once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas import codec, topics
from schemas.dispatch import State
from schemas.policy import Policy
from streams import reading
from streams.dead_letters import Choice, DeadLetters
from streams.engine.kafka import Client, Record, bounds, read_all
from streams.warehouse import Warehouse
from tests.support import mail
from tests.support.pipeline import decoded, differences
from tests.support.record import stored_twice
from tests.support.stack import Stack

FATES = ("no_trigger", "decided", "filtered", "dead_lettered", "rekeyed")


def assert_decided(stack: Stack, rules: Policy, least: int = 50, unrecognised: int = 0) -> None:
    """Hold DECIDE to its oracle, once it is quiet and at least so many decisions were to be made.

    `unrecognised`: how many records were a producer's repeats that came too late to be known as such.
    """
    found = violations(stack, rules, unrecognised)
    assert found == [], "\n".join(found[:20])
    assert len(_decisions(stack)) >= least, "there was something to decide"
    reconciled = stack.run("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr


def violations(stack: Stack, rules: Policy, unrecognised: int = 0) -> list[str]:
    """Everything in which what DECIDE has written is not what it should be, readable; empty if nothing."""
    partitions = stack.settings.partitions
    out = differences(stack.client, rules, partitions)
    out += _decided_again(_decisions(stack), unrecognised)
    consumer = stack.client.reader()
    try:
        letters: Counter[tuple[str, int]] = Counter()
        places: dict[tuple[str, int, int], Record] = {}
        for partition in range(partitions):
            for topic in topics.SOURCES:
                for record in read_all(consumer, topic.name, partition):
                    places[topic.name, partition, record.offset] = record
            offsets = {
                topic.name: [o for name, p, o in places if (name, p) == (topic.name, partition)]
                for topic in topics.SOURCES
            }
            entries = [
                codec.decode(topics.JOURNAL.name, record.value or b"")
                for record in read_all(consumer, topics.JOURNAL.name, partition)
            ]
            out += gaps(partition, entries, offsets)
            for entry in entries:
                for tally in entry["topics"]:
                    letters[tally["topic"], partition] += tally["dead_lettered"]
    finally:
        consumer.close()
    out += _letters(stack.client, +letters, places)
    return out


def _decisions(stack: Stack) -> list[dict[str, Any]]:
    audit = decoded(stack.client, topics.AUDIT.name, stack.settings.partitions)
    return [a["body"] for a in audit if "campaign_version" in a["body"]]


def _decided_again(decisions: list[dict[str, Any]], unrecognised: int) -> Iterator[str]:
    """Decisions made twice for one record, and records that made one again though they are no such repeat."""
    causes: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for decision in decisions:
        cause = decision["cause"]
        causes[decision["decision_id"]].append((cause["topic"], cause["partition"], cause["offset"]))
    for which, places in causes.items():
        if len(set(places)) < len(places):
            yield f"decision {which} is there twice for one record of {places}"
    again = {which: places for which, places in causes.items() if len(set(places)) > 1}
    repeats = {place for places in again.values() for place in sorted(set(places))[1:]}
    if len(repeats) > unrecognised:
        yield f"{len(repeats)} records decided again, {unrecognised} were not to be known as repeats: {again}"


def gaps(partition: int, entries: list[dict[str, Any]], offsets: dict[str, list[int]]) -> Iterator[str]:
    """Cuts that are not in line, and records that are in none, in two, or without a fate."""
    numbers = [entry["number"] for entry in entries]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"partition {partition} has the cuts {numbers}"
    reached = dict.fromkeys(offsets, 0)
    for entry in entries:
        for tally in entry["topics"]:
            name, upto = tally["topic"], tally["next_offset"]
            held = sum(reached[name] <= offset < upto for offset in offsets[name])
            fates = sum(tally[fate] for fate in FATES)
            if not held == tally["consumed"] == fates or upto < reached[name]:
                yield (
                    f"cut {partition}/{entry['number']} {name} {reached[name]} to {upto}: {held} records, "
                    f"{tally['consumed']} consumed, {fates} with a fate"
                )
            reached[name] = upto
    for name, there in offsets.items():
        if left := [offset for offset in there if offset >= reached[name]]:
            yield f"{name}/{partition}: {len(left)} records from {left[0]} on are in no cut"


def _letters(
    client: Client, counts: Counter[tuple[str, int]], places: dict[tuple[str, int, int], Record]
) -> Iterator[str]:
    """Dead letters that the journal does not count, that are twice, or not what stands at their origin."""
    found = list(DeadLetters(client).chosen(Choice()))
    origins = Counter((letter.topic, letter.partition, letter.offset) for letter in found)
    yield from (f"the dead letter of {place} is there {n} times" for place, n in origins.items() if n > 1)
    counted = Counter((topic, partition) for topic, partition, _ in origins)
    if counted != counts:
        yield f"dead letters: {counted}, by the journal {counts}"
    for letter in found:
        stood = places.get((letter.topic, letter.partition, letter.offset))
        if stood is None or (stood.key, stood.value) != (letter.key, letter.value):
            yield f"the dead letter of {letter.topic}/{letter.partition} {letter.offset} is not its bytes"


def uncommitted(client: Client, topic: str, partition: int) -> int:
    """How many records of a partition are of open or aborted transactions."""
    reader = Consumer(
        client.config(group_id="uncommitted", enable_auto_commit=False, isolation_level="read_uncommitted")
    )
    committed = client.reader()
    try:
        _, end = reader.get_watermark_offsets(TopicPartition(topic, partition), 30, cached=False)
        reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        seen: set[int] = set()
        # Read to the records only: a marker at the end is no record, and an empty read has reached it.
        while (not seen or max(seen) + 1 < end) and (some := reader.consume(10_000, 1.0)):
            seen |= {reading.offset_of(message) for message in some if message.error() is None}
        stable = bounds(committed, topic, partition)[1]
        kept = {r.offset for r in read_all(committed, topic, partition)} if stable else set()
        return len(seen - kept)
    finally:
        reader.close()
        committed.close()


def assert_mailed(stack: Stack, dispatches: set[str]) -> None:
    """Every dispatch ended once, and as its mail says."""
    states, mails, ends = mail.states(stack), mail.mails(stack), Counter[str]()
    for outcome in mail.outcomes(stack):
        if outcome["kind"] not in ("deferred", "duplicate"):
            ends[outcome["dispatch_id"]] += 1
    assert set(ends) == dispatches, "each dispatch has an end in the trail"
    assert set(ends.values()) <= {1}, "and only one"
    assert [d for d in dispatches if mails[d] > 1] == [], "no dispatch was mailed twice"
    unsent = [d for d in dispatches if states[d] == State.DELIVERED and not mails[d]]
    assert unsent == [], "what is called delivered has its mail"
    told = (State.DELIVERED, State.UNKNOWN)
    assert [d for d in mails if states[d] not in told] == [], "what has its mail is delivered or unknown"


def assert_recorded(stack: Stack, house: Warehouse) -> None:
    """Every record of the audit trail is in ClickHouse as it is on Kafka, and none is stored twice."""
    written, stored = (
        Counter(json.dumps(record, sort_keys=True, default=str) for record in reader.all())
        for reader in (reading.audit_reader(stack.client), house.audit())
    )
    assert (stored - written, written - stored) == (Counter(), Counter())
    assert stored_twice(house) == 0
