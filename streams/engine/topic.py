"""The identity of a topic: one that was deleted and made anew has another."""

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.engine.kafka import Client, KafkaUnavailable


def topic_id(client: Client, topic: str) -> str:
    """Kafka's own id of a topic. Raises `KafkaUnavailable`."""
    admin = AdminClient(client.config())  # by name: what it was asked goes with it when it goes
    try:
        described = admin.describe_topics(TopicCollection([topic]))[topic].result()
    except KafkaException as error:
        raise KafkaUnavailable(f"describing {topic}: {error}") from error
    return str(described.topic_id)
