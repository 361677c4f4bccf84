"""`opportune vault`: the contact vault and its key."""

from pathlib import Path
from typing import Annotated

import typer

from schemas.settings import Settings
from sinks.vault.sqlite import SqliteVault, restore
from streams.cli import show

_app = typer.Typer(
    no_args_is_help=True,
    help="The contact vault: addresses and attributes, encrypted for each recipient. Its master key is a "
    "file of its own: without it the vault is noise, and so is every backup.",
)


@_app.command()
def init() -> None:
    """Make an empty vault and its master key. Nothing is ever overwritten."""
    settings = Settings()
    vault = SqliteVault.create(settings.vault_path, settings.vault_key_path)
    _say(f"Vault {vault.path}, key {vault.key_id} in {settings.vault_key_path}.")
    _say("Keep a copy of the key apart from the vault's backups: without it nobody can read them.")


@_app.command()
def status() -> None:
    """Show where the vault is, which key opens it and how many contacts it has."""
    settings, table = Settings(), show.table("vault", "key", "contacts")
    vault = _open()
    table.add_row(
        str(settings.vault_path), f"{vault.key_id} in {settings.vault_key_path}", f"{vault.count():,}"
    )
    show.console().print(table)


@_app.command()
def rotate() -> None:
    """Replace the master key: every contact's key is wrapped anew. Workers follow by themselves.

    Backups made before still need the key of their time: keep it as long as you keep them.
    """
    vault = _open()
    before = vault.key_id
    _say(f"{vault.count():,} contacts were sealed by key {before}, now they are by key {vault.rotate()}.")


@_app.command()
def backup(file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Copy the vault to a file while workers go on. The master key is not in it: keep it elsewhere."""
    _open().backup(file)
    _say(f"Copied to {file}. It opens only by the key in {Settings().vault_key_path}, which is not in it.")


@_app.command(name="restore")
def restore_(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the vault that is there.")] = False,
) -> None:
    """Put a backup in the vault's place, once it has proven whole and its key fits. Stop DELIVER before.

    Recipients that were erased since the backup was made come back: erase them again.
    """
    settings = Settings()
    vault = restore(file, settings.vault_path, settings.vault_key_path, force)
    _say(f"Restored {vault.count():,} contacts to {settings.vault_path}.")


def _open() -> SqliteVault:
    settings = Settings()
    return SqliteVault(settings.vault_path, settings.vault_key_path)


def _say(text: str) -> None:
    show.console().print(text, markup=False, highlight=False)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(_app, name="vault")
