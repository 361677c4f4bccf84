"""`opportune run`: a worker of a role."""

import signal
import time
from contextlib import suppress
from typing import Annotated, Literal

import typer
from rich.console import Console

from schemas.settings import Settings


def run(
    role: Annotated[
        Literal["decide", "deliver", "record", "all"],
        typer.Argument(help="Which role to run; all: one worker of each, as children of this command."),
    ],
) -> None:
    """Run a worker of a role until it is stopped.

    SIGTERM or Ctrl-C drains it: what is in flight is finished and written down. A second one ends it at once.
    """
    settings = Settings()
    if role == "all":
        _run_all(settings)
    elif role == "record":
        from streams import record  # here, and so below: each role starts with what it needs

        record.run(settings)
    else:
        from streams import worker

        {"decide": worker.run_decide, "deliver": worker.run_deliver}[role](settings)


def _run_all(settings: Settings) -> None:
    from streams.replay import workers

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    roles = {"deliver": 1, "decide": 1, "record": 1}
    console = Console()
    with suppress(KeyboardInterrupt), workers.running(settings, roles) as running:
        console.print(f"One worker each of {', '.join(roles)} runs; their logs: {settings.state_dir}/workers")
        while True:
            running.check()
            time.sleep(0.5)
    console.print("All workers have ended.")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(run)
