"""The metrics of a recorder, in Prometheus' format."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from schemas.metrics import Metric

ROWS: Final = Metric(
    "opportune_record_rows_total", "counter", ("table",), "Rows that ClickHouse has acknowledged."
)
LETTERS: Final = Metric(
    "opportune_record_dead_letters_total",
    "counter",
    ("reason",),
    "Records that could not become rows; those of dead.letters itself are only counted, and stay there.",
)
INSERT_SECONDS: Final = Metric("opportune_record_insert_seconds", "histogram", (), "One insert of one block.")
LAG_SECONDS: Final = Metric(
    "opportune_record_lag_seconds",
    "gauge",
    (),
    "Now minus the time at which Kafka took the oldest record that is held and not committed; 0: none is.",
)
UNACKED: Final = Metric(
    "opportune_record_unacked_rows", "gauge", (), "Records held in memory, not yet committed."
)
WAITING: Final = Metric(
    "opportune_record_waiting", "gauge", (), "1 while ClickHouse does not take rows and the recorder waits."
)
METRICS: Final = (ROWS, LETTERS, INSERT_SECONDS, LAG_SECONDS, UNACKED, WAITING)

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


class Figures:
    """Counts what a recorder does. One a process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._rows = Counter(ROWS.name, ROWS.doc, ROWS.labels, registry=self._registry)
        self._letters = Counter(LETTERS.name, LETTERS.doc, LETTERS.labels, registry=self._registry)
        self._seconds = Histogram(
            INSERT_SECONDS.name, INSERT_SECONDS.doc, registry=self._registry, buckets=_BUCKETS
        )
        self._lag = Gauge(LAG_SECONDS.name, LAG_SECONDS.doc, registry=self._registry)
        self._unacked = Gauge(UNACKED.name, UNACKED.doc, registry=self._registry)
        self._waiting = Gauge(WAITING.name, WAITING.doc, registry=self._registry)

    def serve(self, port: int, bind: str) -> int:
        """Serve `/metrics`; port 0 takes any free one. Returns the port. Raises OSError if it is taken."""
        server, _ = start_http_server(port, bind, registry=self._registry)
        return int(server.server_port)

    def inserted(self, table: str, rows: int) -> None:
        """So many rows of a table are in."""
        self._rows.labels(table).inc(rows)

    def dead_lettered(self, reason: str) -> None:
        """A record became no row."""
        self._letters.labels(reason).inc()

    def took(self, seconds: float) -> None:
        """An insert was acknowledged after so long."""
        self._seconds.observe(seconds)

    def waiting(self, waits: bool) -> None:
        """Whether ClickHouse keeps the recorder waiting."""
        self._waiting.set(waits)

    def held(self, records: int, oldest: int | None, now: int) -> None:
        """So many records are held; the broker took the oldest at `oldest`, UTC ms."""
        self._unacked.set(records)
        self._lag.set(0 if oldest is None else max(0.0, (now - oldest) / 1000))
