"""Reading a partition to its end while its leader has just changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from streams.engine import kafka

TOPIC = "journal"
Bounds = tuple[int, int] | int  # the number of an error


def record(offset: int) -> Message:
    return Message(topic=TOPIC, partition=0, offset=offset, value=b"", key=b"")


def end(offset: int) -> Message:
    return Message(topic=TOPIC, partition=0, offset=offset, error=KafkaError(KafkaError._PARTITION_EOF))


class Scripted:
    """A consumer that is answered what is written down."""

    def __init__(self, bounds: Sequence[Bounds], fetches: Sequence[list[Message]] = ()) -> None:
        self._bounds, self._fetches = iter(bounds), iter(fetches)

    def get_watermark_offsets(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        answer = next(self._bounds)
        if isinstance(answer, int):
            raise KafkaException(KafkaError(answer))
        return answer

    def assign(self, partitions: Any) -> None:
        pass

    def consume(self, *args: Any) -> list[Message]:
        return next(self._fetches)


def offsets(consumer: Scripted) -> list[int | None]:
    batches = kafka.read_batches(cast("Consumer", consumer), TOPIC, 0, 0)
    return [message.offset() for batch in batches for message in batch]


def test_the_end_of_a_leader_that_lags_is_not_taken_for_the_end() -> None:
    fetches = [[record(0)], [record(1), end(2)], [], [record(2)], [end(4)]]
    assert offsets(Scripted([(0, 4)], fetches)) == [0, 1, 2]


def test_an_end_that_went_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_TIMEOUT_S", 0.0)
    with pytest.raises(kafka.KafkaUnavailable, match="journal/0 ends before 4"):
        offsets(Scripted([(0, 4)], [[record(0), end(1)], []]))


def test_markers_behind_the_last_record_end_a_read() -> None:
    assert offsets(Scripted([(0, 4)], [[record(0), record(1)], [end(4)]])) == [0, 1]
    assert offsets(Scripted([(0, 4)], [[record(0)], [end(9)]])) == [0]


def test_bounds_are_asked_again_of_a_leader_that_does_not_know_its_end_yet() -> None:
    answers: list[Bounds] = [KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, (2, 7)]
    assert kafka.bounds(cast("Consumer", Scripted(answers)), TOPIC, 0) == (2, 7)


def test_other_errors_are_told_at_once() -> None:
    refused = Scripted([KafkaError.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(kafka.KafkaUnavailable, match="bounds of journal/0"):
        kafka.bounds(cast("Consumer", refused), TOPIC, 0)
