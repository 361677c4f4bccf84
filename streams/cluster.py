"""The Kafka that a deployment uses: its address, and its topics."""

from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from infra.embedded import KafkaServer
from schemas.settings import Settings
from schemas.topics import TOPICS
from streams.engine.kafka import Client, KafkaUnavailable

_TIMEOUT_S = 30.0
_ASK_S = 5.0


class NoKafka(KafkaUnavailable):
    """No address is set and none runs on this machine."""


class PartitionsDiffer(ValueError):
    """A topic has other partitions than the settings say. Partitions are permanent: mend the settings."""


def connect(settings: Settings) -> Client:
    """Client of the set brokers, else of the Kafka that `opportune up` started. Raises `NoKafka`."""
    if settings.brokers is not None:
        return Client.of(settings, settings.brokers)
    status = KafkaServer(settings.state_dir, settings.cache_dir / "jars").status()
    if status.health != "ready" or status.endpoint is None:
        raise NoKafka(
            f"no Kafka: the one of {Path(settings.state_dir)} is {status.health}. "
            "Run `opportune up`, or set brokers (OPPORTUNE_BROKERS=host:port)."
        )
    return Client.of(settings, str(status.endpoint))


def ask(settings: Settings) -> None:
    """Ask the set brokers whether they are there. Raises `KafkaUnavailable`."""
    try:
        AdminClient(connect(settings).config()).list_topics(timeout=_ASK_S)
    except KafkaException as error:
        raise KafkaUnavailable(f"no answer within {_ASK_S:g} s: {error.args[0].str()}") from error


def create_topics(client: Client, settings: Settings) -> list[str]:
    """Create the topics that are missing; returns their names.

    Raises
    ------
    PartitionsDiffer
        A keyed topic exists with another number of partitions.
    KafkaUnavailable
        Kafka did not answer or refused.
    """
    admin = AdminClient(client.config())
    try:
        existing = admin.list_topics(timeout=_TIMEOUT_S).topics
    except KafkaException as error:
        raise KafkaUnavailable(f"listing topics: {error}") from error
    missing = []
    for topic in TOPICS:
        wanted = topic.partitions or settings.partitions
        found = existing.get(topic.name)
        if found is None:
            missing.append(NewTopic(topic.name, wanted, settings.replication, config=topic.config()))
        elif len(found.partitions) != wanted:
            raise PartitionsDiffer(
                f"{topic.name} has {len(found.partitions)} partitions, the settings say {wanted}; "
                f"set partitions = {len(found.partitions)}"
            )
    futures = admin.create_topics(missing, operation_timeout=_TIMEOUT_S) if missing else {}
    for name, future in futures.items():
        try:
            future.result()
        except KafkaException as error:
            raise KafkaUnavailable(f"creating {name}: {error}") from error
    return sorted(futures)
