"""Open loops: events come at their rate whatever the line does; what becomes of them is read as it comes."""

import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Final

from confluent_kafka import TopicPartition

from benchmarks import rig
from benchmarks.decide_events import Record
from benchmarks.decide_feed import producer
from benchmarks.progress import Committed
from benchmarks.rig import Bench, PeerFailed
from schemas import topics
from streams.engine.kafka import Client, read_batches

_PATIENCE_S: Final = 90.0
_STEP: Final = 200
_QUIET_S: Final = 2.0  # after the last record, nothing more is expected
Place = tuple[str, int, int]  # topic, partition, offset


class Reader:
    """A process that reads a topic's records as they become readable, and notes when (UTC s).

    A process: beside the producer's loop, a thread would wait for the interpreter, and measure that.
    """

    def __init__(self, client: Client, topic: str) -> None:
        context = get_context("spawn")  # librdkafka does not survive a fork
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_read, args=(client, topic, theirs), daemon=True)
        self._process.start()
        self._ours.recv()  # it reads

    def found(self) -> list[tuple[float, bytes]]:
        """End it when nothing has come for a while; every record's moment and value."""
        self._ours.send(None)
        found: list[tuple[float, bytes]] = self._ours.recv()
        self._process.join()
        return found


def _read(client: Client, topic: str, theirs: Connection) -> None:
    consumer = client.follower()
    consumer.assign([TopicPartition(topic, p, 0) for p in range(rig.PARTITIONS)])
    found: list[tuple[float, bytes]] = []
    theirs.send(None)
    latest, ending = time.time(), False
    while not ending or time.time() - latest < _QUIET_S:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            latest = time.time()
            found.append((latest, bytes(message.value() or b"")))
        elif not ending:
            ending = theirs.poll()
    consumer.close()
    theirs.send(found)


def await_known(bench: Bench, group: str) -> None:
    """Wait until a group has read all consent. Raises PeerFailed if it does not in time."""
    ends = bench.ends(topics.CONSENT.name)
    deadline = time.monotonic() + _PATIENCE_S
    with Committed(bench.client, group, [topics.CONSENT.name], rig.PARTITIONS) as learnt:
        while any(done < end for done, end in zip(learnt(), ends, strict=True)):
            if time.monotonic() > deadline:
                raise PeerFailed("the worker did not learn who everybody is in time")
            time.sleep(0.2)


def offer(bench: Bench, behaviour: Sequence[Record], rate: float, seconds: float) -> tuple[float, float]:
    """Produce at a rate for so many seconds; returns when it began, UTC s, and the rate that was reached."""
    offering = producer(bench.client)
    began, sent = time.time(), 0
    last = min(len(behaviour), int(rate * seconds))
    while sent < last:
        due = min(last, int((time.time() - began) * rate), sent + _STEP)
        for record in behaviour[sent:due]:
            offering.produce(record.topic, record.value, record.key, record.partition)
        offering.poll(0)
        if due - sent < _STEP:
            time.sleep(0.001)
        sent = due
    reached = sent / (time.time() - began)
    offering.flush(_PATIENCE_S)
    return began, reached


def appended(bench: Bench, topic: str) -> Iterator[tuple[Place, float]]:
    """When the broker appended each record of a topic, UTC s."""
    consumer = bench.client.reader()
    for partition in range(rig.PARTITIONS):
        for batch in read_batches(consumer, topic, partition):
            for message in batch:
                place = (topic, partition, message.offset() or 0)
                yield place, message.timestamp()[1] / 1000
    consumer.close()
