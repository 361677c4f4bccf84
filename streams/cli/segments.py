"""`opportune segments check | plan | apply`: definitions put in force while workers run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models import features
from models.redefinition import Change
from schemas.policy import Policy, PolicyError, with_segments
from schemas.settings import Settings
from streams import cluster, policy_check, segment_plan, warehouse, worker
from streams import control as changing
from streams.cli import show
from streams.cli.control import Why, who
from streams.engine.control import Control, ControlReader
from streams.engine.kafka import Client
from streams.segment_plan import Movement, Plan, kind, planned

Folder = Annotated[
    Path | None,
    typer.Argument(
        help="A policy folder. Default: the setting policy_dir, or the packaged policy.", show_default=False
    ),
]

app = typer.Typer(
    no_args_is_help=True,
    help="Segments: checked, planned over what is known of everybody, and put in force while workers run.",
)


@app.command()
def check(folder: Folder = None) -> None:
    """Check the segments of a policy folder and the campaigns that name them. Needs no Kafka.

    Every problem is a line FILE:LINE:COLUMN: TEXT; exit code 1 if there is any. `opportune policy check`
    looks at everything else in the folder as well.
    """
    policy = _checked(folder)
    table = show.table("segment", "number", "definition", "reads", "used by")
    uses = _uses(policy)
    for segment in policy.segments:
        reads = ", ".join(feature.name for feature in features.named_in([segment.where]))
        used = ", ".join(uses[segment.name]) or "no campaign"
        table.add_row(segment.name, str(segment.number), segment.definition, reads, used)
    show.console().print(table)


@app.command()
def plan(
    folder: Folder = None,
    json: Annotated[bool, typer.Option("--json", help="For machines: everything, whole.")] = False,
) -> None:
    """Show who would enter and leave, if the segments of a policy folder were put in force now.

    Asks the profiles in ClickHouse, with windows that end now; changes nothing. Compared is with what is in
    force, or, before the first `apply`, with the segments that everybody is in.
    """
    policy, settings = _checked(folder), Settings()
    control = _control(cluster.connect(settings))
    asked = planned(control, policy)
    if not asked:
        show.console().print(_nothing(control))
        return
    found = segment_plan.plan(warehouse.connect(settings), control, asked)
    if json:
        typer.echo(show.as_json(segment_plan.machine_form(found)))
        return
    _tell(show.console(), found, _uses(policy))


@app.command()
def apply(why: Why, folder: Folder = None) -> None:
    """Put the segments of a policy folder in force, without a restart. `plan` shows first what that will do.

    From the next cut of each partition on, events are asked by the new definitions; within a minute of the
    deployment's clock everybody else is looked at as well, spread evenly. Who enters or leaves by that is in
    the audit trail with this change as its cause, and sets no campaign off.

    The first time, apply the files that the workers run: that moves nobody, and says what later changes are
    measured by. Segments that do not go with the folder's campaigns are refused, and the old ones stay.
    """
    policy, settings = _checked(folder), Settings()
    client = cluster.connect(settings)
    control, running = _control(client), segment_plan.running(client, settings.partitions)
    _refuse_unlike(policy, control, running)
    asked = planned(control, policy)
    console = show.console()
    if control.segments and not asked:
        console.print(_nothing(control))
        return
    version = changing.set_segments(client, policy.segments, who(), why)
    if not control.segments:
        told = "They are those that the workers run: nobody moves."
    else:
        told = "; ".join(f"{_name(change)} {kind(change)}" for change in asked) + "."
    console.print(f"In force from control version {version} on. {told}", markup=False)


def _checked(folder: Path | None) -> Policy:
    """The policy of a folder; a problem with its segments ends the command."""
    place = folder or worker.policy_folder(Settings())
    files = policy_check.deciding(place)
    for problem in sorted(files.problems):
        typer.echo(str(problem))
    if files.problems:
        typer.echo(f"{len(files.problems)} problems in {place}; nothing was changed", err=True)
        raise typer.Exit(1)
    return files.policy()


def _control(client: Client) -> Control:
    reader = ControlReader(client)
    state = reader.poll()
    reader.close()
    return state


def _refuse_unlike(policy: Policy, control: Control, running: Sequence[str]) -> None:
    """Refuse what would leave unsaid what was in force before; warn of campaigns that are not those here.

    Raises PolicyError.
    """
    if not running:
        return
    if not control.segments:
        if policy.digest not in running:
            raise PolicyError(
                f"the workers run policy {', '.join(running)}, this is {policy.digest}. Apply the files that "
                "they run first: changes are measured by them. After that, apply these"
            )
        return
    try:
        same = with_segments(policy, control.segments[-1].segments).digest in running
    except PolicyError:
        same = False
    if not same:
        typer.echo(
            "warning: campaigns, contact policy or send time of the workers are not those of this folder; "
            "a worker whose campaigns do not go with the segments keeps the former ones and logs "
            "segments_refused",
            err=True,
        )


def _nothing(control: Control) -> str:
    since = control.segments[-1].version
    return (
        f"These segments are in force{f' since control version {since}' if since else ''}: nothing changes."
    )


def _uses(policy: Policy) -> Mapping[str, list[str]]:
    """Campaigns by the segments that they name."""
    uses: defaultdict[str, list[str]] = defaultdict(list)
    for campaign in policy.campaigns:
        named = {campaign.audience, campaign.trigger.enter, campaign.trigger.leave} - {None}
        for name in named:
            uses[str(name)].append(campaign.name)
    return uses


def _tell(console: Console, found: Plan, uses: Mapping[str, list[str]]) -> None:
    console.print(f"{show.many(found.profiles, 'profile')}, windows as of {show.moment(found.now)}")
    if found.unknown:
        console.print(
            f"Of {show.many(found.unknown, 'profile')} too little is recorded, and they count as if they had "
            "done nothing: `opportune restore-audit` fills them in."
        )
    right = ("in it", "enter", "leave", "then")
    table = show.table("segment", "change", *right, "used by", right=right)
    for each in found.movements:
        then = each.members + each.enters - each.leaves
        counts = (f"{count:,}" for count in (each.members, each.enters, each.leaves, then))
        name = _name(each.change)
        table.add_row(name, kind(each.change), *counts, ", ".join(uses.get(name, [])) or "–")
    console.print(table)
    for each in found.movements:
        _examples(console, each)
    console.print("Nobody is asked about a campaign because of this.", style="dim")


def _examples(console: Console, moved: Movement) -> None:
    for word, some in (("enter", moved.entering), ("leave", moved.leaving)):
        if some:
            names = ", ".join(map(show.printable, some))
            console.print(f"{word} {_name(moved.change)}, for example: {names}", markup=False, soft_wrap=True)


def _name(change: Change) -> str:
    segment = change.now or change.before
    return segment.name if segment else ""


def register(main: typer.Typer) -> None:
    """Add these commands."""
    main.add_typer(app, name="segments")
