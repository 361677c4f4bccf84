"""The metrics of one worker, in Prometheus' format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from schemas import metrics
from schemas.metrics import Metric
from streams.engine.journal import FATES, Entry

_STANDING = ("pending", "in_flight")
# From a small cut to an insert that is about to be given up.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


class Registry:
    """The metrics of one process, made from `schemas.metrics`."""

    def __init__(self) -> None:
        self.collectors = CollectorRegistry()

    def counter(self, metric: Metric) -> Counter:
        """A counter."""
        return Counter(metric.name, metric.doc, metric.labels, registry=self.collectors)

    def gauge(self, metric: Metric) -> Gauge:
        """A gauge."""
        return Gauge(metric.name, metric.doc, metric.labels, registry=self.collectors)

    def histogram(self, metric: Metric) -> Histogram:
        """A histogram of seconds."""
        return Histogram(metric.name, metric.doc, metric.labels, registry=self.collectors, buckets=_BUCKETS)


class Metrics:
    """Counts what a worker does. One a process; not shared between workers."""

    def __init__(self) -> None:
        made = self._registry = Registry()
        self._events = made.counter(metrics.EVENTS)
        self._cuts = made.counter(metrics.CUTS)
        self._outcomes = made.counter(metrics.OUTCOMES)
        self._lines = made.gauge(metrics.LINES)
        self._standing = made.gauge(metrics.STANDING)
        self._handle = made.histogram(metrics.HANDLE_SECONDS)
        self._commit = made.histogram(metrics.COMMIT_SECONDS)

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
        return generate_latest(self._registry.collectors)
