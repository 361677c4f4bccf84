"""The command `opportune`."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from itertools import chain
from typing import Annotated, Final, NoReturn

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

# Which modules register a command, or its group. All of them take 2 s of CPU to import, `pause` alone 0.6 s.
COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    "demo": ["demo"],
    "up": ["stack"],
    "down": ["stack"],
    "status": ["stack"],
    "run": ["run"],
    "replay": ["replay"],
    "report": ["report"],
    "explain": ["explain"],
    "reconcile": ["reconcile"],
    "migrate": ["record"],
    "sql": ["record"],
    "restore-audit": ["record"],
    "verify": ["verify"],
    "recipients": ["recipients"],
    "vault": ["vault"],
    "dead-letters": ["dead_letters"],
    "pause": ["control"],
    "resume": ["control"],
    "clock": ["control"],
    "control": ["control"],
    "lanes": ["lanes", "lanes_publish"],
    "policy": ["policy"],
    "segments": ["segments"],
    "campaigns": ["campaigns"],
    "model": ["model", "model_guard", "model_registry", "model_trail"],
    "simulate": ["simulate"],
    "schemas": ["schemas"],
}


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"opportune {metadata.version('opportune')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Tell the version.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None: ...


def application(command: str = "") -> typer.Typer:
    """Return the command line; only what `command` needs of it, if that is a command."""
    app = typer.Typer(
        name="opportune",
        help="Decides whether, what and when to send to each recipient, sends it paced, and records why.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode="markdown",
    )
    app.callback()(_root)  # without one, a command that is alone would not be called by its name
    needed = COMMANDS.get(command) or dict.fromkeys(chain.from_iterable(COMMANDS.values()))
    for name in needed:
        import_module(f"streams.cli.{name}").register(app)
    return app


def main() -> None:
    """Run the command; expected errors are one message and exit code 1, not a traceback."""
    logs.configure("warning")  # standard output is the commands' own; workers say what they want to log
    try:
        application(*sys.argv[1:2])()
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        for problem in error.errors():
            name = ".".join(str(each) for each in problem["loc"] if each != "[key]")
            why = problem["msg"].removeprefix("Value error, ")
            if not name:
                _fail(f"settings: {why}")
            if problem["type"] == "extra_forbidden":
                from schemas.policy import meant  # here, because it imports much, and so below

                known = () if "." in name else Settings.model_fields  # a table's own names are others
                _fail(f"there is no setting {name}{meant(name, known)}")
            variable = f"OPPORTUNE_{name.upper().replace('.', '__')}"
            _fail(f"setting {name} ({variable}, or {name} in opportune.toml): {why}")
    except SettingsError as error:
        _fail(f"settings: {error}; a table is set name by name, such as OPPORTUNE_IDENTITY__NEWS__MAIL_FROM")
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; mend the path, or who may read and write there")
    except Exception as error:
        from streams.cli.expected import EXPECTED, told

        if not isinstance(error, EXPECTED):
            raise
        _fail(told(error))


def _fail(text: str) -> NoReturn:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
