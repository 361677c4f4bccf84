from __future__ import annotations

import pytest
from confluent_kafka import Message

from schemas import codec, metrics, topics
from sinks.clickhouse.client import Address, ClickHouse
from streams.recording.batch import Batch
from streams.recording.figures import Figures
from streams.recording.landing import GivenUp, Landing
from tests.support.record import delivery, unnamed


def test_a_recorder_that_gives_up_waiting_for_clickhouse_no_longer_says_that_it_waits() -> None:
    name, figures = topics.AUDIT.name, Figures()
    value = codec.encode(name, delivery(0, "a"))
    said = []

    def waiting() -> float | None:
        return figures._registry.collectors.get_sample_value(metrics.RECORD_WAITING.name)

    def give_up(_: float) -> None:
        said.append(waiting())
        raise GivenUp

    nobody = Address("127.0.0.1", 1)
    landing = Landing(lambda: ClickHouse(nobody), "stored", unnamed, figures, give_up)
    with pytest.raises(GivenUp):
        landing.land(Batch(name, "id", 0, [Message(topic=name, partition=0, offset=0, value=value)]))
    assert said == [1]
    assert waiting() == 0
