"""`opportune demo`: the whole of it on this machine, from nothing to a report."""

import csv
import shutil
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console

from schemas.settings import Settings
from sinks.vault.sqlite import SqliteVault
from streams import cluster, control
from streams.cli import replay, report, stack
from streams.cli.recipients import import_file
from streams.engine.control import Clock
from streams.engine.kafka import Client
from streams.recording import progress
from streams.replay import completejourney, workers

BEGIN = datetime(2017, 1, 1, tzinfo=UTC)
LIVE_FROM = datetime(2017, 3, 1, 14, tzinfo=UTC)
SPEED = 600.0
_POLL_S = 0.3

# What real mailbox providers answer now and then; the rest is accepted.
_ANSWERS = """\
[[rule]]
answer = "bounce"
at = "rcpt"
share = 0.01
text = "550 5.1.1 no such user here"

[[rule]]
answer = "defer"
share = 0.05
first = 1
text = "451 4.7.1 please try again later"
"""


def demo(
    households: Annotated[int | None, typer.Option(min=1, help="Only the first so many households.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep/--stop", help="Leave servers running, to ask them more.")
    ] = True,
) -> None:
    """Load two months of a grocery's shopping as history, live one minute at 600x with mail, and report.

    Kafka, ClickHouse and a mail sandbox run on this machine; no mail leaves it. It uses its own folder under
    the state folder, made anew each time.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or its workers would go on
    console = Console()
    settings = stack.apart(Settings(), "demo")
    for each in stack.servers(settings):
        each.discard()
    shutil.rmtree(settings.state_dir, ignore_errors=True)
    stack.start(settings, console)
    (settings.state_dir / "sandbox" / "script.toml").write_text(_ANSWERS)
    client = cluster.connect(settings)
    live_to = LIVE_FROM + timedelta(seconds=60 * SPEED)
    _import_people(client, settings, households)
    environment = workers.apart(settings)
    with workers.running(settings, {"decide": 2}, environment) as deciding:
        loaded, decided = replay.history(client, settings, BEGIN, LIVE_FROM, households, deciding, console)
        # Only now, and catching up: on two cores all at once would make history half as fast.
        with workers.running(settings, {"record": 1}, environment) as recording:
            with workers.running(settings, {"deliver": 1}, environment) as delivering:
                lived = replay.lived(
                    client, LIVE_FROM, live_to, households, SPEED, delivering, console, people=False
                )
            with console.status("landing the rest in ClickHouse"):
                progress.await_landed(client, recording.check, lambda: time.sleep(_POLL_S))
    for what, rate in (("loaded", loaded), ("decided", decided), ("lived through", lived)):
        replay.tell(console, what, rate)
    report.show(console, client, settings)
    if keep:
        console.print(
            f"\nThe servers still run. Ask: [bold]OPPORTUNE_STATE_DIR={settings.state_dir} {sys.argv[0]}[/] "
            f"explain RECIPIENT; stop them with [bold]{sys.argv[0]} down[/]."
        )
    else:
        for each in reversed(stack.servers(settings)):
            each.down()


def _import_people(client: Client, settings: Settings, households: int | None) -> None:
    """Give everybody a synthetic address under a reserved domain, at the beginning of time."""
    file = settings.state_dir / "recipients.csv"
    rows = completejourney.contacts(BEGIN, LIVE_FROM + timedelta(seconds=60 * SPEED), households)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    vault = SqliteVault.create(settings.vault_path, settings.vault_key_path)
    origin = round(BEGIN.timestamp() * 1000)
    control.set_clock(client, Clock("scaled", origin, 0, 0.0), "demo", "stands where history begins")
    import_file(file, vault, client, settings)
    vault.close()
    file.unlink()


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(demo)
