"""One transaction per cut: outputs, changelog rows and the journal entry appear together or not at all."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas import topics
from streams.engine.cut import Out
from streams.engine.failpoint import reach
from streams.engine.kafka import Client

_INIT_TIMEOUT_S: Final = 30.0
_COMMIT_TIMEOUT_S: Final = 60.0
_ABORT_TIMEOUT_S: Final = 5.0
# An open transaction holds back every reader of its partitions, so a stuck one is aborted soon.
_TRANSACTION_TIMEOUT_MS: Final = 10_000
_FULL_POLL_S: Final = 0.05
_MESSAGE_MAX_BYTES: Final = 3 * 1024 * 1024


class Fenced(RuntimeError):
    """Another owner has taken the partition over: nothing of this cut is visible. Drop the line."""


class TransactionFailed(RuntimeError):
    """The transaction did not commit, or it is unknown whether it did. End the worker; the journal knows."""


class Transactions:
    """The transactional producer of one owned partition number. Blocking; used off the event loop.

    Creating one fences whoever owned the partition, whatever they have in flight.
    """

    def __init__(self, client: Client, app: str, role: str, partition: int) -> None:
        self._role, self._partition = role, partition
        self._producer = Producer(
            client.config(
                transactional_id=f"{app}-{partition}",
                transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
                compression_type="lz4",
                linger_ms=1,
                queue_buffering_max_messages=1_000_000,
                queue_buffering_max_kbytes=1_048_576,
                message_max_bytes=_MESSAGE_MAX_BYTES,
                partitioner="murmur2_random",
            )
        )
        try:
            # Connected first: the look-up of the coordinator is tried again only every half second.
            self._producer.list_topics(topics.JOURNAL.name, _INIT_TIMEOUT_S)
            self._producer.init_transactions(_INIT_TIMEOUT_S)
        except KafkaException as error:
            raise _translated(error) from error

    def commit(self, outputs: Sequence[Out], changelog: str, rows: Mapping[bytes, bytes | None]) -> None:
        """Produce outputs, and rows to the line's partition of its changelog, in one transaction.

        Raises
        ------
        Fenced
            Another owner has taken over.
        TransactionFailed
            Anything else.
        """
        producer = self._producer
        try:
            producer.begin_transaction()
            reach(self._role, "after_begin")
            for out in outputs:
                self._produce(out)
            reach(self._role, "mid_produce")
            self._produce_rows(changelog, rows)
            reach(self._role, "after_produce")
            self._commit()
        except KafkaException as error:
            raise self._failed(error) from error

    def _produce(self, out: Out) -> None:
        place: Any = {} if out.partition is None else {"partition": out.partition}
        if out.headers:
            place["headers"] = list(out.headers)
        while True:
            try:
                self._producer.produce(out.topic, value=out.value, key=out.key, **place)
                return
            except BufferError:
                self._producer.poll(_FULL_POLL_S)

    def _produce_rows(self, changelog: str, rows: Mapping[bytes, bytes | None]) -> None:
        messages: list[Any] = [{"key": key, "value": row} for key, row in rows.items()]
        while messages:
            self._producer.produce_batch(changelog, messages, partition=self._partition)
            messages = self._refused(messages)

    def _refused(self, messages: list[Any]) -> list[Any]:
        """Those that a batch left out since the queue was full; anything else is an error."""
        again = []
        for message in messages:
            error = message.pop("_error", None)
            if error is not None:
                if error.code() != KafkaError._QUEUE_FULL:
                    raise KafkaException(error)
                again.append(message)
        if again:
            self._producer.poll(_FULL_POLL_S)
        return again

    def _commit(self) -> None:
        deadline = time.monotonic() + _COMMIT_TIMEOUT_S
        while True:
            try:
                self._producer.commit_transaction(max(1.0, deadline - time.monotonic()))
                return
            except KafkaException as error:
                # A retriable failure left the commit under way: asking again resumes it.
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def _failed(self, error: KafkaException) -> Exception:
        """What a failure means: abort, and Kafka tells whether another owner has taken over.

        A zombie that wakes up may first see that its records are too old, or that something was fatal. Where
        the commit is under way, nothing can be aborted, and the failure stands for itself.
        """
        found = _translated(error)
        if isinstance(found, TransactionFailed):
            try:
                self._producer.abort_transaction(_ABORT_TIMEOUT_S)
            except KafkaException as second:
                if isinstance(fenced := _translated(second), Fenced):
                    return fenced
        return found


def _translated(error: KafkaException) -> Fenced | TransactionFailed:
    cause: KafkaError = error.args[0]
    if cause.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED):
        return Fenced(str(cause))
    return TransactionFailed(str(cause))
