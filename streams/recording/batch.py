"""A batch: records of one partition that become rows together, and what could not become any."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Message

from schemas import codec, topics
from streams.engine.cut import Out
from streams.engine.kafka import record_of

# A letter must fit its topic with what is said about it.
_WHOLE_BYTES: Final = 1024 * 1024
_KEPT_BYTES: Final = 64 * 1024
NO_CUT: Final = 0


@dataclass(frozen=True)
class Batch:
    """Records of one partition, at least one, without a gap but for what no reader ever sees."""

    topic: str
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
        """Name under which its rows are inserted."""
        return f"{self.topic}/{self.partition}/{self.first}-{self.until - 1}"


@dataclass(frozen=True)
class Unrecorded:
    """A record that became no row, and why."""

    message: Message
    reason: str
    error: str

    def letter(self) -> Out:
        """Return its dead letter, the same each time; the record is cut off where no letter could hold it."""
        record = record_of(self.message)
        value, error = record.value, self.error
        if value is not None and len(value) > _WHOLE_BYTES:
            digest = hashlib.sha256(value).hexdigest()
            error = f"{error}; too large to keep whole: the first {_KEPT_BYTES} bytes, sha256 of all {digest}"
            value = value[:_KEPT_BYTES]
        fields = {
            "topic": self.message.topic(),
            "partition": self.message.partition(),
            "offset": record.offset,
            "key": record.key,
            "value": value,
            "headers": dict(record.headers),
            "reason": self.reason,
            "error": error,
            "at": record.timestamp,
            "cut": NO_CUT,
        }
        name = topics.DEAD_LETTERS.name
        return Out(name, record.key, codec.encode(name, fields), self.message.partition())


def offset_of(message: Message) -> int:
    """Offset of a record that was read."""
    return message.offset() or 0
