"""The state suite: decode a click, read its recipient's 128 bytes, update them, write them with a changelog.

Programs that commit on a timer all do so every two seconds; those that commit in transactions, as often as
they do by default.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.console import Console

from benchmarks import backlog, results, rig
from benchmarks.peers import installed, job
from benchmarks.results import Result
from benchmarks.rig import Bench, Launch, PeerFailed
from schemas import codec, topics
from streams.engine import journal

COMMIT_S: Final = 2.0
CHECKED: Final = 0  # partition whose counts are checked
OURS: Final = "opportune"
TELLING: Final = (OURS, "plain Faust", "Quix Streams", "Kafka Streams, once, RocksDB")


@dataclass(frozen=True)
class Peer:
    """A program, what it guarantees, and how one run of it is prepared: in a group of its own."""

    name: str
    guarantee: str
    prepare: Callable[[Bench, str], Launch]


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.peers.{module}", *words]


def ours(bench: Bench, group: str) -> Launch:
    """Our engine; its journal and its changelog have fixed names, and begin empty."""
    bench.create((topics.CONTROL, topics.JOURNAL, topics.PROFILES))
    command = _python("ours", group, str(COMMIT_S), str(bench.folder / group))
    return Launch(command, group, (topics.PROFILES.name,))


def plain_faust(bench: Bench, group: str) -> Launch:
    """Faust's own agent and table."""
    command = _python("plain_faust", group, str(COMMIT_S), str(rig.PARTITIONS), str(bench.folder / group))
    return Launch(command, group, (f"{group}-state-changelog",))


def quix(bench: Bench, group: str) -> Launch:
    """Quix Streams, in its own environment."""
    script = str(rig.ROOT / "benchmarks" / "peers" / "quix" / "count.py")
    command = [str(installed.quix_python()), script, group, str(COMMIT_S), str(bench.folder / group)]
    return Launch(
        command, group, (f"changelog__{group}--{topics.CLICKS.name}--default",), {"PYTHONPATH": str(rig.ROOT)}
    )


def loop(*options: str) -> Callable[[Bench, str], Launch]:
    """The hand-written loop, with options of librdkafka's consumer."""

    def prepare(bench: Bench, group: str) -> Launch:
        changelog = replace(topics.PROFILES, name=f"{group}-changelog")
        bench.create([changelog])
        return Launch(_python("loop", group, changelog.name, *options), group, (changelog.name,))

    return prepare


def kafka_streams(guarantee: str, store: str, cache: str) -> Callable[[Bench, str], Launch]:
    """Kafka Streams with one thread."""

    def prepare(bench: Bench, group: str) -> Launch:
        schema = codec.FOLDER / f"{topics.CLICKS.name}.avsc"
        commit = "default" if guarantee == "exactly_once_v2" else f"{COMMIT_S * 1000:.0f}"
        words = [str(schema), group, str(bench.folder / group), guarantee, commit, store, cache]
        return Launch([*installed.streams_java(), *words], group, (f"{group}-state-changelog",))

    return prepare


def check(bench: Bench, launch: Launch, peer: Peer) -> None:
    """Compare a partition's counts in the changelog with the place from which the program would go on.

    Where events may count twice there may be more. Raises `PeerFailed`: the program did another job.
    """
    states = bench.latest(launch.changelogs[0], CHECKED).values()
    # Some put an envelope before the state: it is the last 128 bytes of a value.
    counted = sum(job.STATE.unpack(state[-job.STATE.size :])[0] for state in states)
    wanted = bench.committed(launch.group, topics.CLICKS.name)()[CHECKED]
    if peer.name == OURS:  # whose journal is its offset store
        consumer = bench.client.reader()
        last = journal.last_entry(consumer, topics.JOURNAL.name, CHECKED)
        consumer.close()
        wanted = last[0].next_offsets()[topics.CLICKS.name] if last else 0
    if counted < wanted or (peer.guarantee.startswith("exactly once") and counted > wanted):
        raise PeerFailed(f"{peer.name} counted {counted:,} events in partition {CHECKED}, not {wanted:,}")


_ONCE: Final = "exactly_once_v2"
_LEAST: Final = "at_least_once"
_AGAIN: Final = "at least once: after a crash events count twice"
PEERS: Final = (
    Peer(OURS, "exactly once; state in memory", ours),
    Peer("plain Faust", f"{_AGAIN}, or are lost; state in memory", plain_faust),
    Peer("Quix Streams", f"{_AGAIN}; RocksDB", quix),
    Peer("hand-written loop", f"{_AGAIN}, nothing is recovered; dict", loop()),
    Peer(
        "hand-written loop, backoff 5 ms",
        f"{_AGAIN}, nothing is recovered; dict",
        loop("fetch.queue.backoff.ms=5"),
    ),
    Peer("Kafka Streams, once, RocksDB", "exactly once; RocksDB", kafka_streams(_ONCE, "rocksdb", "cached")),
    Peer("Kafka Streams, once, memory", "exactly once; memory", kafka_streams(_ONCE, "memory", "cached")),
    Peer("Kafka Streams, RocksDB", f"{_AGAIN}; RocksDB", kafka_streams(_LEAST, "rocksdb", "uncached")),
    Peer("Kafka Streams, RocksDB, cached", f"{_AGAIN}; RocksDB", kafka_streams(_LEAST, "rocksdb", "cached")),
    Peer("Kafka Streams, memory", f"{_AGAIN}; memory", kafka_streams(_LEAST, "memory", "uncached")),
    Peer("Kafka Streams, memory, cached", f"{_AGAIN}; memory", kafka_streams(_LEAST, "memory", "cached")),
)


def run() -> None:
    """Measure every program with few very active recipients, and the most telling ones with all alike."""
    measure("zipf", PEERS)
    measure("even", [peer for peer in PEERS if peer.name in TELLING])


def measure(
    draw: backlog.Draw,
    peers: Sequence[Peer],
    events: int = 8_000_000,
    seconds: float = 20.0,
    rounds: int = 3,
) -> None:
    """Run the programs in turn on one broker and one backlog, and show what was found."""
    console = Console(stderr=True)
    found = {peer.name: Result(peer.name, peer.guarantee) for peer in peers}
    with rig.running() as bench:
        console.print(f"loading {events:,} clicks")
        bench.create([topics.CLICKS])
        until = time.time_ns() // 1_000_000
        bench.load(topics.CLICKS.name, backlog.clicks(draw, events, until - 30 * topics.DAY_MS, until))
        ends = bench.ends(topics.CLICKS.name)
        for number in range(rounds):
            for place, peer in enumerate(rig.rotated(peers, number)):
                try:
                    launch = peer.prepare(bench, f"state-{number}-{place}")
                    progress = bench.committed(launch.group, topics.CLICKS.name)
                    one = bench.measure(launch, progress, ends, seconds)
                    check(bench, launch, peer)
                except PeerFailed as error:
                    console.print(f"round {number + 1}: {error}", markup=False)
                    continue
                console.print(f"round {number + 1}: {peer.name} {one.events_per_s:,.0f} events/s")
                found[peer.name].runs.append(one)
    title = f"State: {events:,} clicks of {backlog.RECIPIENTS:,} recipients, drawn {draw}"
    results.show(f"state-{draw}", title, [*found.values()], OURS, installed.versions())
