"""The metrics of one worker, in Prometheus' format."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from schemas import metrics
from schemas.metrics import Metric
from streams.engine.ends import Lag
from streams.engine.journal import FATES, Entry
from streams.engine.snapshots import Taken
from streams.engine.watchdog import Waited

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
        self._lag_offsets = made.gauge(metrics.LAG_OFFSETS)
        self._lag_seconds = made.gauge(metrics.LAG_SECONDS)
        self._waiting = made.gauge(metrics.WAITING_SECONDS)
        self._snapshot_seconds = made.gauge(metrics.SNAPSHOT_SECONDS)
        self._snapshot_bytes = made.gauge(metrics.SNAPSHOT_BYTES)
        self._snapshot_time = made.gauge(metrics.SNAPSHOT_TIME)
        self._lane_waiting = made.gauge(metrics.LANE_WAITING)
        self._lane_rate = made.gauge(metrics.LANE_RATE)
        self._handle = made.histogram(metrics.HANDLE_SECONDS)
        self._commit = made.histogram(metrics.COMMIT_SECONDS)

    def handled(self, seconds: float) -> None:
        """A turn's cuts were computed."""
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
                if name == "lanes":
                    self._paced(count, entry.now)
                elif name in _STANDING:
                    self._standing.labels(name, entry.partition).set(count)
                else:
                    self._outcomes.labels(name).inc(count)

    def _paced(self, lanes: Sequence[Mapping[str, Any]], now: int) -> None:
        for lane in lanes:
            name = lane["lane"]
            self._lane_waiting.labels(name).set(lane["waiting"])
            self._lane_rate.labels(name).set(0 if lane["stopped_until"] > now else lane["rate"])

    def serving(self, lines: int) -> None:
        """So many lines are live."""
        self._lines.set(lines)

    def behind(self, lags: Sequence[Lag], waits: Sequence[Waited]) -> None:
        """So far are the lines behind, and so long has who waits waited; longest first."""
        for gauge in (self._lag_offsets, self._lag_seconds, self._waiting):
            gauge.clear()  # of lines that have left
        for lag in lags:
            self._lag_seconds.labels(lag.partition).set(lag.seconds)
            self._waiting.labels(lag.partition).set(0)
            for topic, offsets in lag.offsets.items():
                self._lag_offsets.labels(topic, lag.partition).set(offsets)
        for waited in reversed(waits):
            partition = waited.wait.partition
            self._waiting.labels("" if partition is None else partition).set(waited.seconds)

    def snapshot(self, partition: int, taken: Taken | None) -> None:
        """A partition's newest snapshot is this one; None: the partition has left."""
        gauges = self._snapshot_seconds, self._snapshot_bytes, self._snapshot_time
        if taken is None:
            for gauge in gauges:
                with suppress(KeyError):
                    gauge.remove(partition)
            return
        for gauge, value in zip(gauges, (taken.seconds, taken.size, taken.taken_at / 1000), strict=True):
            gauge.labels(partition).set(value)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry.collectors)
