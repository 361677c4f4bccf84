"""`opportune up | down | status`: what runs on this machine."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from infra.embedded import ClickHouseServer, KafkaServer, SandboxServer, Server
from schemas.settings import Settings
from streams import cluster, mail, warehouse
from streams.replay import workers


def servers(settings: Settings, console: Console | None = None) -> list[Server[Any]]:
    """The servers of this machine under the settings' state folder: those for which no address is set."""

    def tell(text: str) -> None:
        if console is not None:
            console.print(f"[dim]{text}[/]")

    found: list[Server[Any]] = []
    if settings.brokers is None:
        found.append(KafkaServer(settings.state_dir, settings.cache_dir / "jars", on_progress=tell))
    if settings.clickhouse is None:
        found.append(ClickHouseServer(settings.state_dir, on_progress=tell))
    if not all(each.mail_leaves for each in settings.identities.values()):
        found.append(SandboxServer(settings.state_dir, on_progress=tell))
    return found


def start(settings: Settings, console: Console) -> None:
    """Start the servers, create topics and tables."""
    for each in servers(settings, console):
        endpoint = each.up()
        console.print(f"The {each.name} answers at [bold]{endpoint}[/].")
    cluster.create_topics(cluster.connect(settings), settings)
    warehouse.connect(settings).migrate()


def up() -> None:
    """Start Kafka, ClickHouse and the mail sandbox on this machine; create topics and tables.

    What has an address in the settings (brokers, clickhouse, relay or webhook_url) is used and not started. A
    second `up` changes nothing.
    """
    start(Settings(), Console())


def down() -> None:
    """Stop what `up`, `demo` and `simulate --real` started here; data stay."""
    console, here = Console(), Settings()
    if not here.state_dir.exists():
        console.print(f"There is no {here.state_dir}: nothing was started there.", soft_wrap=True)
    for settings in (here, apart(here, "demo"), apart(here, "simulator")):
        if settings.state_dir.exists():
            for each in reversed(servers(settings, console)):
                each.down()


def apart(settings: Settings, name: str) -> Settings:
    """Settings of what has its own folder, and always the servers of this machine: the demo, say."""
    kept = {each: getattr(settings, each) for each in workers.KEPT_APART}
    return Settings.model_construct(**kept, state_dir=settings.state_dir / name)


def status() -> None:
    """Show addresses, processes and health. Exit code 1 unless everything is ready."""
    console, settings = Console(), Settings()
    table = Table("server", "health", "address", "pid", "up for", "data")
    found = [(each.name, each.status()) for each in servers(settings)]
    for name, state in found:
        uptime = "" if state.uptime is None else f"{state.uptime:.0f} s"
        at, pid = str(state.endpoint or ""), str(state.pid or "")
        table.add_row(name, state.health, at, pid, uptime, os.path.relpath(state.data))
    asking: list[tuple[str, str | None, Callable[[], object]]] = [
        ("Kafka", settings.brokers, lambda: cluster.ask(settings)),
        ("ClickHouse", settings.clickhouse, lambda: warehouse.connect(settings).ask()),
        *(("mail relay", each, partial(mail.ask, settings, each)) for each in mail.addresses(settings)),
    ]
    asked = [(name, address, _answers(ask)) for name, address, ask in asking if address is not None]
    for name, address, trouble in asked:
        table.add_row(name, "unreachable" if trouble else "ready", address, "", "", "set by address")
    console.print(table)
    for name, _, trouble in asked:
        if trouble:
            console.print(f"{name}: {trouble}", markup=False, highlight=False)
    for _, state in found:
        if state.reason:
            console.print(f"{state.log}:\n{state.reason}", markup=False, highlight=False)
    not_ready = any(state.health != "ready" for _, state in found)
    if not_ready:
        console.print("`opportune up` starts what is not ready.")
    if not_ready or any(trouble for _, _, trouble in asked):
        raise typer.Exit(1)


def _answers(ask: Callable[[], object]) -> str:
    """Why a server that is set by address does not answer; empty if it does."""
    from streams.cli.expected import EXPECTED  # here, because it imports the whole of the project

    try:
        ask()
    except EXPECTED as error:
        return str(error)
    return ""


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (up, down, status):
        app.command()(command)
