"""Reading whole topics and writing single records outside any cut: what operators' tools are made of."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from schemas import topics
from sinks.audit import AuditReader
from sinks.audit_topic import AuditTopic
from streams.engine.cut import Out
from streams.engine.kafka import Client, KafkaUnavailable, bounds, read_batches
from streams.engine.partitioner import partition_of

_TIMEOUT_S: Final = 30.0
_MESSAGE_MAX_BYTES: Final = 3 * 1024 * 1024
_BY_KEY: Final = -1  # librdkafka's word for: let the partitioner choose


class NoTopic(KafkaUnavailable):
    """A topic is not there. `opportune up` creates all of them; in production a worker does at its start."""


@dataclass(frozen=True)
class Part:
    """One partition of a topic: its first offset and its stable end when it was looked at.

    `low` above zero means that retention has deleted what stood before.
    """

    topic: str
    partition: int
    low: int
    high: int


def partition_count(consumer: Consumer, topic: str) -> int:
    """Return how many partitions a topic has. Raises `NoTopic` or `KafkaUnavailable`."""
    try:
        found = consumer.list_topics(topic, _TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise KafkaUnavailable(f"looking up {topic}: {error}") from error
    if found.error is not None or not found.partitions:
        raise NoTopic(f"there is no topic {topic}; run `opportune up`, or start a worker, which creates it")
    return len(found.partitions)


def parts(consumer: Consumer, topic: str) -> list[Part]:
    """Look at every partition of a topic. Raises `NoTopic` or `KafkaUnavailable`."""
    count = partition_count(consumer, topic)
    return [Part(topic, number, *bounds(consumer, topic, number)) for number in range(count)]


def messages(consumer: Consumer, part: Part) -> Iterator[Message]:
    """Every committed record of a partition up to the end that `part` names. Raises `KafkaUnavailable`."""
    if part.low == part.high:
        return
    for batch in read_batches(consumer, part.topic, part.partition):
        for message in batch:
            if offset_of(message) >= part.high:
                return
            yield message


def offset_of(message: Message) -> int:
    """Offset of a record that was read."""
    return message.offset() or 0


def audit_reader(client: Client) -> AuditReader:
    """Open the audit trail as it stands on Kafka. Raises `NoTopic` or `KafkaUnavailable`."""
    consumer, name = client.reader(), topics.AUDIT.name
    count = partition_count(consumer, name)
    return AuditTopic(
        lambda number: read_batches(consumer, name, number), lambda key: partition_of(key, count), count
    )


def produce(
    client: Client, records: Iterable[Out], on_written: Callable[[], object] = lambda: None
) -> list[int]:
    """Write records one after the other, idempotently, and return the offset of each.

    Blocks until all replicas in sync have every record. `on_written` is called for each that has arrived.

    Raises
    ------
    KafkaUnavailable
        Some record was refused or did not arrive in time. Those before it may have; the message says how
        many did.
    """
    producer = Producer(
        client.config(
            enable_idempotence=True,
            acks="all",
            partitioner="murmur2_random",
            compression_type="lz4",
            message_max_bytes=_MESSAGE_MAX_BYTES,
            message_timeout_ms=int(_TIMEOUT_S * 1000),
        )
    )
    offsets: dict[int, int] = {}
    failed: list[KafkaError] = []
    sent = 0

    def report(place: int) -> Callable[[KafkaError | None, Message], None]:
        def arrived(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)
                return
            offsets[place] = offset_of(message)
            on_written()

        return arrived

    try:
        for out in records:
            _enqueue(producer, out, report(sent))
            sent += 1
            if failed:
                break
        producer.flush(2 * _TIMEOUT_S)
    except KafkaException as error:
        raise KafkaUnavailable(f"writing: {error}; {len(offsets)} records have been written") from error
    if failed or len(offsets) < sent:
        why = failed[0] if failed else "no answer"
        raise KafkaUnavailable(f"writing: {why}; {len(offsets)} of {sent} records have been written")
    return [offsets[place] for place in range(sent)]


def _enqueue(producer: Producer, out: Out, report: Callable[[KafkaError | None, Message], None]) -> None:
    partition = _BY_KEY if out.partition is None else out.partition
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            producer.produce(
                out.topic, out.value, out.key, partition, headers=list(out.headers), on_delivery=report
            )
            producer.poll(0)
            return
        except BufferError:
            if time.monotonic() > deadline:
                raise KafkaUnavailable("writing: Kafka has taken nothing for 30 s") from None
            producer.poll(0.1)
