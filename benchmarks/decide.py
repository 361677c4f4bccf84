"""The decide suite: the whole DECIDE line, and the readable reference of the same rules in two frameworks.

Every program is fed clicks and purchases as they came, on its own fresh topics, and never runs dry. Ours is
a worker as in production, exactly once, with audit, journal and changelog; it has been told everybody's zone
and consent before. What the others leave out is said in `benchmarks.decide_reference`.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import large_policy, results, rig
from benchmarks.decide_events import Crowd, Record, Skew
from benchmarks.decide_feed import Feed, load
from benchmarks.decide_reference import POLICY, TOPICS
from benchmarks.peers import installed
from benchmarks.progress import Committed
from benchmarks.results import Result, Run
from benchmarks.rig import Bench, Launch, PeerFailed
from schemas import topics
from streams.agents.decide import APP

COMMIT_S: Final = 1.0
OURS: Final = "opportune"
RECIPIENTS: Final = 100_000
_EVENTS: Final = 3_500_000
_NEVER: Final = [1 << 62] * rig.PARTITIONS
_NOT_YET: Final = -(1 << 62)  # so far has no feed to be ahead: consent comes first


@dataclass(frozen=True)
class Peer:
    """A program, what it guarantees, how far its feed is ahead, and how one run of it is prepared."""

    name: str
    guarantee: str
    lead: int
    prepare: Callable[[Bench, str], Launch]
    knows: bool = False  # is told everybody's zone and consent by records
    workers: int = 1  # processes; CPU is that of one of them


def ours(bench: Bench, group: str) -> Launch:
    """A worker of ours as it comes."""
    return worker(bench, group, POLICY)


def ours_with_much(bench: Bench, group: str) -> Launch:
    """The same with 50 segments and 20 campaigns."""
    return worker(bench, group, large_policy.make(POLICY, bench.folder / f"{group}-policy"))


def worker(bench: Bench, group: str, policy: Path) -> Launch:
    """A worker of ours under a policy; its group and its topics have fixed names."""
    environment = {
        "OPPORTUNE_BROKERS": bench.client.brokers,
        "OPPORTUNE_STATE_DIR": str(bench.folder / group),
        "OPPORTUNE_PARTITIONS": str(rig.PARTITIONS),
        "OPPORTUNE_POLICY_DIR": str(policy),
    }
    command = [sys.executable, "-m", "streams.cli.main", "run", "decide"]
    return Launch(command, APP, (topics.PROFILES.name,), environment)


def _reference(module: str, changelog: str) -> Callable[[Bench, str], Launch]:
    def prepare(bench: Bench, group: str) -> Launch:
        python, environment = sys.executable, {}
        if module == "decide_quix":
            python = str(installed.quix_python())
            environment = {"PYTHONPATH": str(rig.ROOT), "BENCH_PACKAGES": _packages()}
        words = [group, str(COMMIT_S), str(rig.PARTITIONS), str(bench.folder / group)]
        command = [python, "-m", f"benchmarks.{module}", *words]
        return Launch(command, group, (changelog.format(group=group),), environment)

    return prepare


def _packages() -> str:
    return next(path for path in sys.path if path.endswith("site-packages"))


_AGAIN: Final = "at least once: after a crash events count twice"
PEERS: Final = (
    Peer(OURS, "exactly once; state in memory", 300_000, ours, knows=True),
    Peer(f"{OURS}, 2 workers", "exactly once; state in memory", 300_000, ours, knows=True, workers=2),
    Peer(
        f"{OURS}, {large_policy.SEGMENTS} segments, {large_policy.CAMPAIGNS} campaigns",
        "exactly once; state in memory",
        300_000,
        ours_with_much,
        knows=True,
    ),
    Peer(
        "reference in plain Faust",
        f"{_AGAIN}, or are lost; state in memory",
        20_000,
        _reference("decide_plain_faust", "{group}-profiles-changelog"),
    ),
    Peer(
        "reference in Quix Streams",
        f"{_AGAIN}; RocksDB",
        20_000,
        _reference(
            "decide_quix", "changelog__{group}--" + "--".join(sorted(TOPICS, reverse=False)) + "--default"
        ),
    ),
)


def run(
    skews: Sequence[Skew] = ("zipf", "even"),
    seconds: float = 20.0,
    rounds: int = 3,
    only: Sequence[str] = (),
    events: int = _EVENTS,
) -> None:
    """Measure the peers, or only those whose names are given, and show what was found."""
    console = Console(stderr=True)
    peers = [peer for peer in PEERS if not only or peer.name in only]
    crowd = Crowd(RECIPIENTS, rig.PARTITIONS)
    for skew in skews:
        found = {peer.name: Result(peer.name, peer.guarantee) for peer in peers}
        with rig.running() as bench:
            now = time.time_ns() // 1_000_000
            known, behaviour = list(crowd.known(now)), list(crowd.behaviour(skew, events, now))
            for number in range(rounds):
                for place, peer in enumerate(rig.rotated(peers, number)):
                    group = f"decide-{number}-{place}"
                    try:
                        one = measure(bench, peer, group, known if peer.knows else [], behaviour, seconds)
                    except PeerFailed as error:
                        console.print(f"round {number + 1}: {error}", markup=False)
                        continue
                    console.print(f"round {number + 1}: {skew}, {peer.name}: {one.events_per_s:,.0f}/s {one}")
                    found[peer.name].runs.append(one)
        title = f"decide: clicks and purchases of {RECIPIENTS:,} recipients, drawn by {skew}"
        results.show(f"decide-{skew}", title, [*found.values()], OURS)


def measure(
    bench: Bench,
    peer: Peer,
    group: str,
    known: Sequence[Record],
    behaviour: Sequence[Record],
    seconds: float,
) -> Run:
    """One run of a program on fresh topics.

    Raises
    ------
    PeerFailed
        It ended by itself, did nothing for too long, or was faster than the feed.
    """
    bench.create(topics.TOPICS)
    load(bench.client, known)
    launch = peer.prepare(bench, group)
    ends = bench.ends(topics.CONSENT.name)
    latest = [_NOT_YET]
    with ExitStack() as ending:
        done = ending.enter_context(Committed(bench.client, launch.group, TOPICS, rig.PARTITIONS))
        learnt = ending.enter_context(
            Committed(bench.client, launch.group, [topics.CONSENT.name], rig.PARTITIONS)
        )

        def progress() -> list[int]:
            found = done()
            if latest[0] != _NOT_YET or all(a >= b for a, b in zip(learnt(), ends, strict=True)):
                latest[0] = sum(found)
            return found

        for _ in range(peer.workers - 1):
            ending.callback(rig.stop, bench.start(launch)[0])
        feed = ending.enter_context(Feed(bench.client, behaviour, lambda: latest[0], peer.lead))
        one = bench.measure(launch, progress, _NEVER, seconds)
        if feed.dry:
            raise PeerFailed(f"{peer.name} has done all {len(behaviour):,} events; load more")
    return one


if __name__ == "__main__":
    skew: Skew = "even" if sys.argv[1] == "even" else "zipf"
    run([skew], float(sys.argv[2]), int(sys.argv[3]), sys.argv[5:], int(sys.argv[4]))
