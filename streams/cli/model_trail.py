"""`opportune model ope | drift | guard`: what the audit trail tells of send-time models."""

import json
import time
from typing import Annotated, Any, Final, Literal

import numpy as np
import typer

from models.off_policy import Estimate
from models.sendtime.drift import stability, surprise
from schemas.profile import DAY_MS, HOUR_MS
from schemas.settings import Settings
from schemas.units import Milliseconds
from streams import activity_trail, cluster, model_guard, model_trail, serving, warehouse, worker
from streams import control as changing
from streams.cli import show
from streams.cli.model import app
from streams.control import ModelChange
from streams.engine.control import Control, Deployed
from streams.model_guard import Judged
from streams.model_trail import NothingLogged, Valued

_MOVED: Final = 0.2  # of the stability index: the usual mark
_GUARD: Final = "model guard"
_REWARDS: Final = {"any": "active", "click": "a click"}
_ACTIVE: Final[tuple[int, Literal["any", "click"]]] = (1, "any")

Days = Annotated[int, typer.Option(min=1, help="The latest so many days of the deployment's clock.")]
Hours = Annotated[
    int,
    typer.Option(
        min=1, max=168, help="A send is rewarded by what happens within so many hours after its own."
    ),
]
Reward = Annotated[
    Literal["any", "click"], typer.Option(help="What is rewarded: any activity, or a click by a person.")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def ope(days: Days = 30, hours: Hours = 3, reward: Reward = "any", as_json: Json = False) -> None:
    """Value policies that were not in force, on the sends whose hours a model drew: off-policy evaluation.

    Each send counts by how much more or less likely the other policy would have taken its hour (SNIPS;
    intervals over recipients). `gain` is against the policy that chose. Left out are sends released in
    another hour than the chosen one, recipients without a profile, the control arm, and campaigns that send
    at once; what a lane held up after the release is not seen. A value that rests on too few recipients is
    marked: no interval heals that.
    """
    until = changing.now(cluster.connect(Settings()))
    found = model_trail.sends(
        warehouse.connect(Settings()), until - days * DAY_MS, until - hours * HOUR_MS, hours, reward
    )
    policies = model_trail.valued(found)
    if as_json:
        typer.echo(
            show.as_json({"sends": len(found), "policies": [_for_machines(each) for each in policies]})
        )
        return
    console = show.console()
    people = show.many(len(np.unique(found["unit"])), "recipient")
    console.print(
        f"{show.many(len(found), 'send')} of {people}; rewarded: {_REWARDS[reward]} within "
        f"{show.many(hours, 'hour')} after.",
        soft_wrap=True,
    )
    right = ("sends", "value", "gain", "effective sends", "mean weight")
    table = show.table("policy", *right, "", right=right)
    for each in policies:
        snips, weight = each.value.snips, each.value.mean_weight
        mark = "" if snips.reliable else "rests on too little"
        effective = f"{each.value.ess:,.0f}"
        table.add_row(
            each.policy,
            f"{each.rows:,}",
            _interval(snips),
            _interval(each.gain),
            effective,
            f"{weight.value:.2f}",
            mark,
        )
    console.print(table)


def _for_machines(each: Valued) -> dict[str, Any]:
    def plain(estimate: Estimate) -> dict[str, Any]:
        return {name: _finite(value) for name, value in vars(estimate).items()}

    value = each.value
    return {
        "policy": each.policy,
        "sends": each.rows,
        "ips": plain(value.ips),
        "snips": plain(value.snips),
        "mean_weight": plain(value.mean_weight),
        "effective_sends": value.ess,
        "gain": plain(each.gain),
    }


def _finite(value: Any) -> Any:
    """JSON has neither infinity nor nan."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _interval(estimate: Estimate) -> str:
    if not np.isfinite([estimate.value, estimate.low, estimate.high]).all():
        return f"{estimate.value:.4f}" if np.isfinite(estimate.value) else "–"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def drift(days: Days = 14, as_json: Json = False) -> None:
    """Tell whether the champion still fits: its surprise beside simple rules', and how its choices moved.

    Retrain where it is more surprised than the profile alone for two weeks, or where hours have moved and
    nothing else explains it. Of a model with a second head, which tells rewards, the surprise means nothing.
    """
    settings = Settings()
    client, house = cluster.connect(settings), warehouse.connect(settings)
    until, control = changing.now(client), changing.current(client)
    policy = worker.load_policy(settings)
    models = serving.Serving(policy.send_time, lambda: serving.trusted_keys(settings)).models(control)
    activity, _ = activity_trail.activity_of(house, until, 365, policy.contact.default_zone)
    last, first = until // HOUR_MS, until // HOUR_MS - days * 24
    found = surprise(models.champion, activity, first, last)
    moved, sends = _moved(house, until, days)
    if as_json:
        surprises = {name: _finite(value) for name, value in vars(found).items()}
        told = {"version": models.champion.version, "surprise": surprises, "stability": moved, "sends": sends}
        typer.echo(show.as_json(told))
        return
    console = show.console()
    visits = show.many(found.windows, "visit")
    console.print(
        f"{models.champion.version}, {visits} of the last {show.many(days, 'day')} followed by one in a day.",
        soft_wrap=True,
    )
    table = show.table("surprise, nats", "value", right=("value",))
    for name, value in (
        ("the model", found.model),
        ("own hours alone", found.profile),
        ("everybody's", found.everybody),
    ):
        table.add_row(name, f"{value:.3f}")
    console.print(table)
    tiers = ", ".join(f"{name} {share:.0%}" for name, share in found.tiers.items())
    console.print(f"Recipients by what is known: {tiers}.")
    word = "moved" if moved > _MOVED else "stable"
    console.print(
        f"Chosen hours of day beside those of the {show.many(days, 'day')} before: {moved:.3f}, {word}."
    )
    if control.line and _rewarded(control.line[-1]) != _ACTIVE:
        console.print("It has a second head and tells rewards: its surprise means nothing.")
    elif found.model > found.profile:
        console.print("The model is more surprised than own hours alone: train a new one.", style="bold")


def _moved(house: warehouse.Warehouse, until: int, days: int) -> tuple[float, int]:
    """The index of the hours chosen in the last days and in as many before, and how many sends it is of."""
    try:
        sends = model_trail.sends(house, until - 2 * days * DAY_MS, until, 1, "any")
    except NothingLogged:
        return 0.0, 0
    after = sends["at"] * 1000 >= until - days * DAY_MS
    counts = [np.bincount(sends["slot"][which].astype(np.int64), minlength=24) for which in (~after, after)]
    return stability(*counts), len(sends)


def guard(
    every: Annotated[
        str | None,
        typer.Option(
            help='Go on, and look again so often, as "10 min". Default: look once.', show_default=False
        ),
    ] = None,
    days: Days = 7,
) -> None:
    """Take a canary back whose probabilities go wrong, as its own doing, with the figures in control's log.

    Judges sends whose hour has passed. A canary is taken back where it is surely a quarter off, and farther
    off than the champion. Looking once, exit code 3 says that it was.
    """
    settings, pause = Settings(), None if every is None else int(Milliseconds.parse(every)) / 1000
    house, client = warehouse.connect(settings), cluster.connect(settings)
    while True:
        control = changing.current(client)
        canary = control.canary
        if canary is not None:
            told, why = _judged(house, changing.now(client), control, canary, days)
            typer.echo(told)
            if why:
                number = changing.set_model(client, ModelChange(canary.version, "none"), _GUARD, why)
                typer.echo(
                    f"{canary.version} was taken back from control version {number} on: {why}", err=True
                )
                if pause is None:
                    raise typer.Exit(3)
        elif pause is None:
            typer.echo("No canary: nothing to guard.")
        if pause is None:
            return
        time.sleep(pause)


def _judged(
    house: warehouse.Warehouse, until: int, control: Control, canary: Deployed, days: int
) -> tuple[str, str]:
    """What a canary's sends before `until` (UTC ms) tell, and why it is to be taken back, empty if it is not.

    By what its probabilities are of; the champion beside, if its are of the same.
    """
    of = _rewarded(canary)
    try:
        found = model_trail.sends(house, until - days * DAY_MS, until - (of[0] + 1) * HOUR_MS, *of)
    except NothingLogged:
        return f"{canary.version}: no send yet", ""
    on_trial = (
        found["canary"] & (found["model"] == canary.version) & (found["control_version"] >= canary.since)
    )
    champion = control.line[-1] if control.line else None
    alike = ~found["canary"] & (of == (_ACTIVE if champion is None else _rewarded(champion)))
    what = "active" if of == _ACTIVE else "rewarded"
    judged, beside = Judged.of(found.picked(on_trial), what), Judged.of(found.picked(alike), what)
    ratio = "too few to judge" if judged.ratio is None else f"told {judged.ratio:.2f} times what happened"
    return f"{canary.version}: {show.many(judged.sends, 'send')}, {ratio}", model_guard.breach(judged, beside)


def _rewarded(model: Deployed) -> tuple[int, Literal["any", "click"]]:
    """What a model's probabilities are of: within how many hours, and what; of a first head being active."""
    second = json.loads(model.card).get("second_head") if model.card else None
    return _ACTIVE if second is None else (second["hours"], second["reward"])


def register(_: typer.Typer) -> None:
    """Add these commands to `opportune model`."""
    for name, command in (("ope", ope), ("drift", drift), ("guard", guard)):
        app.command(name)(command)
