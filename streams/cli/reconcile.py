"""`opportune reconcile`: whether everything is accounted for."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.settings import Settings
from streams import cluster
from streams.cli import reconcile_delivery as delivering
from streams.cli import show
from streams.cli.reconcile_delivery import mark, witnessed
from streams.reconcile import FATES, Decisions, Flow, Report
from streams.reconciling import gather
from streams.reconciling.dispatches import Commands

_FLOW_COLUMNS: Final = ("records", "no trigger", "decided", "filtered", "dead", "re-keyed", "late")


def reconcile(
    partitions: Annotated[bool, typer.Option("--partitions", help="A line for every partition.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines, with every partition.")] = False,
) -> None:
    """Count everything anew from the topics and compare: nothing may be lost, nothing done twice.

    Every record that was consumed had one fate: it set off no campaign, set off decisions, was filtered, went
    to the dead letters, or was sent on to its right partition. Every decision was sent, withheld when it was
    made, withheld when it came due, or still waits. Every command to deliver was delivered, bounced, expired,
    recalled, may have gone (unknown), was of loaded history, a repeat or a dead letter, or still waits or is
    in flight. The journals' figures are held against what the other topics contain: commands, audit trail,
    dead letters, DELIVER's table; where they differ, both are shown and a line says where.

    On a machine with the mail sandbox, each message in it is held against its dispatch and the reverse, by
    file names alone. Where a ClickHouse is set or runs, its rows are counted against the records that the
    recorder has committed, by number and checksum, except for profiles, of which it keeps the latest alone.

    Workers may run meanwhile: what they do after the journals were read is not counted. Exit code 1 if
    anything is off.
    """
    console = show.console()
    settings = Settings()
    client = cluster.connect(settings)
    with Console(stderr=True).status("reading") as status:
        report = gather.reconcile(client, settings, lambda name: status.update(f"reading {name}"))
    if json:
        typer.echo(show.as_json(machine_form(report)))
    else:
        tell(console, report, partitions)
    if report.discrepancies:
        raise typer.Exit(1)


def machine_form(report: Report) -> dict[str, Any]:
    """Return a report for `--json`: with the sums of all partitions, and whether everything agrees."""
    # `asdict` would rebuild the counters from pairs, and count these.
    total = {**vars(_sum_decisions(report.decisions)), "partition": None}
    sums = [{**vars(flow), "partition": None, "next_offset": None} for flow in by_topic(report.flows)]
    return {
        "agrees": not report.discrepancies,
        "discrepancies": report.discrepancies,
        "notes": report.notes,
        "flows_by_topic": sums,
        "flows": [vars(flow) for flow in report.flows],
        "decisions_in_all": total,
        "decisions": [vars(some) for some in report.decisions],
        "commands_in_all": {**vars(_sum_commands(report.commands)), "partition": None},
        "commands": [vars(some) for some in report.commands],
        "mail": report.mail and vars(report.mail),
        "clickhouse": [vars(table) for table in report.tables],
    }


def tell(console: Console, report: Report, partitions: bool) -> None:
    """Print a report."""
    if not report.decisions:
        console.print("The journal is empty: nothing has been consumed yet.")
    else:
        sums = by_topic(report.flows)
        console.print(_flow_table("Records = what became of them", "topic", {s.topic: s for s in sums}))
        if partitions:
            for total in sums:
                mine = {str(flow.partition): flow for flow in report.flows if flow.topic == total.topic}
                console.print()
                console.print(_flow_table(total.topic, "partition", mine))
            console.print()
            console.print(_decision_table(report.decisions))
        console.print()
        console.print(_ledger(_sum_decisions(report.decisions)))
    _tell_second_half(console, report, partitions)
    console.print()
    for note in report.notes:
        console.print(Text(f"note: {note}", "dim"), soft_wrap=True)
    for line in report.discrepancies:
        console.print(Text.assemble(("✘ ", "bold red"), show.printable(line)), soft_wrap=True)
    if report.discrepancies:
        console.print(f"[bold red]Not everything is accounted for: {len(report.discrepancies)} findings.[/]")
    else:
        console.print("[green]✔ Everything is accounted for.[/]")


def _tell_second_half(console: Console, report: Report, partitions: bool) -> None:
    """Print what became of commands, and what the sandbox and ClickHouse hold."""
    console.print()
    if not report.commands:
        console.print("DELIVER's journal is empty: no command has been taken up yet.")
    else:
        if partitions:
            console.print(delivering.by_partition(report.commands))
            console.print()
        console.print(delivering.ledger(_sum_commands(report.commands)))
    if report.mail is not None:
        console.print()
        console.print(delivering.mail_line(report.mail))
    if report.tables:
        console.print()
        console.print(delivering.tables(report.tables))


def _sum_commands(commands: Sequence[Commands]) -> Commands:
    total = Commands(-1)
    for some in commands:
        total.add(some)
    return total


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


def _flow_table(title: str, first: str, flows: Mapping[str, Flow]) -> Table:
    table = show.table(first, *_FLOW_COLUMNS, "", title=title, right=_FLOW_COLUMNS, gap=1)
    for name, flow in flows.items():
        agrees = flow.consumed == sum(getattr(flow, fate) for fate in FATES)
        table.add_row(
            name,
            f"{flow.consumed:,}",
            f"{flow.no_trigger:,}",
            witnessed(flow.decided, flow.found_decided),
            f"{flow.filtered:,}",
            witnessed(flow.dead_lettered, flow.found_dead_lettered),
            witnessed(flow.rekeyed, flow.found_rekeyed),
            f"{flow.late:,}",
            mark(agrees),
        )
    return table


def _ledger(total: Decisions) -> Table:
    """Print the sum of all partitions as an account."""
    table = show.table("", "decisions", "", title="Decisions = what became of them", right=("decisions",))
    rows = [("made", total.decided, ""), ("= sent as commands", total.commands, "")]
    if total.waited_before:
        rows.insert(1, ("waited when counting began", total.waited_before, ""))
    for name, by_reason in (("decision", total.withheld), ("release", total.withheld_at_release)):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in by_reason.most_common())
        rows.append((f"+ withheld at {name}", by_reason.total(), reasons))
    rows.append(("+ pending", total.pending, ""))
    for name, count, reasons in rows:
        table.add_row(name, f"{count:,}", Text(reasons))
    table.add_row("", "", mark(total.missing() == 0))
    return table


def _decision_table(decisions: Sequence[Decisions]) -> Table:
    names = ("made", "waited before", "commands", "withheld", "at release", "pending")
    table = show.table("partition", *names, "", title="Decisions by partition", right=("partition", *names))
    for some in decisions:
        figures = (
            some.decided,
            some.waited_before,
            some.commands,
            some.withheld.total(),
            some.withheld_at_release.total(),
            some.pending,
        )
        table.add_row(str(some.partition), *(f"{figure:,}" for figure in figures), mark(some.missing() == 0))
    return table


def register(main: typer.Typer) -> None:
    """Add this command."""
    main.command()(reconcile)
