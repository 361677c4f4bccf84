"""The metrics of one worker, in Prometheus' format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from schemas import metrics
from schemas.metrics import Metric
from streams.engine.journal import FATES, Entry

_STANDING = ("pending", "in_flight")
# From a small cut to one that is about to hold up its partition's readers.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts what a worker does. One a process; not shared between workers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._events = self._counter(metrics.EVENTS)
        self._cuts = self._counter(metrics.CUTS)
        self._outcomes = self._counter(metrics.OUTCOMES)
        self._lines = self._gauge(metrics.LINES)
        self._standing = self._gauge(metrics.STANDING)
        self._handle = self._histogram(metrics.HANDLE_SECONDS)
        self._commit = self._histogram(metrics.COMMIT_SECONDS)

    def handled(self, seconds: float) -> None:
        """A transaction's cuts were computed."""
        self._handle.observe(seconds)

    def committed(self, entries: list[Entry], seconds: float) -> None:
        """A transaction was committed."""
        self._commit.observe(seconds)
        self._cuts.inc(len(entries))
        for entry in entries:
            for tally in entry.topics:
                for fate in FATES:
                    self._events.labels(tally.topic, fate).inc(getattr(tally, fate))
            for name, count in entry.figures.items():
                if name in _STANDING:
                    self._standing.labels(name, entry.partition).set(count)
                else:
                    self._outcomes.labels(name).inc(count)

    def serving(self, lines: int) -> None:
        """So many lines are live."""
        self._lines.set(lines)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.doc, metric.labels, registry=self._registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.doc, metric.labels, registry=self._registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(metric.name, metric.doc, metric.labels, registry=self._registry, buckets=_BUCKETS)
