"""`opportune pause | resume | clock | control`: what operators change while workers run."""

import getpass
import os
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from schemas import policy_files
from schemas.lanes import OTHER_PROVIDER
from schemas.settings import Settings
from streams import cluster, worker
from streams import control as changing
from streams.cli import show
from streams.control import Change, ModelChange, ModelIntercept, Pause
from streams.engine.control import Clock, Control, Deployed

_EFFECT: Final = (
    "Each partition makes a cut for it, within about a second where a worker runs, after the one in flight; "
    "decisions and commands from then on carry the new version."
)
Why = Annotated[str, typer.Option("--why", help="Why, for whoever reads `opportune control log` later.")]
OfCampaign = Annotated[
    str | None, typer.Option("--campaign", help="Only this campaign, by its name in the policy files.")
]
OfLane = Annotated[str | None, typer.Option("--lane", help="Only this lane, for example gmail.")]

clock_app = typer.Typer(
    no_args_is_help=True,
    help="What time it is for every role. Cuts never go back in time: set to an earlier time, they stand "
    "still until the clock has caught up with the last cut.",
)
control_app = typer.Typer(
    no_args_is_help=True, help="What operators have changed: pause, clock, segments and models."
)


def pause(why: Why, campaign: OfCampaign = None, lane: OfLane = None) -> None:
    """Stop sending until `opportune resume`: everything, or one campaign, or one lane.

    A pause of everything holds back releases and deliveries; one of a campaign or a lane only deliveries, so
    what is released meanwhile waits in its lane. Events are still taken in, profiles kept and decisions
    made; what waits expires when its time has passed. Asked again right before each message goes out.
    """
    what = _pause(True, campaign, lane)
    version = changing.set_paused(cluster.connect(Settings()), what, who(), why)
    _say(f"Paused: {scope(what)} is held from control version {version} on. {_EFFECT}")


def resume(why: Why, campaign: OfCampaign = None, lane: OfLane = None) -> None:
    """Send again: everything, or one campaign, or one lane; each pause ends by its own resume.

    What has come due meanwhile is released at once if its gates still pass.
    """
    what = _pause(False, campaign, lane)
    version = changing.set_paused(cluster.connect(Settings()), what, who(), why)
    _say(f"Resumed: {scope(what)} goes on from control version {version} on. {_EFFECT}")


@clock_app.command()
def real(why: Why) -> None:
    """Follow the wall clock."""
    version = changing.set_clock(cluster.connect(Settings()), Clock(), who(), why)
    _say(f"The clock is real from control version {version} on. {_EFFECT}")


@clock_app.command()
def scaled(
    origin: Annotated[
        str,
        typer.Option(
            help="Time that it shows now, ISO 8601: 2017-02-03T17:00 (UTC unless it says otherwise)."
        ),
    ],
    speed: Annotated[
        str, typer.Option(help="How much faster than the wall clock: 600x is ten minutes a second.")
    ],
    why: Why,
) -> None:
    """Run from a time of your choice at your speed, so that a past day can be lived through in minutes."""
    wall = _wall()
    clock = Clock("scaled", parse_origin(origin), wall, parse_speed(speed))
    version = changing.set_clock(cluster.connect(Settings()), clock, who(), why)
    _say(f"The clock is {described(clock, wall)} from control version {version} on. {_EFFECT}")


@clock_app.command(name="show")
def show_clock() -> None:
    """Show the clock's setting and what time it is."""
    state = changing.current(cluster.connect(Settings()))
    _say(f"{described(state.clock, _wall())} (control version {state.version})")


@control_app.command(name="show")
def show_control() -> None:
    """Show what is paused now, the clock, and since when which segments and models are in force."""
    state = changing.current(cluster.connect(Settings()))
    held = ["everything"] if state.paused else []
    held += [f"campaign {name}" for name in sorted(state.paused_campaigns)]
    held += [f"lane {name}" for name in sorted(state.paused_lanes)]
    _say(f"paused    {', '.join(held) or 'nothing'}")
    _say(f"clock     {described(state.clock, _wall())} (control version {state.version})")
    _say(f"segments  {_segments(state)}")
    champion = state.champions[-1] if state.champions else None
    for role, model in (("model", champion), ("canary", state.canary), ("shadow", state.shadow)):
        _say(f"{role:<10}{_model(model, state)}")


