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
OUTCOMES: Final = Metric(
    "opportune_outcomes_total",
    "counter",
    ("outcome",),
    "The journal's figures of committed cuts. DECIDE: decided, of these withheld, released, dropped. "
    "DELIVER: historic, duplicate, delivered, deferred, bounced, expired, recalled, unknown, claimed, "
    "returned.",
)
HANDLE_SECONDS: Final = Metric(
    "opportune_handle_seconds", "histogram", (), "Computing of a transaction's cuts, in the event loop."
)
COMMIT_SECONDS: Final = Metric(
    "opportune_commit_seconds", "histogram", (), "Producing and committing a transaction."
)
LINES: Final = Metric("opportune_lines", "gauge", (), "Partition numbers that this worker owns and serves.")
STANDING: Final = Metric(
    "opportune_sends",
    "gauge",
    ("state", "partition"),
    "Sends by state. DECIDE: pending, waiting for their hour. DELIVER: pending, waiting for their lane; "
    "in_flight, handed out and without outcome yet.",
)

METRICS: Final = (EVENTS, CUTS, OUTCOMES, HANDLE_SECONDS, COMMIT_SECONDS, LINES, STANDING)
