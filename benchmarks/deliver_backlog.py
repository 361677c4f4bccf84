"""Half a million messages at once, of which most expire before they can go: what they weigh and hold up.

All are commands for one lane, which takes few of them; a second lane has messages of its own all the while.
Measured are the worker's resident memory, how long it takes up and ends the messages, and whether the second
lane goes at its rate meanwhile.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Final

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import results, rig
from benchmarks.decide_feed import load
from benchmarks.deliver_line import CONNECTIONS, Outcomes, command, prepared, worker
from benchmarks.progress import Committed
from benchmarks.rig import Bench, PeerFailed
from infra.embedded import SandboxServer
from schemas import topics

MESSAGES: Final = 500_000
_RATE: Final = 50  # a second, of each lane
_LANES: Final = f"""\
[default]
rate = "{_RATE}/s"
connections = {CONNECTIONS}
reserve = 0
"""
_EXPIRY_S: Final = 200.0
_PATIENCE_S: Final = 600.0
_LOOK_EVERY_S: Final = 0.25
_MOST_MB: Final = 500
_LEAST_SHARE: Final = 0.98  # of its rate, that the second lane goes at


@dataclass
class Phase:
    """A part of the run: seconds, the most memory in MB, and what the second lane sent in a second."""

    name: str
    seconds: float
    most_mb: float
    others_per_s: float


class _Watch:
    """Looks at a worker until something holds; each time is a phase."""

    def __init__(self, process: psutil.Process, outcomes: Outcomes) -> None:
        self._process, self.outcomes = process, outcomes
        self.phases: list[Phase] = []

    def until(self, name: str, deadline: float, holds: Callable[[], bool]) -> None:
        """Look until it holds. Raises `PeerFailed` where that takes too long."""
        began, before, most = time.monotonic(), self._others(), 0
        while not holds():
            if time.monotonic() - began > deadline:
                raise PeerFailed(f"{name}: not within {deadline:.0f} s")
            time.sleep(_LOOK_EVERY_S)
            self.outcomes()
            most = max(most, self._process.memory_info().rss)
        seconds = time.monotonic() - began
        self.phases.append(Phase(name, seconds, most / 2**20, (self._others() - before) / seconds))

    def _others(self) -> int:
        return self.outcomes.kinds["delivered", "yahoo"]


def run(bench: Bench, messages: int = MESSAGES, expiry_s: float = _EXPIRY_S) -> list[Phase]:
    """Take up, wait and expire. Raises `PeerFailed`."""
    bench.create(topics.TOPICS)
    folder = bench.folder / "deliver-backlog"
    settings = prepared(bench, folder, _LANES)
    expires_at = int((time.time() + expiry_s) * 1000)
    others = int(2 * _RATE * _PATIENCE_S)
    with ExitStack() as ending:
        sandbox = SandboxServer(folder)
        ending.callback(sandbox.down)
        sandbox.up()
        load(bench.client, [command(n, "yahoo", expires_at + 3_600_000) for n in range(others)])
        load(bench.client, [command(others + n, "gmail", expires_at) for n in range(messages)])
        launch = worker(settings)
        child, log = bench.start(launch)
        ending.callback(rig.stop, child)
        outcomes = ending.enter_context(Outcomes(bench.client, {"delivered", "expired"}))
        read = ending.enter_context(
            Committed(bench.client, launch.group, [topics.COMMANDS.name], rig.PARTITIONS)
        )
        watch = _Watch(psutil.Process(child.pid), outcomes)
        try:
            watch.until("starting", _PATIENCE_S, lambda: outcomes.kinds["delivered", "yahoo"] > 0)
            watch.until("taking them up", _PATIENCE_S, lambda: sum(read()) >= messages + others)
            watch.until("they wait", _PATIENCE_S, lambda: time.time() * 1000 >= expires_at)
            watch.until("they expire", _PATIENCE_S, lambda: _ended(outcomes.kinds) >= messages)
        except (PeerFailed, psutil.NoSuchProcess) as error:
            raise PeerFailed(f"{error}\n{log.read_text(errors='replace')[-4000:]}") from error
    return watch.phases


def _ended(kinds: Counter[tuple[str, str]]) -> int:
    return sum(count for (_, provider), count in kinds.items() if provider == "gmail")


def show(phases: list[Phase]) -> None:
    """Print a table, and write it."""
    table = Table(
        *("phase", "seconds", "most MB", f"second lane, of {_RATE}/s"),
        title=f"deliver: {MESSAGES:,} messages at once for one lane",
    )
    for phase in phases:
        row = (f"{phase.seconds:,.0f}", f"{phase.most_mb:,.0f}", f"{phase.others_per_s:,.1f}/s")
        table.add_row(phase.name, *row)
    console = Console()
    console.print(table)
    most = max(phase.most_mb for phase in phases)
    console.print(f"{most:,.0f} MB at most, {_MOST_MB} promised: {'met' if most <= _MOST_MB else 'missed'}")
    # Once it has started; where taking up lasts until they expire, nothing only waits.
    share = min(phase.others_per_s for phase in phases[1:] if phase.seconds > 1) / _RATE
    met = "met" if share >= _LEAST_SHARE else "missed"
    console.print(f"second lane at {share:.1%} of its rate, {_LEAST_SHARE:.0%} promised: {met}")
    results.write(
        "deliver-backlog",
        {"machine": results.machine(), "messages": MESSAGES, "phases": [asdict(phase) for phase in phases]},
    )