@control_app.command()
def log() -> None:
    """List every change of pause, clock, segments and models, oldest first: version, when, who, what, why."""
    table = show.table("version", "when", "who", "what", "why")
    for change in changing.history(cluster.connect(Settings())):
        what = describe_change(change)
        table.add_row(
            str(change.state.version),
            show.moment(change.at),
            show.printable(change.who),
            what,
            show.printable(change.why),
        )
    if not table.row_count:
        _say("Nothing was ever changed: not paused, clock real.")
        return
    show.console().print(table)


def describe_change(change: Change) -> str:
    """Say in a few words what a change led to."""
    if isinstance(change.what, Pause):
        return f"{'paused' if change.what.paused else 'resumed'}: {scope(change.what)}"
    if isinstance(change.what, Clock):
        return f"clock {described(change.what, change.at)}"
    if isinstance(change.what, ModelChange):
        model = change.what
        share = f" for {model.share:.0%}" if model.role == "canary" else ""
        return f"model {model.version}: {'no longer asked' if model.role == 'none' else model.role}{share}"
    if isinstance(change.what, ModelIntercept):
        return f"model {change.what.model}: log-odds {change.what.log_odds:+.2f}"
    names = ", ".join(segment.name for segment in change.what)
    return f"segments in force: {names or 'none'}"


def _segments(state: Control) -> str:
    if not state.segments:
        return "those of the policy files"
    since = state.segments[-1].version
    told = f"since control version {since}" if since else "the first that were put in force"
    return f"{told} (`opportune segments show`)"


def _model(model: Deployed | None, state: Control) -> str:
    if model is None:
        return "none"
    share = f", {model.share:.0%} of recipients" if model.share else ""
    log_odds = state.intercept_of(model.version)
    shifted = f", log-odds {log_odds:+.2f}" if log_odds else ""
    return f"{model.version} since control version {model.since}{share}{shifted}"


def described(clock: Clock, wall: int) -> str:
    """Say how a clock runs and what it shows at a wall clock in UTC ms."""
    if clock.mode == "plan":
        return f"told by plan {clock.plan_id}, and stands still once that has ended"
    shown = show.moment(clock.now(wall))
    if clock.mode == "real":
        return f"real: {shown}"
    return f"scaled: {shown} at {clock.speed:g}x"


def scope(pause: Pause) -> str:
    """Name what a pause is about."""
    if pause.campaign is not None:
        return f"campaign {pause.campaign}"
    return "everything" if pause.lane is None else f"lane {pause.lane}"


def _pause(paused: bool, campaign: str | None, lane: str | None) -> Pause:
    """Check the scope. Raises BadParameter where it names two, or one that the policy lacks."""
    if campaign is not None and lane is not None:
        raise typer.BadParameter("name a campaign or a lane, not both", param_hint="--campaign / --lane")
    folder, lanes = worker.policy_folder(Settings()), {OTHER_PROVIDER}
    lanes |= {*policy_files.load_lanes(folder).lane, *policy_files.load_providers(folder).provider}
    campaigns = {each.name for each in policy_files.load(folder).campaigns}
    for what, name, known in (("campaign", campaign, campaigns), ("lane", lane, lanes)):
        # A resume of what is gone from the policy must still be possible.
        if paused and name is not None and name not in known:
            raise typer.BadParameter(
                f"no {what} {name!r}; there are {', '.join(sorted(known))}", param_hint=f"--{what}"
            )
    return Pause(paused, campaign, lane)


def parse_speed(text: str) -> float:
    """Read `600x`, `600` or `0.5x`. Raises BadParameter with what would be right."""
    try:
        speed = float(text.strip().lower().removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(f'{text!r} is no speed; write for example "600x"', param_hint="--speed")
    return speed


def parse_origin(text: str) -> int:
    """Read an ISO 8601 time as UTC ms, UTC where it names no offset. Raises BadParameter."""
    try:
        origin = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 time; write for example 2017-02-03T17:00", param_hint="--origin"
        ) from None
    if origin.tzinfo is None:
        origin = origin.replace(tzinfo=UTC)
    return round(origin.timestamp() * 1000)


def who() -> str:
    """Name of the operating system's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"


def register(main: typer.Typer) -> None:
    """Add these commands."""
    main.command()(pause)
    main.command()(resume)
    main.add_typer(clock_app, name="clock")
    main.add_typer(control_app, name="control")


def _say(text: str) -> None:
    show.console().print(text, markup=False)


def _wall() -> int:
    return time.time_ns() // 1_000_000
