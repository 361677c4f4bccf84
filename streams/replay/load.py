"""Events into Kafka: as history with its plan of hourly cuts, or live as they came, on the scaled clock."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from schemas import codec, topics
from schemas.profile import HOUR_MS
from streams.engine.kafka import Client, KafkaUnavailable
from streams.engine.partitioner import partition_of
from streams.replay.completejourney import Produced

Progress = Callable[[int], None]  # told how many more are done
_CHUNK = 20_000
_LOADED = frozenset(topic.name for topic in topics.SOURCES)
_FLUSH_S = 60.0


def producer(client: Client) -> Producer:
    """The producer that the producers' guide recommends: idempotent, and with Java's partitioner."""
    return Producer(
        client.config(
            enable_idempotence=True,
            partitioner="murmur2_random",
            compression_type="lz4",
            linger_ms=20,
            queue_buffering_max_messages=500_000,
        )
    )


@dataclass
class History:
    """Loads events in time order, and tells DECIDE which cuts to make of them.

    A cut of the plan spans one hour; its `now` is the hour's last millisecond.
    """

    client: Client
    partitions: int
    plan_id: str
    _failed: KafkaError | None = None
    _places: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))

    def load(
        self, events: Sequence[Produced], first_hour: int, last_hour: int, progress: Progress
    ) -> list[int]:
        """Produce the events and the plan; returns the plan's end offset per partition.

        Raises `KafkaUnavailable` if any record was not delivered: the plan is not written then.
        """
        sender = producer(self.client)
        hours: dict[tuple[str, int], list[int]] = defaultdict(list)
        for number, event in enumerate(events):
            key = event.key.encode()
            place = (event.topic, partition_of(key, self.partitions))
            hours[place].append(event.at // HOUR_MS)
            self._send(sender, event.topic, key, codec.encode(event.topic, event.fields), place[1])
            if (number + 1) % _CHUNK == 0:
                progress(_CHUNK)
        progress(len(events) % _CHUNK)
        self._flush(sender)
        return self._plan(sender, hours, first_hour, last_hour)

    def _send(self, sender: Producer, topic: str, key: bytes, value: bytes, partition: int) -> None:
        while True:
            try:
                sender.produce(topic, value, key, partition, on_delivery=self._delivered)
                sender.poll(0)
                return
            except BufferError:
                sender.poll(0.1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = error
        else:
            self._places[message.topic() or "", message.partition() or 0].append(message.offset() or 0)

    def _flush(self, sender: Producer) -> None:
        left = sender.flush(_FLUSH_S)
        if self._failed is not None or left:
            raise KafkaUnavailable(
                f"{left} records were not delivered: {self._failed}; load again into a fresh stack"
            )

    def _plan(
        self, sender: Producer, hours: dict[tuple[str, int], list[int]], first_hour: int, last_hour: int
    ) -> list[int]:
        """One planned cut per partition and hour, then the end of the plan."""
        ends: list[int] = []
        for partition in range(self.partitions):
            nexts: dict[int, dict[str, int]] = defaultdict(dict)
            reached: dict[str, int] = {}  # every loaded topic is named from the start, or it would run ahead
            for (topic, of), offsets in self._places.items():
                if of == partition and topic in _LOADED:
                    reached[topic] = offsets[0]
                    for hour, offset in zip(hours[topic, of], offsets, strict=True):
                        nexts[hour][topic] = offset + 1
            for hour in range(first_hour, last_hour):
                reached |= nexts.get(hour, {})
                self._entry(sender, partition, (hour + 1) * HOUR_MS - 1, reached)
            self._entry(sender, partition, None, {})
        self._flush(sender)
        for partition in range(self.partitions):
            ends.append(self._places[topics.PLAN.name, partition][-1] + 1)
        return ends

    def _entry(self, sender: Producer, partition: int, now: int | None, next_offsets: dict[str, int]) -> None:
        entry: dict[str, Any] = {
            "plan_id": self.plan_id,
            "now": now,
            "history": True,
            "next_offsets": next_offsets,
        }
        self._send(sender, topics.PLAN.name, b"", codec.encode(topics.PLAN.name, entry), partition)


def live(
    client: Client,
    events: Sequence[Produced],
    origin: int,
    wall: int,
    speed: float,
    until: int,
    progress: Progress,
) -> int:
    """Produce events when the scaled clock reaches their times; returns how many.

    `origin` is the scaled time (UTC ms) at wall clock `wall`; ends at scaled time `until`, with the events
    that lie before it. Raises `KafkaUnavailable` if any was not delivered.
    """
    sender = producer(client)
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    sent = 0
    while True:
        now = origin + (time.time_ns() / 1e6 - wall) * speed
        due = sent
        while due < len(events) and events[due].at <= min(now, until):
            event = events[due]
            sender.produce(
                event.topic,
                codec.encode(event.topic, event.fields),
                event.key.encode(),
                on_delivery=delivered,
            )
            due += 1
        sender.poll(0.02)
        progress(due - sent)
        sent = due
        if now >= until:
            break
    left = sender.flush(_FLUSH_S)
    if failed or left:
        raise KafkaUnavailable(f"{left + len(failed)} live events were not delivered: {failed[:1]}")
    return sent
