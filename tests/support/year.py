"""A year of the grocery decided without Kafka, in cuts at irregular times, and landed in ClickHouse."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from confluent_kafka import Message

from schemas import codec, topics
from schemas.policy import Policy
from schemas.profile import HOUR_MS, MINUTE_MS, ROW
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.insert import insert
from streams.agents.decide import Decider
from streams.engine.batch import Batch
from streams.engine.control import Control
from streams.engine.cut import Cut, Handled
from streams.engine.kafka import Record
from streams.engine.store import SlabStore
from streams.recording import batch as recording
from streams.recording.rows import rows_of
from streams.replay.completejourney import Produced
from tests.support.record import unnamed

_LANDED = 50_000  # records at once


def moments(first: int, last: int, longest: int, seed: int) -> list[int]:
    """Times of cuts, UTC ms: gaps of a minute to `longest`, some at full hours to the millisecond."""
    chance = np.random.default_rng(seed)
    found = [first]
    while found[-1] < last:
        found.append(found[-1] + int(chance.integers(MINUTE_MS, longest)))
        if chance.random() < 0.1:
            found[-1] = found[-1] // HOUR_MS * HOUR_MS + int(chance.integers(-1, 2))
    return sorted({*found})


def cuts(events: Sequence[Produced], nows: Iterable[int]) -> Iterator[Cut]:
    """Events, in order of time, in the cuts of one partition."""
    offsets = {topic.name: 0 for topic in topics.SOURCES}
    done, before = 0, None
    for number, now in enumerate(nows, 1):
        records: dict[str, list[Record]] = {topic: [] for topic in offsets}
        while done < len(events) and events[done].at <= now:
            event = events[done]
            value = codec.encode(event.topic, event.fields)
            key = event.key.encode()
            records[event.topic].append(Record(offsets[event.topic], event.at, key, value, ()))
            offsets[event.topic] += 1
            done += 1
        taken = {topic: Batch.of(some) for topic, some in records.items()}
        begin = now if before is None else before
        yield Cut(0, number, now, begin, Control(), 0, None, False, taken, dict(offsets))
        before = now


def decided(policy: Policy, story: Iterable[Cut]) -> Iterator[tuple[Cut, Handled, SlabStore]]:
    """Each cut, what it gave, and the table after it."""
    decider, store = Decider(policy, 1), SlabStore(ROW)
    for cut in story:
        [handled] = decider.handle([(cut, store)])
        handled.apply(store)
        yield cut, handled, store


def audit_of(handled: Handled) -> list[bytes]:
    """Audit records of a cut."""
    return [out.value for out in handled.outputs if out.topic == topics.AUDIT.name and out.value]


def land(client: ClickHouse, database: str, audit: Iterable[bytes]) -> int:
    """Insert audit records as RECORD does; returns how many."""
    name, waiting = topics.AUDIT.name, list[bytes]()
    landed = 0

    def flush() -> None:
        written = (2, time.time_ns() // 1_000_000)  # or retention takes the rows at once
        messages = [
            Message(topic=name, partition=0, offset=landed + i, key=b"", value=value, timestamp=written)
            for i, value in enumerate(waiting)
        ]
        blocks, bad = rows_of(recording.Batch(name, "id", 0, messages), unnamed)
        assert not bad
        for block in blocks:
            insert(client, database, block)

    for value in audit:
        waiting.append(value)
        if len(waiting) == _LANDED:
            flush()
            landed += len(waiting)
            waiting.clear()
    if waiting:
        flush()
    return landed + len(waiting)
