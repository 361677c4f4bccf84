"""`opportune segments check | plan | apply | show`: definitions put in force while workers run."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from models.redefinition import Change
from schemas import topics
from schemas.policy import Policy
from schemas.settings import Settings
from streams import cluster, policy_check, segment_plan, warehouse
from streams import control as changing
from streams.cli import show
from streams.cli.control import Why, who
from streams.engine.control import Control
from streams.policy import policy_folder
from streams.segment_plan import Movement, Plan, kind, planned

Folder = Annotated[
    Path | None,
    typer.Argument(
        help="A policy folder. Default: the setting policy_dir, or the packaged policy.", show_default=False
    ),
]

_LEFT: Final = """Done when nobody is left:
  opportune sql "SELECT count() FROM profile_snapshot WHERE segments_version < {version}\""""

app = typer.Typer(
    no_args_is_help=True,
    help="Segments: checked, planned over what is known of everybody, and put in force while workers run.",
)


@app.command()
def check(folder: Folder = None) -> None:
    """Check a policy folder, and list its segments: what each reads, and the campaigns that name it.

    Needs no Kafka. Every problem is a line FILE:LINE:COLUMN: TEXT, those of `opportune policy check`; exit
    code 1 if there is any.
    """
    policy, _ = _checked(folder)
    table = show.table("segment", "number", "where", "used by")
    uses = _uses(policy)
    for segment in policy.segments:
        used = ", ".join(uses[segment.name]) or "–"
        table.add_row(segment.name, str(segment.number), segment.where, used)
    show.console().print(table)


@app.command()
def plan(
    folder: Folder = None,
    json: Annotated[
        bool, typer.Option("--json", help="For machines: with both definitions of each change.")
    ] = False,
) -> None:
    """Show who would enter and leave, if the segments of a policy folder were put in force now.

    Asks the profiles in ClickHouse, with windows that end now, so it is as new as the recorder; changes
    nothing. Compares with what is in force, or, before the first `apply`, with the segments that everybody is
    in.
    """
    policy, _ = _checked(folder)
    settings = Settings()
    client = cluster.connect(settings)
    control, running = changing.current(client), segment_plan.running(client, settings.partitions)
    asked = planned(control, policy, running)
    if not asked and not json:
        show.console().print(_nothing(control))
        return
    found = segment_plan.plan(warehouse.connect(settings), control, asked)
    if json:
        typer.echo(show.as_json(segment_plan.machine_form(found)))
        return
    if not control.segments:
        typer.echo(
            "Nothing was put in force yet, and this is not what the workers run: compared with the segments "
            "that everybody is in. `segments apply` wants the files that run first.",
            err=True,
        )
    _tell(show.console(), found, _uses(policy))


@app.command()
def apply(why: Why, folder: Folder = None) -> None:
    """Put the segments of a policy folder in force, without a restart. `plan` shows first what that will do.

    From the next cut of each partition on, events are asked by the new definitions; within a minute of the
    deployment's clock everybody else is looked at as well, spread evenly. Who enters or leaves by that is in
    the audit trail with this change as its cause, and sets no campaign off.

    The first time, apply the files that the workers run: that moves nobody, and says what later changes are
    measured by. A folder with any problem is refused, and so is the end of a segment that a campaign of the
    workers may need; the old definitions stay.
    """
    policy, place = _checked(folder)
    settings = Settings()
    client, console = cluster.connect(settings), show.console()
    control, running = changing.current(client), segment_plan.running(client, settings.partitions)
    segment_plan.refuse_unlike(policy, control, running)
    asked = planned(control, policy, running)
    if control.segments and not asked:
        console.print(_nothing(control))
        return
    version = changing.set_segments(client, policy.segments, who(), why)
    count = show.many(len(policy.segments), "segment")
    said = f"{count} of {place} in force from control version {version} on: {_what(control, asked)}."
    console.print(said, markup=False, soft_wrap=True)
    if control.segments:
        cause = f"The audit trail has offset {version - 1} of {topics.CONTROL.name} as the cause."
        console.print(f"{cause} {_LEFT.format(version=version)}", markup=False, soft_wrap=True)


