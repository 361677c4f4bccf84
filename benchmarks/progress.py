"""How far a consumer group is, asked by a consumer that never joins it.

Not by librdkafka's admin client: it crashes the process where the group's coordinator is not there yet.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.engine.kafka import Client

_TIMEOUT_S = 10.0


class Committed:
    """What a group has committed of topics that begin at offset 0 and hold no transactions."""

    def __init__(self, client: Client, group: str, topics: Sequence[str], partitions: int) -> None:
        self._consumer = Consumer(client.config(group_id=group, enable_auto_commit=False))
        self._places = [TopicPartition(topic, p) for topic in topics for p in range(partitions)]
        self._partitions = partitions

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def __call__(self) -> list[int]:
        """Records by partition, all topics together; none as long as nothing was committed."""
        done = [0] * self._partitions
        try:
            found = self._consumer.committed(self._places, _TIMEOUT_S)
        except KafkaException:
            return done  # the coordinator is not there yet
        for place in found:
            done[place.partition] += max(0, place.offset)
        return done
