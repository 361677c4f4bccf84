"""`opportune model ope | drift`: what the audit trail tells of send-time models."""

from typing import Annotated, Any, Final, Literal

import numpy as np
import typer

from models.off_policy import Estimate
from models.sendtime.drift import stability, surprise
from schemas.profile import DAY_MS, HOUR_MS
from schemas.settings import Settings
from streams import activity_trail, cluster, model_guard, model_trail, serving, warehouse
from streams import control as changing
from streams.cli import show
from streams.cli.model import app
from streams.model_trail import NothingLogged, Valued
from streams.policy import load_policy

_MOVED: Final = 0.2  # of the stability index: the usual mark
_FAR: Final = 0.5  # of the intercept, in logits; the study's figure
_REWARDS: Final = {"any": "active", "click": "a click"}

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

    Each send counts by how much more or less likely the other policy would have taken its hour: SNIPS. DR
    adds what the hour of day alone tells of the hours that it would have taken. Intervals are over
    recipients; --json has IPS too. `gain` is against the policy that chose, by SNIPS. Left out are sends
    released in another hour than the chosen one, recipients without a profile, the control arm, and campaigns
    that send at once; what a lane held up after the release is not seen. A value that rests on too few
    recipients is marked: no interval heals that.
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
    right = ("sends", "SNIPS", "DR", "gain", "effective", "weight")
    table = show.table("policy", *right, "", right=right)
    for each in policies:
        snips, weight = each.value.snips, each.value.mean_weight
        mark = "" if snips.reliable else "rests on too little"
        effective = f"{each.value.ess:,.0f}"
        table.add_row(
            each.policy,
            f"{each.rows:,}",
            _interval(snips),
            _interval(each.value.dr),
            _interval(each.gain.snips),
            effective,
            f"{weight.value:.2f}",
            mark,
        )
    console.print(table)


def _for_machines(each: Valued) -> dict[str, Any]:
    def plain(estimate: Estimate | None) -> dict[str, Any] | None:
        return None if estimate is None else {name: _finite(value) for name, value in vars(estimate).items()}

    value = each.value
    return {
        "policy": each.policy,
        "sends": each.rows,
        "ips": plain(value.ips),
        "snips": plain(value.snips),
        "dr": plain(value.dr),
        "mean_weight": plain(value.mean_weight),
        "effective_sends": value.ess,
        "gain": {way: plain(getattr(each.gain, way)) for way in ("ips", "snips", "dr")},
    }


def _finite(value: Any) -> Any:
    """JSON has neither infinity nor nan."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or not np.isfinite(estimate.value):
        return "–"
    if not np.isfinite([estimate.low, estimate.high]).all():
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def drift(days: Days = 14, as_json: Json = False) -> None:
    """Tell whether the champion still fits: its surprise beside simple rules', and how its choices moved.

    Retrain where it is more surprised than the profile alone for two weeks, or where hours have moved and
    nothing else explains it. Of a model with a second head, which tells rewards, the surprise means nothing.
    """
    settings = Settings()
    client, house = cluster.connect(settings), warehouse.connect(settings)
    until, control = changing.now(client), changing.current(client)
    policy = load_policy(settings)
    models = serving.Serving(policy.send_time, lambda: serving.trusted_keys(settings)).models(control)
    activity, _ = activity_trail.activity_of(
        house, until, activity_trail.HISTORY_DAYS, policy.contact.default_zone
    )
    last, first = until // HOUR_MS, until // HOUR_MS - days * 24
    found = surprise(models.champion, activity, first, last)
    moved, sends = _moved(house, until, days)
    log_odds = control.intercept_of(models.champion.version)
    if as_json:
        surprises = {name: _finite(value) for name, value in vars(found).items()}
        told = {"version": models.champion.version, "surprise": surprises, "stability": moved, "sends": sends}
        typer.echo(show.as_json(told | {"log_odds": log_odds}))
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
    if log_odds:
        console.print(f"Its log-odds are shifted by {log_odds:+.2f} (`opportune model guard`).")
    if abs(log_odds) > _FAR:
        console.print("That is far: people come back otherwise than in training. Train anew.", style="bold")
    if control.line and model_guard.rewarded(control.line[-1]) != model_guard.ACTIVE:
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


def register(_: typer.Typer) -> None:
    """Add these commands to `opportune model`."""
    for name, command in (("ope", ope), ("drift", drift)):
        app.command(name)(command)
