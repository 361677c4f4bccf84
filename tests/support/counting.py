"""One rule for two workers, plain Faust and our engine: count the records of each key, answer every record.

A record's value is its kind. What a worker does with a kind other than `plain` is the disturbance of a test:

- `large`: its answer is larger than an output topic may take.
- `troubled`: with the fault `raise`, handling it fails; with `hang`, it never ends.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError
from pydantic_settings import BaseSettings, SettingsConfigDict

PLAIN: Final = b"plain"
LARGE: Final = b"large"
TROUBLED: Final = b"troubled"
PADDING: Final = random.Random(0).randbytes(4096)  # noqa: S311 - noise, so that no codec makes it small

Way = Literal["each", "batches", "soon", "two_at_once"]
Fault = Literal["", "raise", "hang", "commit_refused"]


class Setup(BaseSettings):
    """What one worker is to do, from its environment."""

    model_config = SettingsConfigDict(env_prefix="COUNTING_", frozen=True)

    brokers: str
    app: str
    source: str
    outputs: str
    changelog: str
    partitions: int
    folder: Path
    instance: str  # static membership: a successor of this name need not wait for the dead one's session
    way: Way = "each"
    fault: Fault = ""
    commit_s: float = 0.3


class Troubled(RuntimeError):
    """The fault `raise` met a troubled record."""


@dataclass(frozen=True, order=True)
class Answer:
    """What became of one record: where it stood, and its key's count with it (0 where nothing counts)."""

    partition: int
    offset: int
    count: int

    def encode(self, kind: bytes) -> bytes:
        """Wire format; larger than it needs to be for a large record."""
        text = f"{self.partition} {self.offset} {self.count} "
        return text.encode() + (PADDING if kind == LARGE else b"")

    @classmethod
    def decode(cls, value: bytes) -> Answer:
        """Read the wire format."""
        partition, offset, count = map(int, value.split(b" ", 3)[:3])
        return cls(partition, offset, count)


def refuse_first_commit() -> None:
    """Answer this process's first commit of offsets as a broker does whose group has just rebalanced."""
    commit: Any = AIOKafkaConsumer.commit
    refused: list[Any] = []

    async def refusing(self: AIOKafkaConsumer, offsets: Any = None) -> None:
        if refused:
            await commit(self, offsets)
            return
        refused.append(offsets)
        print("commit refused", flush=True)
        raise CommitFailedError("the group has already rebalanced")

    AIOKafkaConsumer.commit = refusing
