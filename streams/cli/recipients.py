"""`opportune recipients import`: who is behind the recipient ids."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from schemas import policy_files
from schemas.settings import Settings
from sinks.mx import MxLookup
from sinks.vault.sqlite import SqliteVault
from streams import cluster, recipients
from streams import control as changing
from streams.cli import show
from streams.engine.kafka import Client
from streams.policy import policy_folder
from streams.recipients import Imported

_app = typer.Typer(no_args_is_help=True, help="Who is behind the recipient ids: addresses and attributes.")


@_app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV in UTF-8: recipient_id,address,zone[,locale][,…].")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file; import nothing.")] = False,
    mx: Annotated[
        bool, typer.Option("--mx", help="Ask DNS whose hosts take the mail of domains that are not listed.")
    ] = False,
) -> None:
    """Import addresses, zones and attributes from a CSV file.

    The first line names the columns: recipient_id, address and zone (an IANA name, or empty), optionally
    locale; every further column is an attribute that templates may use, such as first_name. Addresses and
    attributes go into the contact vault and nowhere else; zone, locale and the mailbox provider of the
    address's domain go to recipients.attributes.

    Which provider a domain belongs to is in providers.toml. With --mx, DNS is asked for the MX of every other
    domain, and the table mx says whose host it is. Use it always or never: without it, these domains are
    "other" again. Where DNS does not answer, what was known of the provider stays.

    Bad rows are reported by line (the first 1,000) and left out, good ones are imported. Importing a file
    again is safe.

    Exit code 0: all rows good. 1: some were refused, or of some DNS did not answer. 2: no such
    file, or it is no CSV of recipients.
    """
    settings = Settings()
    try:
        if dry_run:
            providers = policy_files.load_providers(policy_folder(settings))
            with _progress(file, "checking recipients") as (progress, asked):
                hosts = MxLookup(progress=asked) if mx else None
                result = recipients.check(file, providers, progress, hosts)
        else:
            with closing(SqliteVault(settings.vault_path, settings.vault_key_path)) as vault:
                result = import_file(file, vault, cluster.connect(settings), settings, mx)
    except recipients.UnusableFile as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    _tell(result, dry_run)
    if result.refused or result.good[recipients.UNANSWERED]:
        raise typer.Exit(1)


def import_file(
    file: Path, vault: SqliteVault, client: Client, settings: Settings, mx: bool = False
) -> Imported:
    """Import a file with a progress bar, asking DNS or not. Raises as `streams.recipients.load`."""
    providers = policy_files.load_providers(policy_folder(settings))
    with _progress(file, "importing recipients") as (progress, asked):
        hosts = MxLookup(progress=asked) if mx else None
        return recipients.load(file, providers, vault, client, _now(client), progress, hosts)


@contextmanager
def _progress(file: Path, what: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """A bar; how it is told of the bytes that are done, and of the domains that were asked for."""
    text = TextColumn("{task.description}")
    with Progress(
        text, BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=show.console()
    ) as progress:
        task = progress.add_task(what, total=file.stat().st_size if file.is_file() else 0)
        yield (
            lambda done: progress.update(task, completed=done),
            lambda asked: progress.update(task, description=f"{what}, {asked:,} domains asked for"),
        )


def _now(client: Client) -> int:
    """The time on the deployment's clock; the wall clock's where only a plan tells it."""
    wall = time.time_ns() // 1_000_000
    now = changing.current(client).clock.now(wall)
    return wall if now is None else now


def _tell(result: Imported, dry_run: bool) -> None:
    console = show.console()
    for row in result.bad:
        console.print(f"line {row.line}: {row.why}", markup=False, highlight=False)
    if result.refused.total() > len(result.bad):
        console.print(f"… and {result.refused.total() - len(result.bad):,} more")
    table = show.table("provider", "recipients", title="Would be imported" if dry_run else "Imported")
    for provider, count in result.good.most_common():
        table.add_row(provider, f"{count:,}")
    table.add_row("all", f"{result.good.total():,}")
    console.print(table)
    if silent := result.good[recipients.UNANSWERED]:
        console.print(f"Of {silent:,} DNS did not tell the provider: import the file again when it answers.")
    if result.refused:
        refused = show.table("rows", "why", title="Refused")
        for why, count in result.refused.most_common():
            refused.add_row(f"{count:,}", why)
        console.print(refused)
        console.print("Mend these rows and import the file again; what is imported stays as it is.")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(_app, name="recipients")
