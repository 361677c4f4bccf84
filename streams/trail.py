"""Where the audit trail of a recipient is read: in ClickHouse where that answers, else on Kafka."""

from dataclasses import dataclass

from schemas import topics
from schemas.settings import Settings
from sinks.audit import AuditReader
from sinks.clickhouse import migrate
from sinks.clickhouse.client import ClickHouseError
from streams import reading, warehouse
from streams.engine.kafka import Client, read_batches
from streams.engine.partitioner import partition_of
from streams.recording import progress
from streams.warehouse import Warehouse


@dataclass(frozen=True)
class Trail:
    """A reader of the audit trail, and what to say about it: `source` says which, and what it lacks."""

    reader: AuditReader
    source: str


def of_recipient(client: Client, settings: Settings, recipient_id: str) -> Trail:
    """Open the audit trail for one recipient.

    Kafka keeps it for weeks and has what happened just now; ClickHouse keeps it for years, and has what the
    recorder has landed. Raises `KafkaUnavailable`.
    """
    topic, key = topics.AUDIT.name, recipient_id.encode()
    try:
        house = warehouse.connect(settings)
        _check(house)
    except ClickHouseError as error:
        return Trail(reading.audit_reader(client), f"Kafka, since ClickHouse cannot be read: {error}")
    consumer = client.reader()
    try:
        partition = partition_of(key, reading.partition_count(consumer, topic))
        landed = progress.committed(client)[topic, partition]
        if not landed:
            source = "Kafka, since nothing of this recipient's partition has been recorded in ClickHouse yet"
            return Trail(reading.audit_reader(client), source)
        part = reading.parts(consumer, topic)[partition]
        newer = sum(
            message.key() == key
            for batch in read_batches(consumer, topic, partition, max(part.low, landed))
            for message in batch
        )
    finally:
        consumer.close()
    return Trail(house.audit(), _source(house, newer))


def _check(house: Warehouse) -> None:
    connection = house.connect()
    try:
        migrate.check(connection, house.views)
    finally:
        connection.close()


def _source(house: Warehouse, newer: int) -> str:
    source = f"ClickHouse at {house.address.host}:{house.address.port}"
    if not newer:
        return source
    return (
        f"{source}; the recorder is behind: {newer} newer records of this recipient are not there yet "
        "(is `opportune run record` running?)"
    )
