"""`opportune up | down | status | run`: what runs on this machine."""

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from infra.embedded import EmbeddedError, KafkaServer
from schemas.policy import PolicyError
from schemas.settings import Settings
from streams import cluster
from streams.dead_letters import NoLetter
from streams.engine.kafka import KafkaUnavailable
from streams.engine.sealed import NotReplayable
from streams.explain import UnknownRecipient
from streams.replay.session import TimeHasPassed
from streams.replay.workers import WorkerDied

# Errors that a user can act on; everything else is a bug and shows its traceback.
EXPECTED = (
    EmbeddedError,
    KafkaUnavailable,
    PolicyError,
    cluster.PartitionsDiffer,
    NoLetter,
    NotReplayable,
    UnknownRecipient,
    TimeHasPassed,
    WorkerDied,
)


def server(settings: Settings, console: Console | None = None) -> KafkaServer:
    """Return this machine's Kafka under the settings' state folder."""
    if console is None:
        return KafkaServer(settings.state_dir, settings.cache_dir / "jars")
    return KafkaServer(
        settings.state_dir,
        settings.cache_dir / "jars",
        on_progress=lambda text: console.print(f"[dim]{text}[/]"),
    )


def up() -> None:
    """Start Kafka on this machine and create the topics. A second `up` changes nothing."""
    console, settings = Console(), Settings()
    endpoint = server(settings, console).up()
    created = cluster.create_topics(cluster.connect(settings), settings)
    console.print(f"Kafka answers at [bold]{endpoint}[/]; {len(created)} topics created.")


def down() -> None:
    """Stop what `up` and `demo` started here; data stay."""
    for settings in (Settings(), demo_settings(Settings())):
        server(settings, Console()).down()


def demo_settings(settings: Settings) -> Settings:
    """Settings of the demo: its own folder, and always the Kafka of this machine."""
    return settings.model_copy(update={"state_dir": settings.state_dir / "demo", "brokers": None})


def status() -> None:
    """Show addresses, processes and health. Exit code 1 unless everything is ready."""
    console = Console()
    found = server(Settings()).status()
    table = Table("server", "health", "address", "pid", "up for")
    uptime = "" if found.uptime is None else f"{found.uptime:.0f} s"
    table.add_row("kafka", found.health, str(found.endpoint or ""), str(found.pid or ""), uptime)
    console.print(table)
    console.print(f"data {found.data}\nlog  {found.log}", markup=False, highlight=False, soft_wrap=True)
    if found.reason:
        console.print(found.reason, markup=False)
    if found.health != "ready":
        raise typer.Exit(1)


def run(role: Annotated[Literal["decide"], typer.Argument(help="Which role to run.")]) -> None:
    """Run a worker of a role until it is stopped (SIGTERM drains it)."""
    from streams import worker

    worker.run_decide(Settings())


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (up, down, status, run):
        app.command()(command)
