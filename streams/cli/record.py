"""`opportune migrate | sql | restore-audit`: the tables in ClickHouse, and questions to them."""

import csv
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from schemas.settings import Settings
from sinks.clickhouse import migrate as migrating
from sinks.clickhouse.query import Result, ask
from streams import cluster, record, warehouse
from streams.cli import show
from streams.restore import Restore

_MOST_ROWS: Final = 200
# Wider than that, a row is printed as a list of its columns, and fewer of them are.
_MOST_COLUMNS: Final = 12
_MOST_LISTED: Final = 20
_MOST_CHARACTERS: Final = 120
_NUMBERS: Final = ("Int", "UInt", "Float", "Decimal")


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 if something is to be applied.")
    ] = False,
) -> None:
    """Bring the tables in ClickHouse up to date. `up` and `run record` do it by themselves.

    Every migration is applied once, in order. One that was applied and whose file has been changed since is
    refused.
    """
    house, console = warehouse.connect(Settings()), show.console()
    if check:
        connection = house.connect()
        try:
            migrating.check(connection, house.views)
        finally:
            connection.close()
        console.print("The tables are up to date.")
        return
    applied = house.migrate()
    for name in applied:
        console.print(f"applied {name}")
    console.print(f"The tables are up to date: {show.many(len(applied), 'migration')} applied.")


def sql(
    statement: Annotated[str, typer.Argument(help="A SELECT, or - to read it from standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, all rows.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header line, all rows.")] = False,
) -> None:
    """Ask the audit trail in SQL. Nothing can be changed with it.

    What stops most messages:

        opportune sql "SELECT reason, count() AS decisions FROM decision
            WHERE outcome = 'withheld' GROUP BY reason ORDER BY decisions DESC"

    What is known of one recipient, and all that was ever decided about them:

        opportune sql "SELECT * FROM profile_snapshot WHERE recipient_id = '1'"

        opportune sql "SELECT at, campaign, outcome, reason, due_at FROM decision
            WHERE recipient_id = '1' ORDER BY at"

    What became of the messages, by lane:

        opportune sql "SELECT lane, kind, count() AS messages FROM delivery
            GROUP BY lane, kind ORDER BY lane, messages DESC"

    `SHOW TABLES` lists what there is, `DESCRIBE decision` its columns, and docs/data-dictionary.md has both
    with twelve questions worth asking. Times are UTC. At most 200 rows are shown, 20 of wide ones.
    """
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv", param_hint="--csv")
    text = sys.stdin.read() if statement == "-" else statement
    house = warehouse.connect(Settings())
    result = ask(house.address, house.views, text)
    if as_json:
        names = [name for name, _ in result.columns]
        for row in result.rows:
            typer.echo(json.dumps(dict(zip(names, row, strict=True)), default=_plain, ensure_ascii=False))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([name for name, _ in result.columns])
        writer.writerows([[_cell(value) for value in row] for row in result.rows])
    else:
        tell(show.console(), result)


def restore_audit(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drop the tables in ClickHouse and fill them anew from the topics.

    For tables that were lost or damaged. Refused while a recorder runs, and where the tables hold records
    that retention has taken from the topics. `activity` stays, since its topic has only the last days of it.
    `run record` goes on from where this ends.
    """
    settings, console = Settings(), show.console()
    house = warehouse.connect(settings)
    client = cluster.connect(settings)
    restore = Restore(client, house, record.segment_names(client, settings))
    restore.refuse_loss()
    console.print(
        f"The databases {house.views} and {house.stored} of {house.address.host}:{house.address.port} are "
        f"dropped, but for the hours in activity, and filled from {show.many(restore.offsets, 'offset')} on "
        "Kafka."
    )
    if not yes:
        typer.confirm("Go on?", abort=True)
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=restore.offsets)
        done = restore.run(lambda count: progress.advance(task, count))
    refused = f"; {show.many(done.unrecorded, 'record')} became no row" if done.unrecorded else ""
    console.print(f"{show.many(done.records, 'record')} restored{refused}. `opportune run record` goes on.")


def tell(console: Console, result: Result) -> None:
    """Print a result as a table, as much of it as people read."""
    if not result.columns:
        console.print("Done; there is nothing to show.")
        return
    wide = len(result.columns) > _MOST_COLUMNS
    most = _MOST_LISTED if wide else _MOST_ROWS
    if wide:
        for row in result.rows[:most]:
            console.print(_listed(result.columns, row))
            console.print()
    else:
        console.print(_table(result.columns, result.rows[:most]))
    more = f"; the first {most} are shown, --json and --csv give all" if len(result.rows) > most else ""
    console.print(Text(f"{show.many(len(result.rows), 'row')}{more}", "dim"))


def _table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, kind in columns:
        table.add_column(name, justify="right" if is_number(kind) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shorten(_cell(value))) for value in row))
    return table


def _listed(columns: Sequence[tuple[str, str]], row: Sequence[Any]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for (name, _), value in zip(columns, row, strict=True):
        grid.add_row(name, Text(shorten(_cell(value))))
    return grid


def is_number(kind: str) -> bool:
    """Whether a type of ClickHouse is one of numbers."""
    for wrapper in ("LowCardinality(", "Nullable("):
        kind = kind.removeprefix(wrapper)
    return kind.startswith(_NUMBERS)


def shorten(text: str) -> str:
    """Cut a long value off for a terminal."""
    safe = show.printable(text)
    return safe if len(safe) <= _MOST_CHARACTERS else f"{safe[: _MOST_CHARACTERS - 1]}…"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if value == value else "nan"
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return str(value)


def _time(value: datetime) -> str:
    return value.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(migrate)
    app.command()(sql)
    app.command(name="restore-audit")(restore_audit)
