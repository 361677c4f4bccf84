"""The latency suite: how long after an event its decision can be read, by how much is asked of one worker.

Asked are 30, 60 and 90 % of what one worker was measured to do, and 60 % of what one is promised to do. An
open loop: events come at their rate whatever the line does. Measured is from the moment at which the broker
appended a purchase to that at which a consumer that reads committed has its decision's audit record. The
command of a send that is due at once leaves in the same transaction.
"""

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import decide, open_loop, results, rig
from benchmarks.decide_events import Crowd, Record
from benchmarks.decide_feed import load
from benchmarks.open_loop import Place, Reader
from benchmarks.rig import Bench, PeerFailed
from schemas import codec, topics

SHARES: Final = (0.3, 0.6, 0.9)
PROMISED: Final = 50_000  # events a second, of one worker
_EVENTS: Final = 3_000_000
_ROUNDS: Final = 3
_SETTLE_S: Final = 10.0  # the worker has worked off what came while everybody's first event was handled


@dataclass(frozen=True)
class Latency:
    """Of a run at `rate` events a second, of which `reached` were offered: milliseconds, over `decisions`."""

    rate: float
    reached: float
    decisions: int
    p50: float
    p99: float
    p999: float
    most: float


def run(capacity: float = 0.0, seconds: float = 30.0) -> None:
    """Measure capacity, unless it is given, and the latency at each share of it, three times."""
    console = Console(stderr=True)
    crowd, now = Crowd(decide.RECIPIENTS, rig.PARTITIONS), time.time_ns() // 1_000_000
    known, behaviour = list(crowd.known(now)), list(crowd.behaviour("zipf", _EVENTS, now))
    ours = next(peer for peer in decide.PEERS if peer.name == decide.OURS)
    with rig.running() as bench:
        if not capacity:
            capacity = decide.measure(bench, ours, "capacity", known, behaviour, 20.0).events_per_s
        rates = {f"{share:.0%} of {capacity:,.0f}": share * capacity for share in SHARES}
        rates[f"60% of {PROMISED:,}"] = 0.6 * PROMISED
        found: dict[str, list[Latency]] = {asked: [] for asked in rates}
        for number in range(_ROUNDS):
            for asked in rig.rotated([*rates], number):
                found[asked].append(_at(bench, known, behaviour, rates[asked], seconds))
                console.print(f"round {number + 1}: {asked}: {found[asked][-1]}")
    table = Table(
        "events/s", "reached", "decisions", "p50 ms", "p99 ms", "p99.9 ms", "most ms",
        title=f"event to readable decision, Zipf: medians and ranges of {_ROUNDS} runs",
    )  # fmt: skip
    for asked, runs in found.items():
        figures = (_summary(runs, name) for name in ("p50", "p99", "p999", "most"))
        reached = f"{statistics.median(run.reached for run in runs):,.0f}"
        table.add_row(asked, reached, f"{sum(run.decisions for run in runs):,}", *figures)
    Console().print(table)
    listed = {asked: [asdict(run) for run in runs] for asked, runs in found.items()}
    results.write("latency", {"machine": results.machine(), "capacity": capacity, "runs": listed})


def _summary(runs: Sequence[Latency], name: str) -> str:
    values = [getattr(run, name) for run in runs]
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def _at(
    bench: Bench,
    known: Sequence[Record],
    behaviour: Sequence[Record],
    rate: float,
    seconds: float,
) -> Latency:
    """One run of a worker at a rate, after it has been told who everybody is."""
    os.sync()  # or a run pays for what the one before it left to be written
    bench.create(topics.TOPICS)
    load(bench.client, known)
    ours = next(peer for peer in decide.PEERS if peer.name == decide.OURS)
    launch = ours.prepare(bench, f"latency-{bench.started}")
    child, log = bench.start(launch)
    try:
        open_loop.await_known(bench, launch.group)
        reader = Reader(bench.client, topics.AUDIT.name)
        started, reached = open_loop.offer(bench, behaviour, rate, seconds)
        found = reader.found()
        if child.poll() is not None:
            raise PeerFailed(f"the worker ended\n{log.read_text(errors='replace')[-4000:]}")
    finally:
        rig.stop(child)
    since = started + _SETTLE_S
    appended = {place: at for place, at in open_loop.appended(bench, topics.PURCHASES.name) if at >= since}
    causes = ((at, _purchase(value)) for at, value in found)
    waits = np.array([(at - appended[place]) * 1000 for at, place in causes if place in appended])
    if len(waits) < len(appended):
        raise PeerFailed(f"{len(appended)} purchases, {len(waits)} decisions of them")
    p50, p99, p999 = np.percentile(waits, [50, 99, 99.9]).tolist()
    return Latency(rate, reached, len(waits), p50, p99, p999, float(waits.max()))


def _purchase(value: bytes) -> Place | None:
    """Place of the purchase that a decision was about; None for any other audit record."""
    body = codec.decode(topics.AUDIT.name, value)["body"]
    cause = body.get("cause")
    if "campaign" not in body or cause is None or cause["topic"] != topics.PURCHASES.name:
        return None
    return cause["topic"], cause["partition"], cause["offset"]


if __name__ == "__main__":
    run(float(sys.argv[1]), float(sys.argv[2]))
