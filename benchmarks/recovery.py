"""The recovery suite: how fast lines stand again, from the changelog and from snapshots, and what rows cost.

Lines are taken over as a worker does it: fenced, the journal's end found, rows read, due times worked out;
four at once. Rows are real ones, made by DECIDE; every key has one record in the changelog, as if compacted.
"""

import ctypes
import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import results, rig
from benchmarks.decide_events import Crowd, Record
from benchmarks.decide_feed import load
from benchmarks.rig import Bench
from benchmarks.stages import POLICY, cuts
from schemas import policy_files, topics
from schemas.profile import LAYOUTS, ROW
from streams import logs, worker
from streams.agents.decide import APP, Decider
from streams.engine import snapshot_file
from streams.engine.control import Control
from streams.engine.journal import Entry
from streams.engine.line import Line, Spec
from streams.engine.partitioner import partition_of
from streams.engine.snapshot import NoSnapshots
from streams.engine.snapshot_file import Header
from streams.engine.store import NEVER, SlabStore
from streams.engine.topic import topic_id

_KEYS: Final = 1_000_000
_AT_ONCE: Final = 4
_REAL_ROWS: Final = 8_000
_ROUNDS: Final = 3
_BATCH: Final = 10_000


@dataclass(frozen=True)
class Taken:
    """One take-over of all partitions: how many keys, in how many seconds."""

    keys: int
    seconds: float


def run(keys: int = _KEYS) -> None:
    """Take over `keys` recipients from the changelog and from snapshots; weigh them in memory."""
    console = Console()
    logs.configure("warning")  # each take-over says so
    with rig.running() as bench:
        bench.create(topics.TOPICS)
        names, rows = recipients(keys), real_rows()
        now = time.time_ns() // 1_000_000
        bench.load(topics.PROFILES.name, ((name, rows[i % len(rows)]) for i, name in enumerate(names)))
        spec = worker.decide_spec(bench.settings.model_copy(update={"policy_dir": POLICY}), bench.client)
        _write_journal(bench, spec, names, now)
        changelog = [take_over(replace(spec, snapshots=NoSnapshots())) for _ in range(_ROUNDS)]
        size = _write_snapshots(bench, names, rows, now)
        snapshots = [take_over(spec) for _ in range(_ROUNDS)]
    each = _bytes_a_recipient(keys)
    table = Table(
        "what", "median", "range", title=f"recovery of {keys:,} recipients, {rig.PARTITIONS} partitions"
    )
    for what, taken in (("changelog", changelog), ("snapshots", snapshots)):
        seconds = sorted(one.seconds for one in taken)
        speeds = sorted(one.keys / one.seconds for one in taken)
        table.add_row(
            f"from {what}, s", f"{np.median(seconds):.2f}", f"{seconds[0]:.2f} to {seconds[-1]:.2f}"
        )
        table.add_row(
            f"from {what}, keys/s", f"{np.median(speeds):,.0f}", f"{speeds[0]:,.0f} to {speeds[-1]:,.0f}"
        )
    table.add_row("snapshots, bytes a recipient", f"{size / keys:.0f}", "")
    table.add_row("memory, bytes a recipient", f"{each:.0f}", f"of which row {ROW.itemsize}")
    console.print(table)
    results.write(
        "recovery",
        {
            "machine": results.machine(),
            "keys": keys,
            "changelog_s": [one.seconds for one in changelog],
            "snapshots_s": [one.seconds for one in snapshots],
            "snapshot_bytes": size,
            "memory_bytes_a_recipient": each,
            "row_bytes": ROW.itemsize,
        },
    )


def recipients(count: int) -> list[bytes]:
    """Their ids."""
    return [b"recipient-%07d" % number for number in range(count)]


