"""The metrics of a recorder, in Prometheus' format."""

from prometheus_client import start_http_server

from schemas import metrics
from streams.metrics import Registry


class Figures:
    """Counts what a recorder does. One a process."""

    def __init__(self) -> None:
        made = self._registry = Registry()
        self._rows = made.counter(metrics.RECORD_ROWS)
        self._letters = made.counter(metrics.RECORD_LETTERS)
        self._seconds = made.histogram(metrics.RECORD_INSERT_SECONDS)
        self._lag = made.gauge(metrics.RECORD_LAG_SECONDS)
        self._unacked = made.gauge(metrics.RECORD_UNACKED)
        self._waiting = made.gauge(metrics.RECORD_WAITING)

    def serve(self, port: int, bind: str) -> int:
        """Serve `/metrics`; port 0 takes any free one. Returns the port. Raises OSError if it is taken."""
        server, _ = start_http_server(port, bind, registry=self._registry.collectors)
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
