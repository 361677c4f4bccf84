"""How far the recorder is behind the topics."""

from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams import reading
from streams.engine.kafka import Client, KafkaUnavailable, read_all
from streams.recording.recorder import GROUP
from streams.recording.rows import RECORDED

_TIMEOUT_S: Final = 30.0


def committed(client: Client) -> dict[tuple[str, int], int]:
    """Up to which offset each partition has landed; 0 where nothing has. Raises `KafkaUnavailable`."""
    reader = client.reader()
    group = Consumer(client.config(group_id=GROUP, enable_auto_commit=False))
    try:
        places = [
            TopicPartition(topic.name, part.partition)
            for topic in RECORDED
            for part in reading.parts(reader, topic.name)
        ]
        found = group.committed(places, _TIMEOUT_S)
    except KafkaException as error:
        raise KafkaUnavailable(f"asking how far {GROUP} is: {error}") from error
    finally:
        reader.close()
        group.close()
    return {(place.topic, place.partition): max(0, place.offset) for place in found}


def behind(client: Client) -> int:
    """How many records have not landed yet. Offsets are not subtracted: markers stand between records."""
    landed, reader = committed(client), client.reader()
    try:
        return sum(
            1
            for topic in RECORDED
            for part in reading.parts(reader, topic.name)
            if landed[topic.name, part.partition] < part.high
            for _ in read_all(
                reader, topic.name, part.partition, max(part.low, landed[topic.name, part.partition])
            )
        )
    finally:
        reader.close()


def await_landed(client: Client, check: Callable[[], None], wait: Callable[[], None]) -> None:
    """Wait until everything has landed; `check` raises if it cannot, `wait` passes some time."""
    while behind(client):
        check()
        wait()
