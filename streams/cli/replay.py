"""`opportune replay`: real behaviour from a public data set, as history or live."""

import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from schemas.settings import Settings
from streams import cluster
from streams.cli.control import parse_speed
from streams.engine.kafka import Client
from streams.replay import completejourney, session, workers
from streams.replay.session import Rate


class DataSet(StrEnum):
    """Data sets that can be replayed."""

    COMPLETEJOURNEY = "completejourney"


def replay(
    data_set: Annotated[
        DataSet, typer.Argument(help="completejourney: a year of 2,469 households at a grocery, 2017.")
    ],
    start: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Begin, UTC.")
    ] = datetime(2017, 1, 1),
    end: Annotated[
        datetime, typer.Option("--to", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="End, not included, UTC.")
    ] = datetime(2018, 1, 2),
    households: Annotated[int | None, typer.Option(min=1, help="Only the first so many households.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Live through it on the scaled clock instead of loading history.")
    ] = False,
    speed: Annotated[str, typer.Option(help="With --live: how much faster than the wall clock.")] = "600x",
    worker_count: Annotated[
        int,
        typer.Option("--workers", min=0, help="Workers to run meanwhile if none runs; 0: wait for yours."),
    ] = 2,
) -> None:
    """Turn a data set into events with their true times, and let DECIDE follow them.

    History is loaded with its plan: DECIDE makes one cut an hour, and its commands are marked history, so
    that nothing is ever sent for them. With --live the stretch is lived through: the clock of every role
    runs --speed times faster, events come as they came then, and the clock stops at the end.

    Consent, mailbox providers and withdrawals are not in the data: they are made up, the same in every run.
    """
    console, settings = Console(), Settings()
    client = cluster.connect(settings)
    cluster.create_topics(client, settings)
    begin, until = start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
    count = 0 if session.workers_running(client) else worker_count
    with workers.running(settings, {"decide": count}) as running:
        if live:
            tell(
                console,
                "lived through",
                lived(client, begin, until, households, parse_speed(speed), running, console),
            )
            return
        loaded, decided = history(client, settings, begin, until, households, running, console)
    tell(console, "loaded", loaded)
    tell(console, "decided", decided)


def history(
    client: Client,
    settings: Settings,
    start: datetime,
    end: datetime,
    households: int | None,
    running: workers.Workers,
    console: Console,
) -> tuple[Rate, Rate]:
    """Load a stretch as history and wait until DECIDE has followed it, with progress bars."""
    with console.status("reading the data set"):
        events = completejourney.people(start, end, households) + completejourney.events(
            start, end, households
        )
    with bars(console) as progress:
        load = progress.add_task("loading history", total=len(events))
        decide = progress.add_task("deciding", total=len(events))
        loaded, ends = session.load_history(
            client, settings.partitions, events, start, end, lambda n: progress.advance(load, n)
        )
        decided = session.follow(
            client, ends, len(events), running.check, lambda n: progress.advance(decide, n)
        )
    return loaded, decided


def lived(
    client: Client,
    start: datetime,
    end: datetime,
    households: int | None,
    speed: float,
    running: workers.Workers,
    console: Console,
    people: bool = True,
) -> Rate:
    """Live through a stretch, with a progress bar. `people`: give consent and attributes at its start."""
    events = completejourney.people(start, end, households) if people else []
    events += completejourney.events(start, end, households)
    with bars(console) as progress:
        task: TaskID = progress.add_task(f"living at {speed:g}x", total=len(events))

        def advance(n: int) -> None:
            running.check()
            progress.advance(task, n)

        return session.live(client, events, start, end, speed, advance)


def bars(console: Console, unit: str = "events") -> Progress:
    """Progress bars of long work."""
    return Progress(
        TextColumn("{task.description:18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=console,
        disable=bool(os.environ.get("CI")),
    )


def tell(console: Console, what: str, rate: Rate) -> None:
    """Say how fast it went."""
    console.print(
        f"{what}: {rate.events:,} events in {rate.seconds:.1f} s, [bold]{rate.per_second:,.0f} events/s[/]"
    )


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(replay)
