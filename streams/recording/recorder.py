"""The recorder's loop: gather records by partition, say what the next batch is, land it, commit.

A batch's end is committed as metadata beside its beginning before anything of it is inserted. So whoever
owns the partition after a crash makes exactly the same batch again, with the same rows under the same token,
and a ClickHouse that had taken it drops it.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas import topics
from schemas.settings import Settings
from streams import events
from streams.engine.cut import Out
from streams.engine.failpoint import reach
from streams.engine.kafka import Client, KafkaUnavailable
from streams.reading import offset_of
from streams.recording.batch import Batch, Unrecorded
from streams.recording.figures import Figures
from streams.recording.identity import topic_ids
from streams.recording.landing import GivenUp, Landing
from streams.recording.rows import RECORDED

GROUP: Final = "opportune-record"
MOST_RECORDS: Final = 20_000
MOST_BYTES: Final = 8 * 1024 * 1024
# All batches together; what librdkafka has fetched ahead comes on top.
_MOST_HELD_BYTES: Final = 32 * 1024 * 1024
_FETCHED_AHEAD_KB: Final = 32 * 1024
_EVERY_S: Final = 1.0
_POLL_S: Final = 0.1
_POLLED: Final = 5_000
# A long round of inserts must not look like a dead consumer: max.poll.interval.ms is 300 s.
_KEEP_ALIVE_S: Final = 20.0
_TIMEOUT_S: Final = 30.0
# What a commit answers to one who is no longer the owner: whoever is makes the same batch again.
_NOT_OURS: Final = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
    }
)

_log = structlog.get_logger()
Place = tuple[str, int]


class RecordsLost(RuntimeError):
    """Retention has deleted records that were never recorded. Somebody must accept that before it goes on."""


@dataclass
class Held:
    """Records of one partition that wait to be a batch; `until` is set where a former owner said its end."""

    topic_id: str
    until: int | None = None
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    ended: int = 0  # the partition's end, once it was reached

    def add(self, message: Message) -> None:
        """Take in the next record."""
        self.messages.append(message)
        self.size += len(message)

    def is_full(self) -> bool:
        """Whether it makes a whole batch."""
        if self.until is not None:
            reached = offset_of(self.messages[-1]) + 1 if self.messages else 0
            return max(reached, self.ended) >= self.until
        return len(self.messages) >= MOST_RECORDS or self.size >= MOST_BYTES

    def take(self, topic: str, partition: int) -> Batch | None:
        """Take the next batch out; None if there is none, or not yet the one that was said."""
        if self.until is None:
            count = min(len(self.messages), MOST_RECORDS)
        elif self.is_full():
            count = sum(offset_of(message) < self.until for message in self.messages)
            self.until = None
        else:
            return None
        taken, self.messages = self.messages[:count], self.messages[count:]
        self.size = sum(map(len, self.messages))
        return Batch(topic, self.topic_id, partition, taken) if taken else None


class Recorder:
    """Reads the recorded topics as a member of the group and lands them. One thread.

    Parameters
    ----------
    produce
        Writes dead letters, and returns once Kafka has them.
    stopping
        Whether it is to end.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        make_landing: Callable[[Callable[[float], None]], Landing],
        produce: Callable[[Sequence[Out]], object],
        figures: Figures,
        stopping: Callable[[], bool],
    ) -> None:
        self._client = client
        self._consumer = Consumer(_config(client, settings))
        self._landing = make_landing(self._wait)
        self._produce = produce
        self._figures = figures
        self._stopping = stopping
        self._held: dict[Place, Held] = {}
        self._in_flight: list[Batch] = []
        self._generation = 0
        self._paused = False
        self._flushed = self._polled = time.monotonic()

    def run(self) -> None:
        """Record until it is to end; then finish, commit and leave.

        Raises
        ------
        RecordsLost
            See there.
        KafkaUnavailable
            Kafka refused to go on.
        EverythingRefused, NewerRow
            See there.
        """
        names = [topic.name for topic in RECORDED]
        self._consumer.subscribe(
            names, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        try:
            while not self._stopping():
                self._take_in(_POLLED, _POLL_S)
                self._flush(self._due())
            self._figures.owns(None)
            self._flush([*self._held])
        except KafkaException as error:
            raise KafkaUnavailable(f"recording: {error}") from error
        finally:
            self._landing.close()
            self._consumer.close()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Begin each partition where its commit says, with the end of the first batch that it names."""
        self._let_go()
        ids = topic_ids(self._client, {partition.topic for partition in partitions})
        for found in consumer.committed(partitions, _TIMEOUT_S):
            if found.error is not None:
                raise KafkaException(found.error)
            self._held[found.topic, found.partition] = Held(ids[found.topic], _until(found.metadata))
            if found.offset < 0:
                found.offset = OFFSET_BEGINNING
            place = next(p for p in partitions if (p.topic, p.partition) == (found.topic, found.partition))
            place.offset = found.offset
        consumer.assign(partitions)
        # librdkafka remembers a pause beyond the assignment: what was paused while ClickHouse was away stayed
        # so for ever after a rebalance, and nothing told.
        consumer.resume(partitions)
        self._paused = False
        self._figures.owns(len(partitions))
        _log.info(events.PARTITIONS_ASSIGNED, partitions=len(partitions), generation=self._generation)

    def _revoked(self, _: Consumer, __: list[TopicPartition]) -> None:
        self._figures.owns(None)
        self._let_go()

    def _let_go(self) -> None:
        """Forget what is held: whoever owns it next reads it again from what is committed."""
        self._generation += 1
        self._held = {}
        self._in_flight = []

    def _take_in(self, most: int, seconds: float) -> None:
        messages = self._consumer.consume(most, seconds)
        self._polled = time.monotonic()
        for message in messages:
            place = str(message.topic()), int(message.partition() or 0)
            held = self._held.get(place)
            error = message.error()
            if error is None:
                if held is not None:
                    held.add(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                if held is not None:
                    held.ended = offset_of(message)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise RecordsLost(
                    f"{place[0]}/{place[1]}: {error.str()}; retention has deleted records before they were "
                    f"recorded. To go on without them, delete the group's offset: kafka-consumer-groups.sh "
                    f"--group {GROUP} --topic {place[0]}:{place[1]} --delete-offsets"
                )
            elif error.fatal():
                raise KafkaException(error)
            else:
                # librdkafka tries again by itself; untold, what it cannot mend would look like a quiet topic.
                _log.warning(
                    events.KAFKA_ERROR,
                    topic=message.topic(),
                    partition=message.partition(),
                    error_kind=error.name(),
                    error=error.str(),
                )
        self._report()

    def _due(self) -> list[Place]:
        """Partitions whose batch is to be landed now: the full ones, and every second all."""
        size = sum(held.size for held in self._held.values())
        if self._polled - self._flushed >= _EVERY_S or size >= _MOST_HELD_BYTES:
            self._flushed = self._polled
            return [*self._held]
        return [place for place, held in self._held.items() if held.is_full()]

    def _flush(self, places: Sequence[Place]) -> None:
        """Land the next batch of each of these partitions, as far as it has one."""
        self._in_flight = [b for place in places if (b := self._held[place].take(*place)) is not None]
        if self._in_flight:
            self._record(self._in_flight)
            self._in_flight = []

    def _record(self, batches: Sequence[Batch]) -> None:
        generation = self._generation
        begun = [_position(batch, batch.first, json.dumps({"until": batch.until})) for batch in batches]
        if not self._commit(begun, generation):
            return
        try:
            for batch in batches:
                self._bury(self._landing.land(batch))
                if time.monotonic() - self._polled > _KEEP_ALIVE_S:
                    self._wait(0)
        except GivenUp:
            if generation == self._generation:
                self._let_go()  # or the records behind would be committed over those of this batch
            return
        if self._paused:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False
        reach("record", "before_commit")
        self._commit([_position(batch, batch.until) for batch in batches], generation)

    def _commit(self, positions: list[TopicPartition], generation: int) -> bool:
        """Commit positions; False if they are no longer ours to commit."""
        if generation != self._generation:
            return False
        try:
            for done in self._consumer.commit(offsets=positions, asynchronous=False) or ():
                if done.error is not None:
                    raise KafkaException(done.error)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_OURS:
                raise
            # The next poll brings the rebalance; until then nothing that is held may go on.
            self._let_go()
            return False
        return True

    def _wait(self, seconds: float) -> None:
        """Stay in the group for so long without taking in anything. Raises `GivenUp`."""
        generation = self._generation
        deadline = time.monotonic() + seconds
        self._consumer.pause(self._consumer.assignment())
        self._paused = True
        while True:
            self._take_in(1, max(0.0, min(_POLL_S, deadline - time.monotonic())))
            if generation != self._generation or self._stopping():
                raise GivenUp
            if time.monotonic() >= deadline:
                return

    def _bury(self, unrecorded: Sequence[Unrecorded]) -> None:
        """Dead-letter records; a dead letter itself stays where it is and is only told of."""
        letters = []
        for each in unrecorded:
            self._figures.dead_lettered(each.reason)
            name, partition, offset = each.message.topic(), each.message.partition(), offset_of(each.message)
            _log.error(
                events.RECORD_REFUSED, topic=name, partition=partition, offset=offset, error_kind=each.reason
            )
            if name != topics.DEAD_LETTERS.name:
                letters.append(each.letter())
        if letters:
            self._produce(letters)

    def _report(self) -> None:
        waiting = [held.messages for held in self._held.values() if held.messages]
        unacked = [*waiting, *(batch.messages for batch in self._in_flight)]
        oldest = min((messages[0].timestamp()[1] for messages in unacked), default=None)
        self._figures.held(sum(map(len, unacked)), oldest, time.time_ns() // 1_000_000)


def _config(client: Client, settings: Settings) -> dict[str, Any]:
    static = {} if settings.worker_id is None else {"group_instance_id": settings.worker_id}
    return client.config(
        group_id=GROUP,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="error",
        enable_partition_eof=True,
        # Eager: what is held when partitions move is a second's worth and is read again, so nothing need
        # survive a rebalance, and each partition begins from what is committed.
        partition_assignment_strategy="range",
        session_timeout_ms=int(settings.session_timeout_s * 1000),
        queued_max_messages_kbytes=_FETCHED_AHEAD_KB,
        **static,
    )


def _position(batch: Batch, offset: int, metadata: str = "") -> TopicPartition:
    return TopicPartition(batch.topic, batch.partition, offset, metadata)


def _until(metadata: Any) -> int | None:
    """End of the batch that a commit names; None if it names none."""
    return int(json.loads(metadata)["until"]) if metadata else None
