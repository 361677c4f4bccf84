"""Follow mode: cuts that are told instead of made, one partition of `decide.plan`."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from schemas import codec, topics
from streams.engine.kafka import Client, KafkaUnavailable, bounds, bytes_of


@dataclass(frozen=True)
class PlannedCut:
    """One entry: a cut to be made, or with `now` None the end of its plan."""

    offset: int
    plan_id: str
    now: int | None
    history: bool
    next_offsets: Mapping[str, int]


class PlanReader:
    """Entries of one partition, in order, from the one before an offset on: it may be the end of a plan."""

    def __init__(self, client: Client, partition: int, offset: int) -> None:
        self._consumer: Consumer = client.follower()
        # Retention may have taken the entry before: then no plan that is asked for ended there.
        low, _ = bounds(self._consumer, topics.PLAN.name, partition)
        start = max(offset - 1, low)
        self._consumer.assign([TopicPartition(topics.PLAN.name, partition, start)])
        self._ahead: deque[PlannedCut] = deque()

    def peek(self) -> PlannedCut | None:
        """Return the next entry, or None where none has come yet. Raises `KafkaUnavailable`."""
        if not self._ahead:
            for message in self._consumer.consume(1000, 0.0):
                error = message.error()
                if error is None:
                    self._ahead.append(_planned(message.offset() or 0, bytes_of(message.value()) or b""))
                else:
                    raise KafkaUnavailable(f"reading {topics.PLAN.name}: {error}")
        return self._ahead[0] if self._ahead else None

    def advance(self) -> None:
        """Take the entry that `peek` showed."""
        self._ahead.popleft()

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def _planned(offset: int, value: bytes) -> PlannedCut:
    fields = codec.decode(topics.PLAN.name, value)
    now = None if fields["now"] is None else codec.millis(fields["now"])
    return PlannedCut(offset, fields["plan_id"], now, fields["history"], fields["next_offsets"])
