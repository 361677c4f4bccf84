"""How `opportune reconcile` prints DELIVER's half: commands, messages, and ClickHouse."""

from collections.abc import Sequence
from typing import Final

from rich.table import Table as Grid
from rich.text import Text

from streams.cli import show
from streams.reconciling.dispatches import FATES, Commands
from streams.reconciling.mail import Mail
from streams.reconciling.recorded import Table

_SAY: Final = {
    "historic": "of loaded history, never sent",
    "recalled": "recalled before they went",
    "unknown": "unknown: they may have gone",
    "duplicate": "repeats, without effect",
    "dead_lettered": "dead letters",
}
_SHORT: Final = {"duplicate": "repeats", "dead_lettered": "dead"}


def ledger(total: Commands) -> Grid:
    """Return the sum of all partitions as an account."""
    table = show.table("", "commands", "", title="Commands = what became of them", right=("commands",))
    table.add_row("taken up", f"{total.consumed:,}", _not_yet(total))
    if total.stood_before:
        table.add_row("stood when counting began", f"{total.stood_before:,}")
    for place, name in enumerate(FATES):
        sign = "+" if place else "="
        count = witnessed(total.fates[name], total.found[name])
        table.add_row(f"{sign} {_SAY.get(name, name)}", count)
    tries = f"after {show.many(total.deferred, 'attempt')} put off" if total.deferred else ""
    table.add_row("+ pending", f"{total.pending:,}", Text(tries))
    table.add_row("+ in flight", f"{total.in_flight:,}")
    table.add_row("", "", mark(total.missing() == 0))
    return table


def _not_yet(total: Commands) -> Text:
    if not total.not_taken_up:
        return Text("")
    return Text(f"{total.not_taken_up:,} more on the topic are not taken up yet", "yellow")


def by_partition(commands: Sequence[Commands]) -> Grid:
    """Return a line for each partition, which holds whole lanes."""
    fates = tuple(_SHORT.get(name, name) for name in FATES)
    names = ("taken up", "stood before", *fates, "pending", "in flight")
    table = show.table(
        "partition", *names, "", title="Commands by partition", right=("partition", *names), gap=1
    )
    for some in commands:
        table.add_row(
            str(some.partition),
            f"{some.consumed:,}",
            f"{some.stood_before:,}",
            *(witnessed(some.fates[name], some.found[name]) for name in FATES),
            f"{some.pending:,}",
            f"{some.in_flight:,}",
            mark(some.missing() == 0),
        )
    return table


def mail_line(mail: Mail) -> Text:
    """Tell what the sandbox holds."""
    repeats = (
        f", {mail.repeats:,} of them repeats of campaigns that are at_least_once" if mail.repeats else ""
    )
    return Text(
        f"Sandbox: {show.many(mail.messages, 'message')} of {mail.dispatches:,} dispatches{repeats}; "
        "each is held against its dispatch."
    )


def tables(tables: Sequence[Table]) -> Grid:
    """Return a line for each table of ClickHouse and each topic that it has records of."""
    right = ("records", "rows", "behind")
    grid = show.table("table", "topic", *right, "", title="Records = rows in ClickHouse", right=right)
    for table in tables:
        behind = Text(f"{table.behind:,}", "yellow" if table.behind else "")
        agrees = mark(table.records == table.rows)
        grid.add_row(table.table, table.topic, f"{table.records:,}", f"{table.rows:,}", behind, agrees)
    return grid


def witnessed(said: int, found: int) -> Text:
    """Print a figure of the journal, and the other witness's where that differs."""
    return Text(f"{said:,}") if said == found else Text(f"{said:,} (found {found:,})", "bold red")


def mark(agrees: bool) -> Text:
    """Print whether a sum is right."""
    return Text("✔", "green") if agrees else Text("✘", "bold red")
