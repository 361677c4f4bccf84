"""The audit trail read from Kafka, as far back as the topic's retention goes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from confluent_kafka import Message

from schemas import codec, topics

ReadPartition = Callable[[int], Iterator[Sequence[Message]]]


class AuditTopic:
    """The port `sinks.audit.AuditReader` over the topic `audit.records`. Not thread-safe.

    Parameters
    ----------
    read
        Gives every committed record of one partition up to its stable end, in batches.
    partition_of
        The partition on which a key's records stand. DECIDE writes audit to the partition number of the
        cut, and a recipient has a row only where its key belongs, so it is one.
    partitions
        How many the topic has.

    Notes
    -----
    What `read` raises comes through, and so do `MalformedRecord` and `UnknownSchema` of `schemas.codec`:
    DECIDE alone writes the topic, so this program is older than the one that wrote; deploy the newer.
    """

    def __init__(self, read: ReadPartition, partition_of: Callable[[bytes], int], partitions: int) -> None:
        self._read = read
        self._partition_of = partition_of
        self._partitions = partitions

    def of_recipient(self, recipient_id: str) -> Iterator[dict[str, Any]]:
        """See `AuditReader`; reads one partition and decodes what has the recipient's key."""
        key = recipient_id.encode()
        for batch in self._read(self._partition_of(key)):
            for message in batch:
                if message.key() == key:
                    yield _decoded(message)

    def all(self) -> Iterator[dict[str, Any]]:
        """See `AuditReader`; partition by partition."""
        for partition in range(self._partitions):
            for batch in self._read(partition):
                yield from map(_decoded, batch)


def _decoded(message: Message) -> dict[str, Any]:
    value = message.value()
    return codec.decode(topics.AUDIT.name, value if isinstance(value, bytes) else b"")
