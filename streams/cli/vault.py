"""`opportune vault`: the contact vault and its key."""

from contextlib import closing
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
    with closing(SqliteVault.create(settings.vault_path, settings.vault_key_path)) as vault:
        _say(f"Vault {vault.path}, key {vault.key_id} in {settings.vault_key_path}.")
    _say("Keep a copy of the key apart from the vault's backups: without it nobody can read them.")


@_app.command()
def status() -> None:
    """Show where the vault is, which key opens it and how many contacts it has."""
    console, settings = show.console(), Settings()
    with closing(_open()) as vault:
        show.field(console, "vault", str(settings.vault_path))
        show.field(console, "key", f"{vault.key_id} in {settings.vault_key_path}")
        show.field(console, "contacts", f"{vault.count():,}")


@_app.command()
def rotate() -> None:
    """Replace the master key: every contact's key is wrapped anew. Workers follow by themselves.

    Backups made before still need the key of their time: copy the key file first, and keep the copy as long
    as you keep them. Killed at any moment, the vault opens by the old key or by the new one; the next command
    or worker finishes what is left.
    """
    with closing(_open()) as vault:
        before = vault.key_id
        _say(f"{vault.count():,} contacts were sealed by key {before}, now they are by key {vault.rotate()}.")


@_app.command()
def backup(file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Copy the vault to a file while workers go on. The master key is not in it: keep it elsewhere."""
    with closing(_open()) as vault:
        vault.backup(file)
        key = f"key {vault.key_id} in {Settings().vault_key_path}"
    _say(f"Copied to {file}. It opens only by {key}, which is not in it.")


@_app.command(name="restore")
def restore_(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the vault that is there.")] = False,
) -> None:
    """Put a backup in the vault's place, once it has proven whole and its key fits. Workers may go on.

    Recipients that were erased since the backup was made come back: erase them again.
    """
    settings = Settings()
    with closing(restore(file, settings.vault_path, settings.vault_key_path, force)) as vault:
        _say(f"Restored {vault.count():,} contacts to {settings.vault_path}.")


def _open() -> SqliteVault:
    settings = Settings()
    return SqliteVault(settings.vault_path, settings.vault_key_path)


def _say(text: str) -> None:
    show.console().print(text, markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(_app, name="vault")
