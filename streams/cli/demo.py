"""`opportune demo`: the whole of it on this machine, from nothing to a report."""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console

from schemas.settings import Settings
from streams import cluster
from streams.cli import replay, report, stack
from streams.replay import workers

BEGIN = datetime(2017, 1, 1, tzinfo=UTC)
LIVE_FROM = datetime(2017, 3, 1, 14, tzinfo=UTC)
SPEED = 600.0


def demo(
    households: Annotated[int | None, typer.Option(min=1, help="Only the first so many households.")] = None,
    keep: Annotated[bool, typer.Option("--keep/--stop", help="Leave Kafka running, to ask it more.")] = True,
) -> None:
    """Start Kafka, load two months of a grocery's shopping as history, live one minute at 600x, and report.

    It uses its own folder under the state folder, made anew each time.
    """
    console = Console()
    settings = stack.demo_settings(Settings())
    stack.server(settings).down()
    shutil.rmtree(settings.state_dir, ignore_errors=True)
    endpoint = stack.server(settings, console).up()
    console.print(f"Kafka answers at {endpoint}")
    client = cluster.connect(settings)
    cluster.create_topics(client, settings)
    live_to = LIVE_FROM + timedelta(seconds=60 * SPEED)
    with workers.running(settings, {"deliver": 1, "decide": 2, "record": 1}) as running:
        loaded, decided = replay.history(client, settings, BEGIN, LIVE_FROM, households, running, console)
        lived = replay.lived(client, LIVE_FROM, live_to, households, SPEED, running, console, people=False)
    for what, rate in (("loaded", loaded), ("decided", decided), ("lived through", lived)):
        replay.tell(console, what, rate)
    report.show(console, client)
    if keep:
        console.print(
            f"\nKafka still runs. Ask it: [bold]OPPORTUNE_STATE_DIR={settings.state_dir} {sys.argv[0]}[/] "
            "explain RECIPIENT; stop it with [bold]{sys.argv[0]} down[/]."
        )
    else:
        stack.server(settings).down()


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(demo)
