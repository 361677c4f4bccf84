"""`opportune lanes publish`: decisions that know which hours have no room any more."""

import time
from typing import Annotated, Final

import typer

from schemas import policy_files
from schemas.policy import PolicyError
from schemas.settings import Settings
from schemas.units import Milliseconds
from sinks.clickhouse.client import ClickHouseError
from streams import cluster, lane_room, lane_standings, warehouse
from streams import control as changing
from streams.cli.control import full_hours
from streams.cli.lanes import app
from streams.engine.kafka import Client, KafkaUnavailable
from streams.lane_room import TrailBehind
from streams.policy import policy_folder
from streams.warehouse import Warehouse

_WHO: Final = "lanes publish"


def publish(
    every: Annotated[
        str | None,
        typer.Option(
            help='Go on, and look again so often, as "5 min". Default: look once.', show_default=False
        ),
    ] = None,
) -> None:
    """Tell decisions which of the next 48 hours have no room, so that they choose among the others.

    What is scheduled for each mailbox provider and hour and not released yet (from ClickHouse), behind what
    waits in the provider's lanes, is held against how fast those go: by their average rate of the last day,
    less the reserve, what their stops leave, and the days of a warm-up. Where the set of full hours has
    changed, it is written to control, and decisions are made by it from the next cut of each partition on.
    Messages that are transactional are not kept from full hours. With --every, what cannot be read is told,
    and asked again the next time: Kafka, ClickHouse, one that is over 10 min behind the other, or policy
    files. Meanwhile the hours last told hold.
    """
    settings, pause = Settings(), None if every is None else _span(every)
    house, client = warehouse.connect(settings), cluster.connect(settings)
    while True:
        try:
            _look(settings, client, house)
        except (ClickHouseError, KafkaUnavailable, TrailBehind, PolicyError) as error:
            if pause is None:
                raise
            typer.echo(f"not looked: {error}", err=True)
        if pause is None:
            return
        time.sleep(pause)


def _span(every: str) -> float:
    """Seconds of a span. Raises BadParameter."""
    try:
        span = int(Milliseconds.parse(every)) / 1000
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None
    if span < 1:
        raise typer.BadParameter(
            'look once a second at most; write for example "5 min"', param_hint="--every"
        )
    return span


def _look(settings: Settings, client: Client, house: Warehouse) -> None:
    folder = policy_folder(settings)
    lanes, campaigns = policy_files.load_lanes(folder), policy_files.load(folder).campaigns
    control, now = changing.current(client), changing.now(client)
    longest = max((int(campaign.expiry) for campaign in campaigns), default=0)
    standings = lane_standings.standings(client, settings.partitions, lanes, control, now)
    lane_room.check_fresh(house, standings)
    change = lane_room.change(
        lane_room.planned(house, now, longest),
        standings,
        lane_room.rates(house, now),
        lanes,
        now,
        control.full,
    )
    if change is None:
        typer.echo(f"full hours: {full_hours(control.full)}, as before")
        return
    version = changing.set_full(client, change, _WHO, "what is planned, what waits, and the lanes' rates")
    typer.echo(f"full hours: {full_hours(change.full)}, from control version {version} on")


def register(_: typer.Typer) -> None:
    """Add this command to `opportune lanes`."""
    app.command()(publish)
