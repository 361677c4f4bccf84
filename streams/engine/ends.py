"""What Kafka holds beyond what a line has, asked by a client of its own: a stuck one would not tell."""

import time
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from streams.engine.kafka import Client

_READ_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1
Place = tuple[str, int]


@dataclass(frozen=True)
class Lag:
    """How far one line is behind."""

    partition: int
    offsets: dict[str, int]  # by topic, beyond the last committed cut
    seconds: float  # age of the oldest record that is here and in no committed cut; 0: there is none


class Ends:
    """The stable ends of source partitions, asked for without waiting. One thread uses it.

    Parameters
    ----------
    every_s
        Seconds from one question to the next; twice as long is an answer waited for.
    """

    def __init__(self, client: Client, every_s: float) -> None:
        self._client = client
        self._every, self._timeout = every_s, 2 * every_s
        self._admin: AdminClient | None = None
        self._asked: dict[Any, Future[Any]] = {}
        self._asked_at = float("-inf")
        self._found: dict[Place, int] = {}
        self._bare: dict[Place, int] = {}
        self._silent: set[Place] = set()

    def ask(self, places: Collection[Place]) -> None:
        """Take in the answers that have come, and ask again when it is time. Does not block."""
        now = time.monotonic()
        if self._asked and all(future.done() for future in self._asked.values()):
            self._take()
        if self._asked or not places or now - self._asked_at < self._every:
            return
        if self._admin is None:
            self._admin = AdminClient(self._client.config())
        self._asked_at, latest = now, OffsetSpec.latest()  # type: ignore[no-untyped-call]
        self._asked = self._admin.list_offsets(
            {TopicPartition(*place): latest for place in places},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=self._timeout,
        )

    def _take(self) -> None:
        found, silent = {}, set()
        for place, future in self._asked.items():
            # Of a broker that stays silent librdkafka tells no error, but an offset below 0.
            end = -1 if future.exception() else int(future.result().offset)
            if end < 0:
                silent.add((place.topic, place.partition))
            else:
                found[place.topic, place.partition] = end
        self._asked, self._found, self._silent = {}, found, silent
        if silent:
            # It would ask with the leader epoch of before: FENCED_LEADER_EPOCH for minutes after an outage.
            self._admin = None
        self._bare = {place: end for place, end in self._bare.items() if place in found}

    def answers(self, partition: int | None) -> bool:
        """Whether Kafka has answered of late: of this partition's topics, or with None of anything."""
        if self._asked and time.monotonic() - self._asked_at > 2 * self._timeout:
            return False
        if partition is None:
            return bool(self._found)
        known = any(p == partition for _, p in self._found)
        return known and all(p != partition for _, p in self._silent)

    def beyond(self, topic: str, partition: int, offset: int) -> int:
        """How many offsets Kafka has from `offset` on; 0 if it is known that no record is among them."""
        end = self._found.get((topic, partition))
        if end is None or self._bare.get((topic, partition)) == end:
            return 0
        return max(0, end - offset)

    def holds(self, topic: str, partition: int, offset: int) -> bool | None:
        """Whether a record stands from `offset` on; offsets may be markers only. None: it cannot be told.

        Blocks for at most `_READ_TIMEOUT_S` or so.
        """
        end = self._found.get((topic, partition))
        deadline = time.monotonic() + _READ_TIMEOUT_S
        reader = self._client.reader()
        try:
            reader.assign([TopicPartition(topic, partition, offset)])
            while time.monotonic() < deadline:
                message = reader.poll(_POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    return True
                if error.code() != KafkaError._PARTITION_EOF:
                    return None
                if end is not None and (message.offset() or 0) < end:
                    continue  # a new leader does not know yet how far its log is stable
                if end is not None:
                    self._bare[topic, partition] = end
                return False
            return None
        finally:
            reader.close()
