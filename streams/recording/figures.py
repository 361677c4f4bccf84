"""The metrics of a recorder, in Prometheus' format, and its answers to probes."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from schemas import metrics
from streams.engine.health import Health
from streams.metrics import Registry
from streams.web import PortTaken


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""


class Figures:
    """Counts what a recorder does. One a process."""

    def __init__(self) -> None:
        self._turned = time.monotonic()
        self._waits = False
        self._owns: int | None = None
        made = self._registry = Registry()
        self._rows = made.counter(metrics.RECORD_ROWS)
        self._letters = made.counter(metrics.RECORD_LETTERS)
        self._seconds = made.histogram(metrics.RECORD_INSERT_SECONDS)
        self._lag = made.gauge(metrics.RECORD_LAG_SECONDS)
        self._unacked = made.gauge(metrics.RECORD_UNACKED)
        self._waiting = made.gauge(metrics.RECORD_WAITING)

    def serve(self, port: int, bind: str, patience_s: float) -> int:
        """Serve `/metrics` and the probes from a thread; port 0 takes any free one.

        A recorder whose loop does not turn for `patience_s` seconds is taken for dead.

        Returns the port. Raises `PortTaken`.
        """
        figures = make_wsgi_app(self._registry.collectors)

        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path not in ("/livez", "/readyz"):
                found: Iterable[bytes] = figures(environ, start)
                return found
            health = self.live(patience_s) if path == "/livez" else self.ready()
            phrase = "OK" if health.status == 200 else "Service Unavailable"
            start(f"{health.status} {phrase}", [("Content-Type", "application/json")])
            return [json.dumps(health.body()).encode()]

        try:
            server = make_server(bind, port, answer, ThreadingWSGIServer, _Silent)
        except OSError as error:
            raise PortTaken(bind, port, error) from error
        threading.Thread(target=server.serve_forever, name="web", daemon=True).start()
        return int(server.server_port)

    def live(self, patience_s: float) -> Health:
        """Whether the recorder's loop turns; that ClickHouse is away is no reason to restart it."""
        still = time.monotonic() - self._turned
        return Health([f"the loop has not turned for {still:.0f} s"] if still > patience_s else [])

    def ready(self) -> Health:
        """Whether the recorder is a member of its group, and what it takes in lands."""
        why = ["it has no place in its group, or drains"] if self._owns is None else []
        return Health(why + (["ClickHouse takes no rows"] if self._waits else []))

    def owns(self, partitions: int | None) -> None:
        """So many partitions are the recorder's; None while it is no member of its group, or leaves it."""
        self._owns = partitions

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
        self._waits = waits
        self._waiting.set(waits)

    def held(self, records: int, oldest: int | None, now: int) -> None:
        """So many records are held; the broker took the oldest at `oldest`, UTC ms. Told at every turn."""
        self._turned = time.monotonic()
        self._unacked.set(records)
        self._lag.set(0 if oldest is None else max(0.0, (now - oldest) / 1000))
