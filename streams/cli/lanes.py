"""`opportune lanes`: how fast each mailbox provider is written to now, and what waits."""

from typing import Annotated, Final

import typer

from schemas import policy_files
from schemas.settings import Settings
from streams import cluster, lane_standings
from streams import control as changing
from streams.cli import show
from streams.lane_standings import LaneStanding
from streams.policy import policy_folder

_PER: Final = ((1, "s"), (60, "min"), (3600, "hr"))

app = typer.Typer()


@app.callback(invoke_without_command=True)
def lanes(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show each lane: its pace beside the rate that is set, what waits, deferrals, stops, warm-up.

    By the last cut of DELIVER for each, made at the time in `as of`: where messages wait and that is old, no
    DELIVER runs. A lane that goes slower than is set was deferred too often, or is warming up. `tokens`:
    messages that might go at once. `deferred`: of the day's answers. `empty`: when all that waits will have
    gone at this pace, if nothing else comes. A relay that cannot be reached is told in DELIVER's log. Times
    are of the deployment's clock.
    """
    if context.invoked_subcommand is not None:
        return
    settings = Settings()
    setting = policy_files.load_lanes(policy_folder(settings))
    client = cluster.connect(settings)
    control, now = changing.current(client), changing.now(client)
    found = lane_standings.standings(client, settings.partitions, setting, control, now)
    if as_json:
        typer.echo(show.as_json([_for_machines(each) for each in found]))
        return
    if not found:
        typer.echo("Nothing was to be sent yet: no lane has a pace.")
        return
    right = ("pace", "set", "tokens", "waiting", "deferred")
    table = show.table("lane", *right, "state", "warm-up", "empty", "as of", right=right)
    for each in found:
        deferred = f"{each.refused / each.told:.1%}" if each.told else "–"
        table.add_row(
            show.printable(each.lane),
            _rate(each.rate),
            str(each.set.rate),
            str(each.tokens),
            f"{each.waiting:,}",
            deferred,
            _state(each),
            _warm_up(each),
            show.moment(each.empty_at),
            show.moment(each.cut_at),
        )
    show.console().print(table)


def _rate(per_second: float) -> str:
    """Print a rate of any size in three digits, per second, minute or hour."""
    seconds, unit = next((s, u) for s, u in _PER if per_second * s >= 1 or u == "hr")
    return f"{per_second * seconds:.3g}/{unit}"


def _state(standing: LaneStanding) -> str:
    if standing.held:
        return "paused (`opportune control show`)"
    if standing.stopped_until is not None:
        return f"stopped until {show.moment(standing.stopped_until)}"
    if standing.opens_at is not None:
        return f"day used up, goes on {show.moment(standing.opens_at)}"
    return "trying, one at a time" if standing.probing else "going"


def _warm_up(standing: LaneStanding) -> str:
    if standing.allowed is None:
        return "–"
    return f"day {standing.warm_day}: {standing.begun:,} of {standing.allowed:,.0f}"


def _for_machines(standing: LaneStanding) -> dict[str, object]:
    plain = {name: value for name, value in vars(standing).items() if name != "set"}
    times = ("at", "cut_at", "stopped_until", "opens_at", "empty_at")
    moments = {name: getattr(standing, name) for name in times}
    at = {name: None if moment is None else show.iso(moment) for name, moment in moments.items()}
    return plain | {"rate_set": float(standing.set.rate)} | at


def register(main: typer.Typer) -> None:
    """Add `opportune lanes`."""
    main.add_typer(app, name="lanes")
