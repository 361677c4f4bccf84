"""Gather every witness that a deployment has, then compare them."""

from collections.abc import Callable
from pathlib import Path

from schemas.settings import Settings
from sinks.clickhouse import migrate
from streams import facts, warehouse
from streams.engine.kafka import Client
from streams.policy import load_policy
from streams.reconcile import Report, compare
from streams.reconciling.recorded import Recorded, sums_of
from streams.recording import progress
from streams.warehouse import NoClickHouse, Warehouse


def reconcile(client: Client, settings: Settings, on_topic: Callable[[str], object]) -> Report:
    """Read topics, the sandbox's file names and ClickHouse, and compare; a note says what is not there.

    Raises
    ------
    KafkaUnavailable, ClickHouseUnavailable
        Kafka, or a ClickHouse whose address is set, did not answer.
    UnknownSchema, MalformedRecord, NewerRow
        A newer program has written; deploy it.
    PolicyError
        The policy cannot be read.
    """
    notes: list[str] = []
    policy = load_policy(settings)
    folder, house = _mail_folder(settings, notes), _warehouse(settings, notes)
    # Asked before anything is read: what had landed then is on the topics that are read afterwards.
    recorded = None if house is None else Recorded(progress.committed(client))

    read = facts.read(client, on_topic, folder, recorded)
    rows = None
    if house is not None and recorded is not None:
        on_topic("ClickHouse")
        rows = sums_of(house.address, house.views, recorded, read.begins)

    repeatable = {campaign.name for campaign in policy.campaigns if campaign.guarantee == "at_least_once"}
    report = compare(read, repeatable, rows)
    report.notes += notes
    return report


def _mail_folder(settings: Settings, notes: list[str]) -> Path | None:
    folder = settings.state_dir / "sandbox" / "mail"
    if any(each.mail_leaves for each in settings.identities.values()):
        notes.append("messages are not compared: a relay is set, and what it is given does not come back")
    elif not folder.is_dir():
        notes.append(
            "messages are not compared: there is no mail sandbox here, or it was never sent anything"
        )
    else:
        return folder
    return None


def _warehouse(settings: Settings, notes: list[str]) -> Warehouse | None:
    try:
        house = warehouse.connect(settings)
    except NoClickHouse as error:
        if settings.clickhouse is not None:
            raise
        notes.append(f"ClickHouse is not compared: {error}")
        return None
    client = house.connect()
    try:
        migrate.check(client, house.views)
    except migrate.MigrationsPending as error:
        notes.append(f"ClickHouse is not compared, its tables are not those of this program: {error}")
        return None
    finally:
        client.close()
    return house
