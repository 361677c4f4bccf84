"""`opportune model guard`: models in force that correct themselves, and a canary that is taken back."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from models.sendtime import intercept
from models.sendtime.model import HourModel
from schemas.profile import DAY_MS, HOUR_MS
from schemas.settings import Settings
from schemas.units import Milliseconds
from streams import activity_trail, cluster, model_guard, model_trail, serving, warehouse
from streams import control as changing
from streams.cli import show
from streams.cli.model import app
from streams.control import ModelChange
from streams.engine.control import Control, Deployed
from streams.engine.kafka import Client
from streams.model_guard import ACTIVE, Judged, rewarded
from streams.model_trail import NothingLogged
from streams.policy import load_policy
from streams.warehouse import Warehouse

_WHO = "model guard"


def guard(
    every: Annotated[
        str | None,
        typer.Option(
            help='Go on, and look again so often, as "10 min". Default: look once.', show_default=False
        ),
    ] = None,
    days: Annotated[
        int,
        typer.Option(min=1, help="A canary's sends of the latest so many days of the deployment's clock."),
    ] = 7,
) -> None:
    """Keep the probabilities of models in force true, and take a canary back that goes wrong all the same.

    Once a day of the deployment's clock, champion and canary are asked about the visits of the last 14 days:
    where they told more or less activity than there was, their log-odds are shifted, by one at most. That
    moves scores, no hours. At each look a canary's sends are judged whose hour has passed: it is taken back
    where its probabilities are surely a quarter off, and farther off than the champion's. Both is done as
    `model guard`, with the figures in `opportune control log`. Looking once, exit code 3 says that a canary
    was taken back.
    """
    settings, pause = Settings(), None if every is None else int(Milliseconds.parse(every)) / 1000
    house, client = warehouse.connect(settings), cluster.connect(settings)
    today = None
    while True:
        now = changing.now(client)
        if now // DAY_MS != today:
            today = now // DAY_MS
            _correct(settings, client, house, now)
        taken_back = _judge(client, house, now, days)
        if pause is None:
            raise typer.Exit(3 if taken_back else 0)
        time.sleep(pause)


def _correct(settings: Settings, client: Client, house: Warehouse, now: int) -> None:
    """Shift the log-odds of the models in force where they no longer fit."""
    control, policy = changing.current(client), load_policy(settings)
    until = min(now, activity_trail.latest(house))  # what RECORD has not written yet did not fail to happen
    activity, _ = activity_trail.activity_of(
        house, until, activity_trail.HISTORY_DAYS, policy.contact.default_zone
    )
    models = serving.Serving(policy.send_time, lambda: serving.trusted_keys(settings))
    for model in _of_activity(models, control):
        change = model_guard.moved_intercept(model, control, activity, until // HOUR_MS)
        if change is None:
            typer.echo(f"{model.version}: log-odds {control.intercept_of(model.version):+.2f}, as before")
            continue
        why = f"the visits of the last {intercept.DAYS} days"
        number = changing.set_intercept(client, change, _WHO, why)
        typer.echo(f"{model.version}: log-odds {change.log_odds:+.2f} from control version {number} on")


def _of_activity(models: serving.Serving, control: Control) -> Iterator[HourModel]:
    """Champion and canary as they were trained, if their probabilities are of being active."""
    found = models.as_trained(control)
    deployed = {each.version: each for each in (*control.champions, control.canary) if each is not None}
    for model in (found.champion, found.canary):
        if model is not None and rewarded(deployed.get(model.version)) == ACTIVE:
            yield model


def _champion(control: Control) -> Deployed | None:
    return control.line[-1] if control.line else None


def _judge(client: Client, house: Warehouse, now: int, days: int) -> bool:
    """Judge the canary, if there is one; whether it was taken back."""
    control = changing.current(client)
    canary = control.canary
    if canary is None:
        typer.echo("No canary on trial.")
        return False
    told, why = _judged(house, now, control, canary, days)
    typer.echo(told)
    if why:
        number = changing.set_model(client, ModelChange(canary.version, "none"), _WHO, why)
        typer.echo(f"{canary.version} was taken back from control version {number} on: {why}", err=True)
    return bool(why)


def _judged(house: Warehouse, until: int, control: Control, canary: Deployed, days: int) -> tuple[str, str]:
    """What a canary's sends before `until` (UTC ms) tell, and why it is to be taken back, empty if it is not.

    By what its probabilities are of; the champion beside, if its are of the same.
    """
    of = rewarded(canary)
    try:
        found = model_trail.sends(house, until - days * DAY_MS, until - (of[0] + 1) * HOUR_MS, *of)
    except NothingLogged:
        return f"{canary.version}: no send yet", ""
    on_trial = (
        found["canary"] & (found["model"] == canary.version) & (found["control_version"] >= canary.since)
    )
    alike = ~found["canary"] & (of == rewarded(_champion(control)))
    what = "active" if of == ACTIVE else "rewarded"
    judged, beside = Judged.of(found.picked(on_trial), what), Judged.of(found.picked(alike), what)
    ratio = "too few to judge" if judged.ratio is None else f"told {judged.ratio:.2f} times what happened"
    return f"{canary.version}: {show.many(judged.sends, 'send')}, {ratio}", model_guard.breach(judged, beside)


def register(_: typer.Typer) -> None:
    """Add this command to `opportune model`."""
    app.command()(guard)
