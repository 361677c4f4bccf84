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
    "opportune_handle_seconds", "histogram", (), "Computing of a turn's cuts, in the event loop."
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
LANE_WAITING: Final = Metric(
    "opportune_lane_waiting", "gauge", ("lane",), "DELIVER: messages that wait in a lane."
)
LANE_RATE: Final = Metric(
    "opportune_lane_rate",
    "gauge",
    ("lane",),
    "DELIVER: messages a second on a lane; 0: it stopped.",
)
LAG_OFFSETS: Final = Metric(
    "opportune_lag_offsets",
    "gauge",
    ("topic", "partition"),
    "Offsets that Kafka has beyond the last committed cut. Transaction markers count, until it is known that "
    "nothing else is there.",
)
LAG_SECONDS: Final = Metric(
    "opportune_lag_seconds",
    "gauge",
    ("partition",),
    "Now minus the time at which Kafka took the oldest record that is fetched and in no committed cut; 0: "
    "none is.",
)
WAITING_SECONDS: Final = Metric(
    "opportune_waiting_seconds",
    "gauge",
    ("partition",),
    "For how long a partition has waited without a step forward; 0: it has nothing to do. Partition empty: "
    "the worker itself. At `watchdog` the worker ends.",
)

SNAPSHOT_SECONDS: Final = Metric(
    "opportune_snapshot_seconds",
    "gauge",
    ("partition",),
    "What it took to write, or at a take-over to read, the newest snapshot of a partition.",
)
SNAPSHOT_BYTES: Final = Metric(
    "opportune_snapshot_bytes", "gauge", ("partition",), "Size of the newest snapshot of a partition."
)
SNAPSHOT_TIME: Final = Metric(
    "opportune_snapshot_timestamp_seconds",
    "gauge",
    ("partition",),
    "When the newest snapshot of a partition was taken, Unix time; its age is time() minus this.",
)

RECORD_ROWS: Final = Metric(
    "opportune_record_rows_total", "counter", ("table",), "Rows that ClickHouse has acknowledged."
)
RECORD_LETTERS: Final = Metric(
    "opportune_record_dead_letters_total",
    "counter",
    ("reason",),
    "Records that could not become rows; those of dead.letters itself are only counted, and stay there.",
)
RECORD_INSERT_SECONDS: Final = Metric(
    "opportune_record_insert_seconds", "histogram", (), "One insert of one block."
)
RECORD_LAG_SECONDS: Final = Metric(
    "opportune_record_lag_seconds",
    "gauge",
    (),
    "Now minus the time at which Kafka took the oldest record that is held and not committed; 0: none is.",
)
RECORD_UNACKED: Final = Metric(
    "opportune_record_unacked_rows", "gauge", (), "Records held in memory, not yet committed."
)
RECORD_WAITING: Final = Metric(
    "opportune_record_waiting", "gauge", (), "1 while ClickHouse does not take rows and the recorder waits."
)

METRICS: Final = (
    EVENTS,
    CUTS,
    OUTCOMES,
    HANDLE_SECONDS,
    COMMIT_SECONDS,
    LINES,
    STANDING,
    LAG_OFFSETS,
    LAG_SECONDS,
    WAITING_SECONDS,
    SNAPSHOT_SECONDS,
    SNAPSHOT_BYTES,
    SNAPSHOT_TIME,
    RECORD_ROWS,
    RECORD_LETTERS,
    RECORD_INSERT_SECONDS,
    RECORD_LAG_SECONDS,
    RECORD_UNACKED,
    RECORD_WAITING,
)
