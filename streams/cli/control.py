"""`opportune pause | resume | clock | control`: what operators change while workers run."""

import getpass
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from schemas import policy_files
from schemas.profile import HOUR_MS
from schemas.routes import DEFAULT_IDENTITY, LaneName
from schemas.scopes import SCOPES, Scope, Scoped, Scopes
from schemas.settings import Settings
from streams import cluster
from streams import control as changing
from streams.cli import show
from streams.control import Change, FullHours, ModelChange, ModelIntercept, Pause
from streams.engine.control import Clock, Control, Deployed
from streams.engine.kafka import Client
from streams.policy import policy_folder

_EFFECT: Final = (
    "Each partition makes a cut for it, within about a second where a worker runs, after the one in flight; "
    "decisions and commands from then on carry the new version."
)
Why = Annotated[str, typer.Option("--why", help="Why, for whoever reads `opportune control log` later.")]
OfCampaign = Annotated[str | None, typer.Option(help="Only this campaign, by its name in the policy files.")]
OfLane = Annotated[
    str | None,
    typer.Option(help="Only this lane, for example gmail or news/gmail, with all its parts; gmail#3 is one."),
]
OfProvider = Annotated[
    str | None, typer.Option(help="Only what goes to this mailbox provider, on whichever lane.")
]
OfSegment = Annotated[
    str | None, typer.Option(help="Only campaigns that this segment sets off, or whose audience it is.")
]
OfTemplate = Annotated[str | None, typer.Option(help="Only messages of this template.")]
OfModel = Annotated[
    str | None, typer.Option(help="Only messages whose hour this version of the send-time model chose.")
]

clock_app = typer.Typer(
    no_args_is_help=True,
    help="What time it is for every role. Cuts never go back in time: set to an earlier time, they stand "
    "still until the clock has caught up with the last cut.",
)
control_app = typer.Typer(
    no_args_is_help=True,
    help="What was changed while workers run: pauses, clock, segments, models and full hours.",
)


def pause(
    why: Why,
    campaign: OfCampaign = None,
    lane: OfLane = None,
    provider: OfProvider = None,
    segment: OfSegment = None,
    template: OfTemplate = None,
    model: OfModel = None,
) -> None:
    """Stop sending until `opportune resume`: everything, or only what one option names.

    A pause of everything holds back releases and deliveries; any other only deliveries, so what is released
    meanwhile waits in its lane. Events are still taken in, profiles kept and decisions made; what waits
    expires when its time has passed. Asked again right before each message goes out.
    """
    client = cluster.connect(Settings())
    what = Pause(True, _named(locals()))
    _refuse_unknown(what.of, client)
    version = changing.set_paused(client, what, who(), why)
    _say(f"Paused: {scope(what)} is held from control version {version} on. {_EFFECT}")


def resume(
    why: Why,
    campaign: OfCampaign = None,
    lane: OfLane = None,
    provider: OfProvider = None,
    segment: OfSegment = None,
    template: OfTemplate = None,
    model: OfModel = None,
) -> None:
    """Send again: everything, or only what one option names; each pause ends by its own resume.

    What has come due meanwhile is released at once if its gates still pass.
    """
    what = Pause(False, _named(locals()))  # also of what the policy lacks by now
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
    """Show what is paused now, the clock, full hours, and which segments and models are in force."""
    state = changing.current(cluster.connect(Settings()))
    held = ["everything"] if state.paused else []
    held += [" ".join(of) for of in sorted(state.held)]
    _say(f"paused    {', '.join(held) or 'nothing'}")
    _say(f"clock     {described(state.clock, _wall())} (control version {state.version})")
    _say(f"segments  {_segments(state)}")
    _say(f"full      {full_hours(state.full)}")
    champion = state.champions[-1] if state.champions else None
    for role, model in (("model", champion), ("canary", state.canary), ("shadow", state.shadow)):
        _say(f"{role:<10}{_model(model, state)}")


@control_app.command()
def log() -> None:
    """List every change that was made while workers run, oldest first: version, when, who, what, why."""
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
    if isinstance(change.what, FullHours):
        return f"full hours: {full_hours(change.what.full)}"
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
    return "everything" if pause.of is None else " ".join(pause.of)


def full_hours(full: Mapping[str, frozenset[int]]) -> str:
    """Say which hours are full: how many of each provider, and the first and the last of them."""
    told = [
        f"{provider} {show.many(len(hours), 'hour')} from {show.moment(min(hours) * HOUR_MS)}"
        f" to {show.moment((max(hours) + 1) * HOUR_MS)}"
        for provider, hours in sorted(full.items())
    ]
    return ", ".join(told) or "none"


def _named(options: Mapping[str, Any]) -> Scoped | None:
    """The one scope that options name; None: everything. Raises BadParameter where they name two."""
    named: list[Scoped] = [(scope, options[scope]) for scope in SCOPES if options[scope] is not None]
    if len(named) > 1:
        hint = " / ".join(f"--{scope}" for scope, _ in named)
        raise typer.BadParameter("name one of them, and the next in a pause of its own", param_hint=hint)
    if not named:
        return None
    scope, name = named[0]
    return scope, str(LaneName.of(name)) if scope == "lane" else name


def _refuse_unknown(of: Scoped | None, client: Client) -> None:
    """Raise BadParameter where a pause names what does not exist, with what does."""
    if of is None:
        return
    scope, name = of
    known = {*changing.current(client).models} if scope == "model" else _known(scope)
    if name not in known:
        raise typer.BadParameter(
            f"no {scope} {name!r}; there are {', '.join(sorted(known))}", param_hint=f"--{scope}"
        )


def _known(scope: Scope) -> set[str]:
    """The names that the policy files have for a scope."""
    folder = policy_folder(Settings())
    providers = {*policy_files.load_providers(folder).names}
    if scope == "provider":
        return providers
    if scope == "lane":
        lanes = policy_files.load_lanes(folder)
        whole = [LaneName(each, of) for of in (DEFAULT_IDENTITY, *lanes.identities) for each in providers]
        return {str(replace(each, part=part)) for each in whole for part in range(lanes.of(str(each)).parts)}
    policy = policy_files.load(folder)
    if scope == "segment":
        return {name for names in Scopes.of(policy.campaigns).segments.values() for name in names}
    return {each.template if scope == "template" else each.name for each in policy.campaigns}


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
