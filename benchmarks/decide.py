"""Computing a cut, without Kafka: decode, gather, decide, encode, scatter, with the packaged policy."""

import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import infra
from schemas import codec, policy, topics
from schemas.profile import HOUR_MS, ROW
from streams.agents.decide import Decider
from streams.engine.control import Control
from streams.engine.cut import Cut
from streams.engine.kafka import Record
from streams.engine.partitioner import partition_of
from streams.engine.store import SlabStore

PARTITIONS = 12
START = 1_700_000_000_000
CUTS = 40


def run() -> None:
    """Time cuts of several sizes; medians and ranges of microseconds an event."""
    people = [
        name
        for name in (f"recipient-{n}" for n in range(60_000))
        if partition_of(name.encode(), PARTITIONS) == 0
    ]
    table = Table(
        "events a cut",
        "µs an event, median",
        "least",
        "most",
        title=f"{len(people):,} recipients, {CUTS} cuts",
    )
    for size in (20, 200, 2000):
        times = [seconds / size * 1e6 for seconds in _cuts(people, size)]
        table.add_row(
            f"{size:,}", f"{statistics.median(times):.1f}", f"{min(times):.1f}", f"{max(times):.1f}"
        )
    Console().print(table)


def _cuts(people: list[str], size: int) -> list[float]:
    """Seconds of each of a row of cuts, ten minutes apart, after warming up."""
    decider = Decider(policy.load(Path(infra.__file__).parent / "policy"), PARTITIONS)
    store = SlabStore(ROW)
    chance = np.random.default_rng(1)
    seconds, offset, before = [], 0, START
    for number in range(1, CUTS + 6):
        now = START + number * HOUR_MS // 6
        records = []
        for who in chance.choice(len(people), size):
            fields = {
                "recipient_id": people[who],
                "event_id": None,
                "occurred_at": now - int(chance.integers(0, 600_000)),
                "kind": "view",
            }
            value = codec.encode(topics.CLICKS.name, fields)
            records.append(Record(offset, now, people[who].encode(), value, ()))
            offset += 1
        by_topic = {topic.name: records if topic is topics.CLICKS else [] for topic in topics.SOURCES}
        nexts = {topic.name: offset for topic in topics.SOURCES}
        cut = Cut(0, number, now, before, Control(), 0, None, False, by_topic, nexts)
        began = time.perf_counter()
        handled = decider.handle(cut, store)
        handled.apply(store)
        if number > 5:
            seconds.append(time.perf_counter() - began)
        before = now
    return seconds