@app.command("show")
def show_segments() -> None:
    """Show the definitions in force, and since when."""
    control = changing.current(cluster.connect(Settings()))
    if not control.segments:
        show.console().print("None were put in force: workers go by their policy files.")
        return
    in_force = control.segments[-1]
    table = show.table("segment", "number", "where", "definition")
    for segment in in_force.segments:
        table.add_row(segment.name, str(segment.number), segment.where, segment.definition)
    show.console().print(_since(control))
    show.console().print(table)


def _checked(folder: Path | None) -> tuple[Policy, Path]:
    """The policy of a folder, and where that is; any problem ends the command."""
    place = folder or policy_folder(Settings())
    files = policy_check.check(place)
    for problem in files.problems:
        typer.echo(str(problem))
    if files.problems:
        typer.echo(f"{show.many(len(files.problems), 'problem')} in {place}", err=True)
        raise typer.Exit(1)
    return files.policy(), place


def _since(control: Control) -> str:
    version = control.segments[-1].version
    return f"In force since control version {version}." if version else "In force; the first ones."


def _nothing(control: Control) -> str:
    since = _since(control) if control.segments else "The workers run these segments."
    return f"{since} Nothing changes."


def _what(control: Control, asked: list[Change]) -> str:
    if not control.segments:
        return "the first ones, so nobody moves"
    told = []
    for change in asked:
        renamed = f" from {change.before.name}" if kind(change) == "renamed" and change.before else ""
        told.append(f"{_name(change)} {kind(change)}{renamed}")
    return ", ".join(told)


def _uses(policy: Policy) -> Mapping[str, list[str]]:
    """Campaigns by the segments that they name."""
    uses: defaultdict[str, list[str]] = defaultdict(list)
    for campaign in policy.campaigns:
        named = {campaign.audience, campaign.trigger.enter, campaign.trigger.leave} - {None}
        for name in named:
            uses[str(name)].append(campaign.name)
    return uses


def _tell(console: Console, found: Plan, uses: Mapping[str, list[str]]) -> None:
    console.print(f"{show.many(found.profiles, 'profile')}, windows as of {show.moment(found.at)}")
    if found.unknown:
        console.print(
            f"{show.many(found.unknown, 'profile')} were recorded before migration 12: their counts and "
            "revenue are taken as 0, hours since are right. They fill in as recipients do something, by the "
            "first `segments apply` that changes something, or by `opportune restore-audit`.",
            soft_wrap=True,
        )
    right = ("now", "enter", "leave", "then")
    table = show.table("segment", "change", *right, "used by", right=right)
    for each in found.movements:
        then = each.members + each.enters - each.leaves
        counts = (f"{count:,}" for count in (each.members, each.enters, each.leaves, then))
        used = ", ".join(uses.get(_name(each.change), [])) or "–"
        table.add_row(_name(each.change), kind(each.change), *counts, used)
    console.print(table)
    for each in found.movements:
        _details(console, each)
    console.print(
        "Who enters or leaves by this is asked about no campaign; who does so later, is.", style="dim"
    )


def _details(console: Console, moved: Movement) -> None:
    """What is defined otherwise, and some of whom it concerns."""
    before, after, lines = moved.change.before, moved.change.now, []
    if before is not None and after is not None and before.name != after.name:
        lines.append(f"was {before.name}: its members leave that, and enter this")
    if before is not None and after is not None and before.where != after.where:
        lines.append(f"{before.where}  →  {after.where}")
    for word, some in (("enter", moved.entering), ("leave", moved.leaving)):
        if some:
            lines.append(f"{word}, for example: {', '.join(map(show.printable, some))}")
    for line in lines:
        console.print(f"{_name(moved.change)}: {line}", markup=False, soft_wrap=True)


def _name(change: Change) -> str:
    segment = change.now or change.before
    return segment.name if segment else ""


def register(main: typer.Typer) -> None:
    """Add these commands."""
    main.add_typer(app, name="segments")
