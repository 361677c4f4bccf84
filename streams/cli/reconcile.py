"""`opportune reconcile`: whether everything is accounted for."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.settings import Settings
from streams import cluster, facts
from streams.cli import show
from streams.reconcile import FATES, Decisions, Flow, Report, compare

_FLOW_COLUMNS = ("records", "no trigger", "decided", "filtered", "dead letters", "re-keyed")


def reconcile(
    partitions: Annotated[bool, typer.Option("--partitions", help="A line for every partition.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines, with every partition.")] = False,
) -> None:
    """Count everything anew from the topics and compare: nothing may be lost, nothing done twice.

    Every record that was consumed had one fate: it set off no campaign, set off decisions, was filtered, went
    to the dead letters, or was sent on to its right partition. Every decision was sent, withheld when it was
    made, withheld when it came due, or still waits. The journal's figures are held against what the other
    topics contain; where they differ, both are shown and a line says where. Workers may run meanwhile: what
    they do after the journal was read is not counted. Exit code 1 if anything is off.
    """
    console = Console(highlight=False)
    client = cluster.connect(Settings())
    with Console(stderr=True).status("reading") as status:
        report = compare(facts.read(client, lambda name: status.update(f"reading {name}")))
    if json:
        typer.echo(show.as_json(machine_form(report)))
    else:
        tell(console, report, partitions)
    if report.discrepancies:
        raise typer.Exit(1)


def machine_form(report: Report) -> dict[str, Any]:
    """Return a report for `--json`: with the sums of all partitions, and whether everything agrees."""
    total = asdict(_sum_decisions(report.decisions))
    del total["partition"]
    flows = [asdict(flow) for flow in by_topic(report.flows)]
    for flow in flows:
        del flow["partition"], flow["next_offset"]
    return {"agrees": not report.discrepancies, "topics": flows, "all_decisions": total, **asdict(report)}


def tell(console: Console, report: Report, partitions: bool) -> None:
    """Print a report."""
    if not report.decisions:
        console.print("The journal is empty: nothing has been consumed yet.")
    else:
        console.print(_flow_table(report.flows if partitions else by_topic(report.flows), partitions))
        rows = report.decisions if partitions else []
        console.print(_decision_table([*rows, _sum_decisions(report.decisions)]))
    for note in report.notes:
        console.print(Text(f"note: {note}", "dim"), soft_wrap=True)
    for line in report.discrepancies:
        console.print(Text.assemble(("✘ ", "bold red"), show.printable(line)), soft_wrap=True)
    if report.discrepancies:
        console.print(f"[bold red]{len(report.discrepancies)} discrepancies.[/]")
    else:
        console.print("[green]✔ Everything is accounted for.[/]")


def by_topic(flows: Sequence[Flow]) -> list[Flow]:
    """Sum the partitions of each topic."""
    sums: dict[str, Flow] = {}
    for flow in flows:
        sums.setdefault(flow.topic, Flow(flow.topic, -1)).add(flow)
    return list(sums.values())


def _sum_decisions(decisions: Sequence[Decisions]) -> Decisions:
    total = Decisions(-1)
    for some in decisions:
        total.add(some)
    return total


def _flow_table(flows: Sequence[Flow], partitions: bool) -> Table:
    table = Table("topic", title="Records consumed = sum of their fates", title_justify="left")
    if partitions:
        table.add_column("partition", justify="right")
    for name in _FLOW_COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("late", justify="right", style="dim")
    table.add_column("")
    for flow in flows:
        agrees = flow.consumed == sum(getattr(flow, name) for name in FATES)
        cells = [
            Text(f"{flow.consumed:,}"),
            Text(f"{flow.no_trigger:,}"),
            _witnessed(flow.decided, flow.found_decided),
            Text(f"{flow.filtered:,}"),
            _witnessed(flow.dead_lettered, flow.found_dead_lettered),
            _witnessed(flow.rekeyed, flow.found_rekeyed),
            Text(f"{flow.late:,}"),
        ]
        where = [str(flow.partition)] if partitions else []
        table.add_row(flow.topic, *where, *cells, _mark(agrees))
    return table


def _decision_table(decisions: Sequence[Decisions]) -> Table:
    table = Table("partition", title="Decisions = sum of what became of them", title_justify="left")
    waited = any(some.waited_before for some in decisions)
    names = ["decisions", "commands", "pending"]
    for name in [*(["waited before"] if waited else []), *names]:
        table.add_column(name, justify="right")
    table.add_column("withheld at decision")
    table.add_column("withheld at release")
    table.add_column("")
    for some in decisions:
        before = [f"{some.waited_before:,}"] if waited else []
        table.add_row(
            "all" if some.partition < 0 else str(some.partition),
            *before,
            f"{some.decided:,}",
            f"{some.commands:,}",
            f"{some.pending:,}",
            show.counts(some.withheld),
            show.counts(some.withheld_at_release),
            _mark(some.missing() == 0),
        )
    return table


def _witnessed(said: int, found: int) -> Text:
    """Print a figure of the journal, and the other witness's where that differs."""
    return Text(f"{said:,}") if said == found else Text(f"{said:,} (found {found:,})", "bold red")


def _mark(agrees: bool) -> Text:
    return Text("✔", "green") if agrees else Text("✘", "bold red")


def register(main: typer.Typer) -> None:
    """Add this command."""
    main.command()(reconcile)
