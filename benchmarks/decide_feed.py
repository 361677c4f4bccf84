"""Feeds a program under measurement: a backlog that is never dry and never long.

A cut takes of every topic what there is, so of a long backlog the purchases would all be handled first, and
the last half of a run would be clicks alone: half the work. The feed produces purchases and clicks as they
came, and stays at most `lead` events ahead of what the program has done.
"""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, Producer

from benchmarks.decide_events import Record
from streams.engine.kafka import Client

_STEP: Final = 2000
_PAUSE_S: Final = 0.01
_FLUSH_S: Final = 60.0


class FeedFailed(RuntimeError):
    """A record could not be produced."""


def producer(client: Client) -> Producer:
    """A producer of large lz4 batches."""
    return Producer(
        client.config(
            linger_ms=20,
            compression_type="lz4",
            batch_num_messages=20_000,
            batch_size=262_144,
            queue_buffering_max_messages=1_000_000,
            acks="1",
            delivery_report_only_error=True,
        )
    )


def load(client: Client, records: Sequence[Record]) -> None:
    """Produce all records and wait until the broker has them. Raises `FeedFailed`."""
    loading, failed = producer(client), _Failures()
    for start in range(0, len(records), _STEP):
        _produce(loading, records[start : start + _STEP], failed)
    if loading.flush(_FLUSH_S):
        raise FeedFailed("the broker did not take the records in time")
    failed.check()


class _Failures:
    def __init__(self) -> None:
        self.first: KafkaError | None = None

    def __call__(self, error: KafkaError | None, _: Any) -> None:
        self.first = self.first or error

    def check(self) -> None:
        if self.first is not None:
            raise FeedFailed(str(self.first))


def _produce(loading: Producer, records: Sequence[Record], failed: _Failures) -> None:
    for record in records:
        while True:
            try:
                loading.produce(record.topic, record.value, record.key, record.partition, on_delivery=failed)
                break
            except BufferError:
                loading.poll(0.05)
    loading.poll(0)


class Feed:
    """A thread that produces `records` in order, at most `lead` ahead of `done()`; a context manager.

    `done` is asked from the thread, and counts the records that the program under measurement has handled.
    """

    def __init__(self, client: Client, records: Sequence[Record], done: Callable[[], int], lead: int) -> None:
        self._producer, self._records, self._done, self._lead = producer(client), records, done, lead
        self._failed = _Failures()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed")
        self.produced = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._failed.check()

    @property
    def dry(self) -> bool:
        """Whether everything was produced: what follows is no measurement of a fed program."""
        return self.produced == len(self._records)

    def _run(self) -> None:
        while not self._ended.is_set() and not self.dry:
            room = self._done() + self._lead - self.produced
            some = self._records[self.produced : self.produced + min(room, _STEP)] if room > 0 else ()
            _produce(self._producer, some, self._failed)
            self.produced += len(some)
            if not some:
                self._producer.poll(0)
                self._ended.wait(_PAUSE_S)
        self._producer.flush(_FLUSH_S)
