"""The questions suite: how long it takes to read a recipient's records, and to plan segments, on full tables.

Ten million rows of decisions and segment changes; a million profiles, and a plan in which every packaged
segment is defined anew. Median and most of several questions, each over a new connection, as the commands do.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from confluent_kafka import Message
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.decide_reference import POLICY
from infra.embedded.clickhouse import ClickHouseServer
from models.redefinition import Change
from schemas import policy_files, topics
from schemas.profile import HOUR_MS, empty
from schemas.settings import Settings
from sinks.clickhouse.insert import insert
from streams import segment_plan, warehouse
from streams.engine.control import Control
from streams.recording.batch import Batch
from streams.recording.rows import rows_of
from streams.warehouse import Warehouse

DECISIONS: Final = 6_000_000
TRANSITIONS: Final = 4_000_000
PROFILES: Final = 1_000_000
_RECIPIENTS: Final = 400_000
_PART: Final = 100_000
_LANDED: Final = 10_000
_ASKED: Final = 20

# ruff: noqa: S608 - made of this suite's own names and numbers

_DECIDED: Final = """
INSERT INTO {stored}.decision (recipient_id, line, cut_partition, cut, at, control_version, decision_id,
    campaign, campaign_version, outcome, reason, cause_topic, cause_partition, cause_offset, cause_event_id,
    purpose, segments, features, `gates.name`, `gates.passed`, `gates.detail`, `gates.needed`, policy, topic,
    partition, offset, written_at)
SELECT concat('r-', toString(cityHash64(number) % {recipients})) AS r, 'decide', cityHash64(r) % 12,
    intDiv(number, 100), toDateTime64('2026-01-01 00:00:00', 3) + number, 1, generateUUIDv4(),
    concat('c', toString(number % 20)), 1, if(number % 10 = 0, 'scheduled', 'withheld'),
    if(number % 10 = 0, 'scheduled', 'cooldown'), 'behaviour.clicks', 1, number, toString(number), 'mail',
    ['a', 'b', 'c'], map('views_7d', number % 30, 'clicks_7d', 3),
    ['suppression', 'consent', 'audience', 'cooldown', 'pending', 'expiry', 'quiet_hours', 'frequency_cap'],
    [1, 1, 1, 0, 1, 1, 1, 1],
    ['none', 'mail granted', 'everyone', 'rests until 1', '0 of 8', '23', '12', '12'],
    ['', '', '', 'x', '', '', '', ''], 'abc', 'audit.records', cityHash64(r) % 12, number, now64(3)
FROM numbers({first}, {count})
"""
_MOVED: Final = """
INSERT INTO {stored}.segment_transition (recipient_id, line, cut_partition, cut, at, control_version, segment,
    entered, cause_topic, cause_partition, cause_offset, cause_event_id, definition, topic, partition, offset,
    written_at)
SELECT concat('r-', toString(cityHash64(number, 1) % {recipients})) AS r, 'decide', cityHash64(r) % 12,
    intDiv(number, 100), toDateTime64('2026-01-01 00:00:00', 3) + number, 1,
    concat('s', toString(number % 20)), number % 2, 'behaviour.clicks', 1, number, toString(number), 'abc',
    'audit.records', cityHash64(r) % 12,
    number + 1000000000, now64(3)
FROM numbers({first}, {count})
"""
_MORE: Final = """
INSERT INTO {stored}.profile_snapshot
SELECT * REPLACE (concat(recipient_id, '+{number}') AS recipient_id)
FROM {stored}.profile_snapshot WHERE position(recipient_id, '+') = 0
"""
_CUT: Final = """
INSERT INTO {stored}.cut (line, cut_partition, cut, at, policy, topic, partition, offset, written_at)
VALUES ('decide', 0, 1, {at}, 'abc', 'decide.journal', 0, 0, now64(3))
"""


def run() -> None:
    """Fill the tables, ask, and show."""
    console = Console(stderr=True)
    with _filled(console) as house:
        figures = {
            f"explain, {DECISIONS + TRANSITIONS:,} audit rows": _times(_explain(house)),
            f"segments plan, {PROFILES:,} profiles": _times(_plan(house)),
        }
    table = Table("question", "median ms", "most ms", title=f"{_ASKED} questions each")
    for name, times in figures.items():
        table.add_row(name, f"{statistics.median(times):,.0f}", f"{max(times):,.0f}")
    Console().print(table)
    results.write("questions", {"machine": results.machine(), "ms": figures})


def _times(asked: Sequence[Callable[[], object]]) -> list[float]:
    found = []
    for ask in asked:
        started = time.perf_counter()
        ask()
        found.append((time.perf_counter() - started) * 1000)
    return found


def _explain(house: Warehouse) -> list[Callable[[], object]]:
    names = [f"r-{number}" for number in np.random.default_rng(1).integers(0, _RECIPIENTS, _ASKED)]
    return [lambda name=name: list(house.audit().of_recipient(name)) for name in names]  # type: ignore[misc]


def _plan(house: Warehouse) -> list[Callable[[], object]]:
    packaged = policy_files.load(POLICY).segments
    asked = [Change(segment.number, segment, segment, 1) for segment in packaged]
    return [lambda: segment_plan.plan(house, Control(), asked)] * _ASKED


@contextmanager
def _filled(console: Console) -> Iterator[Warehouse]:
    with tempfile.TemporaryDirectory() as name:
        server = ClickHouseServer(Path(name))
        server.up()
        try:
            house = warehouse.connect(Settings(state_dir=Path(name), clickhouse=None))
            house.migrate()
            with closing(house.connect()) as client:
                for statement, rows in ((_DECIDED, DECISIONS), (_MOVED, TRANSITIONS)):
                    for first in range(0, rows, _PART):
                        console.print(f"audit rows: {first:,} of {rows:,}")
                        client.execute(
                            statement.format(
                                stored=house.stored, recipients=_RECIPIENTS, first=first, count=_PART
                            )
                        )
                console.print("profiles")
                _land(house)
                for number in range(PROFILES // _LANDED - 1):
                    client.execute(_MORE.format(stored=house.stored, number=number))
                client.execute(_CUT.format(stored=house.stored, at=time.time()))
            yield house
        finally:
            server.down()


def _land(house: Warehouse) -> None:
    """Some profiles as RECORD lands them: a few buckets of each ring are not empty."""
    chance, rows, hour = np.random.default_rng(2), empty(_LANDED), int(time.time() * 1000) // HOUR_MS
    for name in ("hourly", "daily", "revenue"):
        rows[name] = chance.integers(0, 40, rows[name].shape) * (chance.random(rows[name].shape) < 0.05)
    rows["hour"] = hour - chance.integers(0, 500, len(rows))
    rows["last"] = rows["hour"].astype(np.int64)[:, None] * HOUR_MS - chance.integers(
        0, 10**9, rows["last"].shape
    )
    rows["first"] = rows["last"].min(1)
    topic, written = topics.PROFILES.name, (2, time.time_ns() // 1_000_000)
    messages = [
        Message(topic=topic, partition=0, offset=n, key=b"r-%d" % n, value=row.tobytes(), timestamp=written)
        for n, row in enumerate(rows)
    ]
    blocks, _ = rows_of(Batch(topic, "id", 0, messages), lambda _: {})
    with closing(house.connect()) as client:
        for block in blocks:
            insert(client, house.stored, block)
