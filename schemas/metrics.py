"""Every metric: its name, kind, labels and meaning. No label ever names a recipient."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Metric:
    """One metric in Prometheus' terms; a counter's name ends in `_total`, a duration's in `_seconds`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    doc: str


EVENTS: Final = Metric(
    "opportune_events_total",
    "counter",
    ("topic", "fate"),
    "Source records of committed cuts, by what became of them.",
)
CUTS: Final = Metric("opportune_cuts_total", "counter", (), "Committed cuts.")
DECISIONS: Final = Metric(
    "opportune_decisions_total",
    "counter",
    ("outcome",),
    "Decisions and releases: scheduled, withheld, released, dropped.",
)
HANDLE_SECONDS: Final = Metric(
    "opportune_handle_seconds", "histogram", (), "Computing of a transaction's cuts, in the event loop."
)
COMMIT_SECONDS: Final = Metric(
    "opportune_commit_seconds", "histogram", (), "Producing and committing a transaction."
)
LINES: Final = Metric("opportune_lines", "gauge", (), "Partition numbers that this worker owns and serves.")
PENDING: Final = Metric("opportune_pending_sends", "gauge", ("partition",), "Scheduled sends that wait.")

METRICS: Final = (EVENTS, CUTS, DECISIONS, HANDLE_SECONDS, COMMIT_SECONDS, LINES, PENDING)
