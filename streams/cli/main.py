"""The command `opportune`."""

import os
import sys
import tomllib
from typing import NoReturn

# One worker a core is how it scales. Polars' thread pool, read at import, halves the rate of small cuts.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
# Polars panics on bytes that are no Avro; that is caught and handled, and needs no backtrace in the log.
os.environ.setdefault("RUST_BACKTRACE", "0")

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.markup import escape

from schemas.settings import Settings
from streams import logs
from streams.cli import (
    campaigns,
    control,
    dead_letters,
    demo,
    explain,
    lanes,
    lanes_publish,
    model,
    model_guard,
    model_registry,
    model_trail,
    policy,
    recipients,
    reconcile,
    record,
    replay,
    report,
    schemas,
    segments,
    simulate,
    stack,
    vault,
    verify,
)

app = typer.Typer(
    name="opportune",
    help="Decides whether, what and when to send to each recipient, sends it paced, and records why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)
for module in (
    demo,
    stack,
    replay,
    report,
    explain,
    reconcile,
    record,
    verify,
    recipients,
    vault,
    dead_letters,
    control,
    lanes,
    lanes_publish,
    policy,
    segments,
    campaigns,
    model,
    model_guard,
    model_registry,
    model_trail,
    simulate,
    schemas,
):
    module.register(app)


def main() -> None:
    """Run the command; expected errors are one message and exit code 1, not a traceback."""
    logs.configure("warning")  # standard output is the commands' own; workers say what they want to log
    try:
        app()
    except stack.EXPECTED as error:
        _fail(str(error))
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        for problem in error.errors():
            name = ".".join(str(each) for each in problem["loc"] if each != "[key]")
            if not name:
                _fail(f"settings: {problem['msg'].removeprefix('Value error, ')}")
            variable = f"OPPORTUNE_{name.upper().replace('.', '__')}"
            _fail(f"setting {name} ({variable}, or {name} in opportune.toml): {problem['msg']}")
    except SettingsError as error:
        _fail(f"settings: {error}; a table is set name by name, such as OPPORTUNE_IDENTITY__NEWS__MAIL_FROM")
    except tomllib.TOMLDecodeError as error:
        _fail(f"opportune.toml, or the file that OPPORTUNE_CONFIG names, is no TOML: {error}")


def _fail(text: str) -> NoReturn:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
