"""`opportune model train | list | card | promote | rollback | retire`."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from models.hours import CANDIDATES
from models.sendtime.evaluation import Estimate
from schemas.profile import DAY_MS, HOUR_MS
from schemas.settings import Settings
from streams import (
    activity_trail,
    cluster,
    event_file,
    model_registry,
    model_trail,
    model_training,
    serving,
    warehouse,
)
from streams import control as changing
from streams.cli import show
from streams.cli.control import Why, who
from streams.cli.model import At, DefaultZone, Recipient, Zone, app, steps
from streams.event_file import Columns
from streams.model_registry import Known
from streams.model_training import Source
from streams.policy import load_policy

_STEPS: Final = 14
_EFFECT: Final = (
    "Each partition makes a cut for it; from that cut on decisions name it (`opportune control log`, and the "
    "columns model and control_version of decision)."
)
Version = Annotated[str, typer.Argument(help="Version id, or its beginning.")]


class Stage(StrEnum):
    """Role that a version is promoted to."""

    SHADOW = "shadow"
    CANARY = "canary"
    CHAMPION = "champion"


def train(
    events: Annotated[
        Path | None,
        typer.Option(
            help="CSV (also .gz) or Parquet, one event a row. Default: the table activity in ClickHouse.",
            show_default=False,
        ),
    ] = None,
    recipient: Recipient = "recipient",
    at: At = "at",
    zone: Zone = None,
    default_zone: DefaultZone = "UTC",
    days: Annotated[
        int, typer.Option(min=1, help="Of ClickHouse's table: the latest so many days in it.")
    ] = activity_trail.HISTORY_DAYS,
) -> None:
    """Train a model, evaluate it, sign it, and keep it in the registry as a candidate.

    It is evaluated first, trained on all but the latest quarter, and the card says with what result; then it
    is trained on everything. Workers know nothing of it before `opportune model promote`.
    """
    settings = Settings()
    with steps("training", _STEPS) as report:
        report("events")
        if events is not None:
            activity, number = event_file.read(events, Columns(recipient, at, zone, default_zone))
            source = Source(events.name, number)
        else:
            house = warehouse.connect(settings)
            until = activity_trail.latest(house)
            activity, _ = activity_trail.activity_of(house, until, days, default_zone)
            source = Source("clickhouse", None)
        key = model_registry.signing_key(settings, _note)
        artefact, found = model_training.train(activity, CANDIDATES, source, datetime.now(UTC), key, report)
    version = model_registry.registry(settings).put(artefact)
    any1, nothing = found.models["activity"]["any1"], found.models["global_hour"]["any1"]
    _say(f"{version} is a candidate, in {serving.registry_folder(settings)}")
    _say(f"any1 {any1[0]:.3f} [{any1[1]:.3f}, {any1[2]:.3f}], best hour for everybody {nothing[0]:.3f}.")
    beside = found.differences["eb_hour_of_week"]
    gain, surprise = (_difference(beside[metric]) for metric in ("any1", "nll"))
    _say(f"Above own hours alone, as the built-in model has them: any1 {gain}, surprise {surprise}.")
    if beside["any1"][1] <= 0 <= beside["nll"][2]:
        _say("It is surely better in neither: there is little reason to promote it.")
    _say(f"Look closer: opportune model card {version}")
    _say(f'Try it: opportune model promote {version} --to shadow --why "a first look"')


def _difference(estimate: Estimate) -> str:
    value, low, high = estimate
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def refine(
    version: Version,
    days: Annotated[int, typer.Option(min=1, help="The latest so many days of the deployment's clock.")] = 90,
    hours: Annotated[int, typer.Option(min=1, max=168, help="A reward counts within so many hours.")] = 3,
    reward: Annotated[
        Literal["any", "click"],
        typer.Option(help="What is rewarded: any activity, or a click by a person."),
    ] = "click",
) -> None:
    """Give a version a second head, learnt from logged sends: in which hour a message does something.

    Each send is weighted by one over the probability with which its hour was drawn. The second head is kept,
    in a new candidate, only in tiers where it earns surely more than the first on sends of recipients that it
    was not trained on (off-policy, SNIPS). Where in none, nothing is written; exit code 4.
    """
    settings = Settings()
    key, house = model_registry.signing_key(settings, _note), warehouse.connect(settings)
    artefact = model_registry.registry(settings).get(version)
    model = serving.load(artefact, serving.trusted_keys(settings))
    default_zone = load_policy(settings).contact.default_zone
    with steps("refining", 4) as report:
        report("sends")
        until = changing.now(cluster.connect(settings))
        found = model_trail.sends(house, until - days * DAY_MS, until - hours * HOUR_MS, hours, reward)
        report("activity")
        activity, hashes = activity_trail.activity_of(
            house, until, days + activity_trail.HISTORY_DAYS, default_zone
        )
        asked = model_trail.as_asked(found, activity, hashes, default_zone)
        report("second head")
        made, earned = model_training.refine(model, artefact, asked, reward, hours, datetime.now(UTC), key)
    told = ", ".join(
        f"{tier} {each.value:+.4f} [{each.low:+.4f}, {each.high:+.4f}]" for tier, each in earned.items()
    )
    told = f"{show.many(len(asked), 'send')}; above the first head: {told}"
    if made is None:
        typer.echo(f"The second head does not surely earn more, {told}: not switched on.", err=True)
        raise typer.Exit(4)
    kept = model_registry.registry(settings).put(made)
    _say(f"{kept} is a candidate: {artefact.version} with a second head. {told}")


def list_versions() -> None:
    """List every version: its state, since which control version, how it did, what it was trained on."""
    settings = Settings()
    control = changing.current(cluster.connect(settings))
    found = model_registry.known(control, model_registry.registry(settings))
    if not found:
        typer.echo("No model was trained here: the built-in one serves. Begin with `opportune model train`.")
        return
    right = ("since", "share", "any1")
    table = show.table("version", "state", *right, "trained", "on", right=right)
    for each in found:
        table.add_row(*_row(each))
    show.console().print(table)


def _row(each: Known) -> list[str]:
    since = "–" if each.since is None else str(each.since)
    share = f"{each.share:.0%}" if each.share else "–"
    if each.facts is None:
        return [each.version, each.state, since, share, "–", "–", "not in this registry"]
    evaluated = each.facts.get("evaluation", {}).get("models", {}).get("activity", {}).get("any1", ["–"])
    any1 = f"{evaluated[0]:.3f}" if isinstance(evaluated[0], float) else "–"
    trained = show.moment(datetime.fromisoformat(each.facts["trained_at"]))
    return [each.version, each.state, since, share, any1, trained, str(each.facts.get("source", "–"))]


def card(
    version: Version,
    json: Annotated[bool, typer.Option("--json", help="For machines: the card as it was signed.")] = False,
) -> None:
    """Show a version's card, as Markdown: what it is, what it was trained on, how it did.

    Checks the version as workers do; exit code 1, and why, where they would refuse it.
    """
    settings = Settings()
    artefact = model_registry.registry(settings).get(version)
    if json:
        typer.echo(artefact.card.decode())
        return
    typer.echo(markdown(artefact.version, artefact.facts))
    serving.load(artefact, serving.trusted_keys(settings))
    typer.echo("\nChecked: whole, signed by a key that is trusted here, and answering as in training.")


def markdown(version: str, facts: dict[str, Any]) -> str:
    """Return a card for people."""
    lines = [f"# Model card: {version}", ""]
    for name in ("trained_at", "source", "events", "active_hours", "first_hour", "last_hour", "slots"):
        lines.append(f"- {name.replace('_', ' ')}: {facts.get(name)}")
    lines.append(f"- signed by key {facts['key']}, arrays sha256 {facts['sha256']}, schema {facts['schema']}")
    factors = facts.get("training", {}).get("factors", {})
    if factors:
        lines += [
            "",
            "## What it weighs",
            "",
            f"| term | {' | '.join(factors)} |",
            "|---|" + "---|" * len(factors),
        ]
        for term in next(iter(factors.values())):
            lines.append(f"| {term} | {' | '.join(f'{each[term]:.3f}' for each in factors.values())} |")
    if second := facts.get("second_head"):
        gains = ", ".join(
            f"{tier} {g[0]:+.4f} [{g[1]:+.4f}, {g[2]:+.4f}]" for tier, g in second["gain"].items()
        )
        lines += [
            "",
            f"A second head on {facts['refined_from']}, learnt from {second['sends']:,} sends, rewarded by "
            f"{second['reward']} within {second['hours']} hours, by tier above the first: {gains}. "
            "The factors and figures here are the first head's.",
        ]
    evaluated = facts.get("evaluation", {})
    if evaluated:
        head = ("any1", "hit1", "hit3", "nll")
        lines += [
            "",
            f"## How it did on {evaluated['windows']:,} visits of {evaluated['recipients']:,} recipients",
            "",
            f"| model | {' | '.join(head)} |",
            "|---|" + "---|" * len(head),
        ]
        for name, each in evaluated["models"].items():
            cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*each[m]) if m in each else "–" for m in head]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        ratio, served = evaluated["calibration"]["ratio"], evaluated["calibration"]["ratio_raw"]
        lines += [
            "",
            f"Its probabilities were {served:.3f} times what happened, as workers serve it; with an online "
            f"intercept, which they do not have, {ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}].",
        ]
    lines += [
        "",
        "It learns when people are active, not when they read mail, and knows nothing of the message. "
        "Limits, fairness and privacy: docs/model-card.md.",
    ]
    return "\n".join(lines)


def promote(
    version: Version,
    why: Why,
    to: Annotated[Stage, typer.Option(help="What it becomes.")],
    share: Annotated[
        float, typer.Option(min=0.001, max=1, help="Of a canary: the share of recipients it chooses for.")
    ] = 0.05,
) -> None:
    """Give a version its role while workers run: shadow, then canary, then champion.

    A shadow is asked about every send and written down; nothing goes by it. A canary chooses for a share of
    recipients, always the same ones, and `opportune model guard` takes it back if it goes wrong. The champion
    chooses for the rest. `built-in` is the policy's own. The version is checked here as workers check it; one
    that they refuse all the same leaves the former champion in force, with an error in their logs.
    """
    settings = Settings()
    made = model_registry.promotion(settings, version, to.value, share if to is Stage.CANARY else 0.0)
    client = cluster.connect(settings)
    model_registry.refuse_beside_itself(made, changing.current(client))
    number = changing.set_model(client, made, who(), why)
    of = f" for {share:.1%} of recipients" if to is Stage.CANARY else ""
    _say(f"{made.version} is {to.value}{of} from control version {number} on. {_EFFECT}")


def rollback(why: Why) -> None:
    """Make the former champion champion again; without one, the built-in model. Needs no registry."""
    client = cluster.connect(Settings())
    made = model_registry.former(changing.current(client))
    number = changing.set_model(client, made, who(), why)
    _say(f"{made.version} is champion again from control version {number} on. {_EFFECT}")


def retire(version: Version, why: Why) -> None:
    """End a canary or a shadow."""
    client = cluster.connect(Settings())
    ended = model_registry.in_role(changing.current(client), version)
    number = changing.set_model(client, changing.ModelChange(ended, "none"), who(), why)
    _say(f"{ended} has no role from control version {number} on. {_EFFECT}")


def _note(text: str) -> None:
    typer.echo(text, err=True)


def _say(text: str) -> None:
    show.console().print(text, markup=False, soft_wrap=True)


def register(_: typer.Typer) -> None:
    """Add these commands to `opportune model`."""
    for name, command in (
        ("train", train),
        ("refine", refine),
        ("list", list_versions),
        ("card", card),
        ("promote", promote),
        ("rollback", rollback),
        ("retire", retire),
    ):
        app.command(name)(command)
