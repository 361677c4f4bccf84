"""Plain confluent-kafka clients: configuration, and reading a partition to its stable end."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from schemas.settings import Settings

_TIMEOUT_S: Final = 30.0
# `consume` waits its whole timeout unless it is full, so it is short; the end-of-partition event ends a read.
_POLL_S: Final = 0.01
_BATCH: Final = 10_000
_LEADER_CHANGES: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,  # the new leader does not know yet how far its log is replicated
    KafkaError.FENCED_LEADER_EPOCH,  # asked with what a broker knew before
    KafkaError._DESTROY_BROKER,  # asked of a broker that has just left
    KafkaError._UNKNOWN_PARTITION,  # of metadata that were asked for while a broker came back
)

_T = TypeVar("_T")


class KafkaUnavailable(RuntimeError):
    """Kafka did not answer, or refused. Check the address and `opportune status`; retry."""


@dataclass(frozen=True)
class Client:
    """Where Kafka is and how to speak to it."""

    brokers: str
    security: dict[str, str]

    @classmethod
    def of(cls, settings: Settings, brokers: str) -> "Client":
        """Client configuration of a deployment."""
        security: dict[str, str] = {"security.protocol": settings.security}
        if settings.security.startswith("SASL"):
            password = settings.sasl_password.get_secret_value() if settings.sasl_password else ""
            security |= {
                "sasl.mechanism": settings.sasl_mechanism,
                "sasl.username": settings.sasl_username or "",
                "sasl.password": password,
            }
        if settings.tls_ca is not None:
            security["ssl.ca.location"] = str(settings.tls_ca)
        return cls(brokers, security)

    def config(self, **more: Any) -> dict[str, Any]:
        """Configuration for a librdkafka client; keyword `a_b` is the property `a.b`."""
        extra = {name.replace("_", "."): value for name, value in more.items()}
        return {"bootstrap.servers": self.brokers, "log_level": 2, **self.security, **extra}

    def reader(self) -> Consumer:
        """A consumer for reading partitions to their ends: by hand, read committed, told of each end."""
        # The end of a partition is told by an empty fetch, which waits this long at the broker.
        return self._consumer(enable_partition_eof=True, fetch_wait_max_ms=10)

    def follower(self) -> Consumer:
        """A consumer for reading what comes, for as long as it comes; by hand, read committed."""
        return self._consumer()

    def feeder(self, **more: Any) -> Consumer:
        """A consumer for reading many partitions as fast as they come; told of each end it reaches."""
        return self._consumer(enable_partition_eof=True, **more)

    def _consumer(self, **more: Any) -> Consumer:
        return Consumer(
            self.config(
                group_id="opportune-reader",
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="error",
                check_crcs=True,
                # By default librdkafka waits a second when its queue was full: a table came at 10,000 rows/s.
                fetch_queue_backoff_ms=5,
                **{"queued_max_messages_kbytes": 16_384, **more},
            )
        )


@dataclass(frozen=True)
class Record:
    """One record of a topic, as far as the engine cares."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def record_of(message: Message) -> Record:
    """The record that a confluent-kafka message holds."""
    headers: Any = message.headers() or ()
    return Record(
        message.offset() or 0,
        message.timestamp()[1],
        bytes_of(message.key()),
        bytes_of(message.value()),
        tuple((name, bytes_of(value) or b"") for name, value in headers),
    )


def bytes_of(part: str | bytes | None) -> bytes | None:
    """A key or value as bytes; confluent-kafka's types allow text, its consumer never gives it."""
    return part.encode() if isinstance(part, str) else part


def bounds(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """First offset and stable end of a partition, asked again while its leader is being found.

    Raises `KafkaUnavailable`.
    """
    place = TopicPartition(topic, partition)
    return _answered(
        f"bounds of {topic}/{partition}",
        lambda: consumer.get_watermark_offsets(place, _TIMEOUT_S, cached=False),
    )


def written_end(client: Client, topic: str, partition: int) -> int:
    """End of a partition, with what is not yet committed. Asks and raises as `bounds`."""
    place, latest = TopicPartition(topic, partition), OffsetSpec.latest()  # type: ignore[no-untyped-call]

    def ask() -> int:
        admin = AdminClient(client.config())  # by name: what it was asked goes with it when it goes
        [asked] = admin.list_offsets(
            {place: latest}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_TIMEOUT_S
        ).values()
        return int(asked.result().offset)

    end = _answered(f"end of {topic}/{partition}", ask)
    if end < 0:  # of a broker that stays silent librdkafka tells no error
        raise KafkaUnavailable(f"end of {topic}/{partition}: no answer")
    return end


def _answered(what: str, ask: Callable[[], _T]) -> _T:
    deadline = math.inf
    while True:
        try:
            return ask()
        except (KafkaException, TypeError) as error:
            # From the first refusal on: the question before it may have waited long for an answer.
            deadline = min(deadline, time.monotonic() + _TIMEOUT_S)
            code = error.args[0].code() if isinstance(error, KafkaException) else None
            if code not in _LEADER_CHANGES or time.monotonic() > deadline:
                raise KafkaUnavailable(f"{what}: {error}") from error
            time.sleep(0.1)


def read_batches(
    consumer: Consumer, topic: str, partition: int, start: int = OFFSET_BEGINNING
) -> Iterator[list[Message]]:
    """Every committed record of one partition from `start` to its stable end as of now, in batches.

    Raises `KafkaUnavailable` on any error; an offset out of range is one, an end that went back another.
    """
    low, end = bounds(consumer, topic, partition)
    if end <= max(low, start):
        return  # asked first, since the end-of-partition event of an empty read may take seconds
    consumer.assign([TopicPartition(topic, partition, start)])
    ended, deadline = False, math.inf
    while not ended:
        found = []
        for message in consumer.consume(_BATCH, _POLL_S):
            error = message.error()
            if error is None:
                found.append(message)
                deadline = math.inf
                ended |= (message.offset() or 0) + 1 >= end
            elif error.code() == KafkaError._PARTITION_EOF:
                # Behind the last record there may be markers. Before `end`, it is the end of a leader that is
                # new and does not know yet how far its log is stable; the real one is told when it does.
                ended |= (message.offset() or 0) >= end
                deadline = time.monotonic() + _TIMEOUT_S
            else:
                raise KafkaUnavailable(f"reading {topic}/{partition}: {error}")
        if found:
            yield found
        elif time.monotonic() > deadline:
            raise KafkaUnavailable(f"{topic}/{partition} ends before {end}, where it ended a moment ago")


def read_all(
    consumer: Consumer, topic: str, partition: int, start: int = OFFSET_BEGINNING
) -> Iterator[Record]:
    """Every committed record of one partition from `start` to its stable end."""
    for batch in read_batches(consumer, topic, partition, start):
        yield from map(record_of, batch)
