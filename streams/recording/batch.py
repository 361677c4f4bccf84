"""A batch: records of one partition that become rows together, and what could not become any."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Message

from schemas.reasons import DeadLetterReason
from streams.agents import letters
from streams.engine.cut import Out
from streams.engine.kafka import record_of
from streams.reading import offset_of

_NO_CUT: Final = 0


@dataclass(frozen=True)
class Batch:
    """Records of one partition, at least one, without a gap but for what no reader ever sees.

    `topic_id` is Kafka's own name of the topic, which another of the same name does not get.
    """

    topic: str
    topic_id: str
    partition: int
    messages: Sequence[Message]

    @property
    def first(self) -> int:
        """Offset of the first record."""
        return offset_of(self.messages[0])

    @property
    def until(self) -> int:
        """Offset behind the last record."""
        return offset_of(self.messages[-1]) + 1

    @property
    def origin(self) -> str:
        """Name under which its rows are inserted.

        The topic's id is in it, since offsets begin again in a topic that was deleted and made anew: rows of
        0-99 there would be dropped as those that ClickHouse has already.
        """
        return f"{self.topic}/{self.topic_id}/{self.partition}/{self.first}-{self.until - 1}"


@dataclass(frozen=True)
class Unrecorded:
    """A record that became no row, and why."""

    message: Message
    reason: DeadLetterReason
    error: str

    def letter(self) -> Out:
        """Return its dead letter, the same each time."""
        record, partition = record_of(self.message), self.message.partition() or 0
        topic, at = str(self.message.topic()), record.timestamp
        return letters.of_record(topic, partition, record, self.reason, self.error, at, _NO_CUT)
