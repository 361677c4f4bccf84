"""What the owned partitions hold, read by librdkafka in a thread of its own.

Faust's consumer keeps the membership and is told of every assignment; it fetches nothing.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams import events
from streams.engine.batch import NOTHING, Batch
from streams.engine.kafka import Client, KafkaUnavailable

_log = structlog.get_logger()
_POLL_S: Final = 0.02
_AT_ONCE: Final = 2000
_PARTITION_FETCH_BYTES: Final = 512 * 1024
_FETCH_BYTES: Final = 8 * 1024 * 1024
_QUEUED_KBYTES: Final = 32 * 1024
_MOST_UNTAKEN: Final = 16 * 1024 * 1024  # bytes; more is left to librdkafka, whose queue is bounded too
# Small fetches cost the broker more than what is in them. A record waits for company, a partition that is let
# go on for the fetch under way, but never for longer than this.
_FETCH_WAIT_MS: Final = 20
_FETCH_MIN_BYTES: Final = 20_000
# Records are not there any more, may not be read, or librdkafka would pass over what it cannot read.
_LOST: Final = (
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError._BAD_MSG,
    KafkaError._BAD_COMPRESSION,
    KafkaError._NOT_IMPLEMENTED,
    KafkaError.INVALID_MSG,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)


@dataclass(frozen=True)
class Arrived:
    """Records of one topic's partition; or its end, as it was a moment ago, at offset `end`.

    `reading` is the number that `Feed.begin` gave: what belongs to an older one must not be taken.
    """

    topic: str
    partition: int
    reading: int
    batch: Batch
    end: int | None


class Feed:
    """Reads partitions from given offsets, read committed. Its methods are called from the event loop.

    `on_news` is called in the feed's thread whenever there is something to take.
    """

    def __init__(self, client: Client, on_news: Callable[[], None]) -> None:
        self._client = client
        self._on_news = on_news
        self._arrived: deque[Arrived] = deque()
        self._asked: deque[Callable[[Consumer], None]] = deque()
        self._readings: dict[int, int] = {}  # of the feed's thread
        self._reading = 0
        self._read_bytes = 0  # of the feed's thread
        self._taken_bytes = 0  # of the event loop's
        self._failure: Exception | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin; there is nothing to read yet."""
        self._thread.start()

    def begin(self, partition: int, offsets: Mapping[str, int]) -> int:
        """Read topics' partition from their offsets on; returns the number of this reading."""
        places = [TopicPartition(topic, partition, offset) for topic, offset in offsets.items()]
        self._reading += 1
        reading = self._reading

        def work(consumer: Consumer) -> None:
            consumer.incremental_assign(places)
            consumer.resume(places)  # or what a former reading held would stay held
            self._readings[partition] = reading

        self._asked.append(work)
        return reading

    def end(self, partitions: Iterable[int]) -> None:
        """Read these partitions no more; those that are not read are ignored."""
        listed = set(partitions)

        def work(consumer: Consumer) -> None:
            places = [place for place in consumer.assignment() if place.partition in listed]
            if places:
                consumer.incremental_unassign(places)
            for partition in listed:
                self._readings.pop(partition, None)

        self._asked.append(work)

    def hold(self, places: Iterable[tuple[str, int]]) -> None:
        """Fetch these topics' partitions no more until they are let go on."""
        listed = [TopicPartition(*place) for place in places]
        self._asked.append(lambda consumer: consumer.pause(self._read(listed)))

    def go_on(self, places: Iterable[tuple[str, int]]) -> None:
        """Fetch these topics' partitions again."""
        listed = [TopicPartition(*place) for place in places]
        self._asked.append(lambda consumer: consumer.resume(self._read(listed)))

    def take(self) -> list[Arrived]:
        """What has come since the last call, in order. Raises `KafkaUnavailable` once reading has failed."""
        out = []
        while self._arrived:
            out.append(self._arrived.popleft())
            self._taken_bytes += out[-1].batch.size
        if self._failure is not None:
            raise KafkaUnavailable(f"reading the sources: {self._failure}") from self._failure
        return out

    @property
    def untaken(self) -> int:
        """Bytes that are read and not taken."""
        return self._read_bytes - self._taken_bytes

    def close(self) -> None:
        """Leave Kafka; blocks for a moment."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _read(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return [place for place in places if place.partition in self._readings]

    # In the feed's thread

    def _run(self) -> None:
        consumer = self._client.feeder(
            fetch_message_max_bytes=_PARTITION_FETCH_BYTES,
            fetch_max_bytes=_FETCH_BYTES,
            fetch_wait_max_ms=_FETCH_WAIT_MS,
            fetch_min_bytes=_FETCH_MIN_BYTES,
            queued_max_messages_kbytes=_QUEUED_KBYTES,
        )
        try:
            while not self._ending.is_set():
                while self._asked:
                    self._asked.popleft()(consumer)
                if self.untaken >= _MOST_UNTAKEN:  # the loop is busy, or lets nothing in while members change
                    self._ending.wait(_POLL_S)
                    continue
                first = consumer.poll(_POLL_S)
                if first is not None:
                    self._sort([first, *consumer.consume(_AT_ONCE, 0)])
                    self._on_news()
        except Exception as error:
            self._failure = error
            self._on_news()
        finally:
            consumer.close()

    def _sort(self, messages: list[Message]) -> None:
        failed = [
            error is not None for error in map(Message.error, messages)
        ]  # comparing one with None raises
        places = zip(map(Message.topic, messages), map(Message.partition, messages), failed, strict=True)
        for (topic, partition, bad), run in groupby(zip(places, messages, strict=True), itemgetter(0)):
            listed = [message for _, message in run]
            if bad:
                for message in listed:
                    self._note(message)
            elif topic is not None and partition is not None and partition in self._readings:
                reading, batch = self._readings[partition], Batch.of_messages(listed)
                self._read_bytes += batch.size
                self._arrived.append(Arrived(topic, partition, reading, batch, None))

    def _note(self, message: Message) -> None:
        """An end of a partition, or an error: of those librdkafka mends most by itself."""
        error, topic, partition = message.error(), message.topic(), message.partition()
        if error is None or error.code() in _LOST or error.fatal():
            raise KafkaException(error)
        if error.code() != KafkaError._PARTITION_EOF:
            _log.warning(events.KAFKA_ERROR, error=str(error))
        elif topic is not None and partition in self._readings:
            reading = self._readings[partition]
            self._arrived.append(Arrived(topic, partition, reading, NOTHING, message.offset()))