def real_rows() -> list[bytes]:
    """Bytes of rows that DECIDE has made of clicks and purchases."""
    decider, store = Decider(policy_files.load(POLICY), rig.PARTITIONS), SlabStore(ROW)
    for cut in cuts(Crowd(_REAL_ROWS, rig.PARTITIONS, on=0), "zipf", 2000):
        [handled] = decider.handle([(cut, store)])
        handled.apply(store)
    return [row.tobytes() for _, _, rows in store.batches() for row in rows]


def take_over(spec: Spec) -> Taken:
    """Take over every partition, a few at once as a worker does it."""
    began = time.perf_counter()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        taken = threads.map(
            lambda p: Line.take_over(spec, p, None, Control(), lambda: None), range(rig.PARTITIONS)
        )
        keys = sum(len(line.store) for line in taken)
    return Taken(keys, time.perf_counter() - began)


def _write_journal(bench: Bench, spec: Spec, names: Sequence[bytes], now: int) -> None:
    """One entry a partition, as if a cut had made all rows."""
    counts = np.bincount([partition_of(name, rig.PARTITIONS) for name in names], minlength=rig.PARTITIONS)
    figures = {"decided": 0, "withheld": 0, "released": 0, "dropped": 0, "pending": 0}
    entries = []
    for partition, count in enumerate(counts.tolist()):
        entry = Entry(partition, 1, now, 0, spec.handler.policy(Control()), figures=figures, rows=count)
        entries.append(Record(topics.JOURNAL.name, partition, b"", entry.encode(topics.JOURNAL.name)))
    load(bench.client, entries)


def _write_snapshots(bench: Bench, names: Sequence[bytes], rows: Sequence[bytes], now: int) -> int:
    """A snapshot of every partition at the changelog's end; returns their bytes together."""
    ends = bench.ends(topics.PROFILES.name)
    identity = topic_id(bench.client, topics.PROFILES.name)
    size = 0
    for partition, (mine, store) in enumerate(stores(names, rows)):
        header = Header(
            APP,
            partition,
            1,
            ends[partition],
            identity,
            LAYOUTS.newest,
            snapshot_file.fingerprint(ROW),
            mine,
            now,
        )
        folder = bench.settings.state_dir / "snapshots" / APP / str(partition)
        folder.mkdir(parents=True)
        size += snapshot_file.write(
            folder / f"{1:020}-{now:013}{snapshot_file.SUFFIX}", header, store.freeze()
        )
    return size


def stores(names: Sequence[bytes], rows: Sequence[bytes]) -> Iterator[tuple[int, SlabStore]]:
    """Fill one store after the other; how many keys each has."""
    of_partition: list[list[bytes]] = [[] for _ in range(rig.PARTITIONS)]
    for name in names:
        of_partition[partition_of(name, rig.PARTITIONS)].append(name)
    for mine in of_partition:
        store = SlabStore(ROW)
        for start in range(0, len(mine), _BATCH):
            some = mine[start : start + _BATCH]
            values = b"".join(rows[i % len(rows)] for i in range(start, start + len(some)))
            store.put_many(some, np.frombuffer(values, ROW), np.full(len(some), NEVER, np.int64))
        yield len(mine), store


def _bytes_a_recipient(keys: int) -> float:
    """Resident memory of a fresh process that holds all rows, less what it had before; per recipient."""
    command = [sys.executable, "-m", "benchmarks.recovery", str(keys)]
    done = subprocess.run(  # noqa: S603 - our own command line
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    return float(done.stdout) / keys


def _weigh(keys: int) -> int:
    """Bytes that this process grows by when it loads all rows, ids and all.

    What loading leaves behind is given back first: it would be used again, not held.
    """
    rows = [os.urandom(ROW.itemsize)]
    before: int = psutil.Process().memory_info().rss
    held = [store for _, store in stores(recipients(keys), rows)]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    after: int = psutil.Process().memory_info().rss
    if sum(map(len, held)) != keys:
        raise RuntimeError("some keys are missing")
    return after - before


if __name__ == "__main__":
    print(_weigh(int(sys.argv[1])))
