"""Which topic it is that has a name today."""

from collections.abc import Collection
from typing import Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.engine.kafka import Client, KafkaUnavailable

_TIMEOUT_S: Final = 30.0


def topic_ids(client: Client, names: Collection[str]) -> dict[str, str]:
    """Kafka's id of each topic by name: it outlives restarts, and no two topics ever have the same.

    Raises `KafkaUnavailable`, also where a topic is not there.
    """
    if not names:
        return {}
    admin = AdminClient(client.config())
    found = admin.describe_topics(TopicCollection([*names]), request_timeout=_TIMEOUT_S)
    try:
        return {name: str(found[name].result().topic_id) for name in names}
    except KafkaException as error:
        raise KafkaUnavailable(f"asking for the ids of topics: {error}") from error
