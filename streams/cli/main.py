"""The command `opportune`."""

import os
import sys

# One worker a core is how it scales. Polars' thread pool, read at import, halves the rate of small cuts.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
# Polars panics on bytes that are no Avro; that is caught and handled, and needs no backtrace in the log.
os.environ.setdefault("RUST_BACKTRACE", "0")

import typer
from rich.console import Console
from rich.markup import escape

from streams.cli import (
    control,
    dead_letters,
    demo,
    explain,
    reconcile,
    replay,
    report,
    schemas,
    stack,
    verify,
)

app = typer.Typer(
    name="opportune",
    help="Decides whether, what and when to send to each recipient, and records why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)
for module in (demo, stack, replay, report, explain, reconcile, verify, dead_letters, control, schemas):
    module.register(app)


def main() -> None:
    """Run the command; expected errors are one message and exit code 1, not a traceback."""
    try:
        app()
    except stack.EXPECTED as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
