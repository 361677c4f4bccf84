"""`opportune report`: what a deployment has done, at a glance."""

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from schemas import zones
from schemas.policy_files import load_lanes
from schemas.settings import Settings
from streams import cluster, reading
from streams.cli import explain as explaining
from streams.cli import plots
from streams.cli import report_decisions as decide
from streams.cli import report_delivery as deliver
from streams.cli import show as showing
from streams.cli.show import many, moment
from streams.engine.kafka import Client
from streams.explain import History, UnknownRecipient, history_of
from streams.policy import policy_folder
from streams.report import Report, gather


def report(
    zone: Annotated[
        str | None,
        typer.Option(help="IANA zone in which hours of day are told; default: that of most recipients."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Three decisions explained at the end.")
    ] = True,
) -> None:
    """Report what has been done: events, decisions, segments, hours of day, deliveries, lanes, speed.

    All is counted from the topics, as far back as they go. Three decisions are then explained: one sent at
    the recipient's own hours, one withheld by the frequency cap or a cooldown, one for want of consent.
    """
    if zone is not None and zone not in zones.NAMES:
        raise typer.BadParameter(f"there is no zone {zone!r}; one is America/New_York", param_hint="--zone")
    settings = Settings()
    client = cluster.connect(settings)
    if json:
        typer.echo(showing.as_json(machine_form(gather(client, load_lanes(policy_folder(settings)), zone))))
    else:
        show(showing.console(), client, settings, zone, explain)


def show(
    console: Console, client: Client, settings: Settings, zone: str | None = None, explain: bool = True
) -> None:
    """Gather a report and print it, explain its examples if asked for, and tell where to look further.

    Raises as `streams.report.gather`, and PolicyError where lanes.toml is wrong.
    """
    lanes = load_lanes(policy_folder(settings))
    with Console(stderr=True).status("reading the topics"):
        found = gather(client, lanes, zone)
    tell(console, found)
    if explain:
        tell_examples(console, found, client)
    deliver.foot(console, settings)


def machine_form(found: Report) -> dict[str, Any]:
    """Return a report for `--json`: all of it, times in ISO 8601."""
    form = asdict(found)
    for part, name in ((form, "begin"), (form, "end"), (form["pacing"], "now")):
        part[name] = None if part[name] is None else showing.iso(part[name])
    for part in (form["segments"], form["pacing"]):
        part["times"] = [showing.iso(at) for at in part["times"]]
    for example in form["examples"]:
        example["at"] = showing.iso(example["at"])
    return form


def tell(console: Console, found: Report) -> None:
    """Print a report: tables and plots, without the explained examples."""
    cuts = found.history.cuts + found.live.cuts
    if not cuts:
        console.print("The journal is empty: nothing has been consumed yet.")
        return
    plots.head(console, "Report")
    _say(console, f"Stream time {moment(found.begin)} to {moment(found.end)}, in {many(cuts, 'cut')}.")
    for kind, rate in (("History", found.history), ("Live, as they came", found.live)):
        if rate.cuts:
            _say(console, decide.rate_line(kind, rate))
    for name in found.begins_late:
        _say(console, f"note: retention has deleted the beginning of {name}; what is left counts", "dim")
    console.print()
    console.print(decide.events(found.fates))
    _say(console, decide.dead_line(found.dead_letters))
    for made in decide.decisions(console, found.campaigns):
        console.print()
        console.print(made)
    decide.segments(console, found.segments)
    decide.hours(console, found.hours)
    deliver.delivery(console, found.outcomes, found.pacing, found.latencies)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style))


def tell_examples(console: Console, found: Report, client: Client) -> None:
    """Explain the decisions that a report names, each as of then, with what followed."""
    reader = reading.audit_reader(client)
    for example in found.examples:
        plots.head(console, f"{example.shows}: {example.campaign}, {moment(example.at)}")
        try:
            history = history_of(example.recipient_id, reader.of_recipient(example.recipient_id))
        except UnknownRecipient:
            continue  # retention took it since
        explaining.tell(console, as_of(history, example.decision_id), 1)


def as_of(history: History, decision_id: str) -> History:
    """Return a history up to one decision, with what became of that; the whole, if it is not there."""
    for number, story in enumerate(history.stories, 1):
        if story.decision is not None and story.decision["body"]["decision_id"] == decision_id:
            at = story.decision["at"]
            return replace(
                history,
                stories=history.stories[:number],
                transitions=[record for record in history.transitions if record["at"] <= at],
                consents=[record for record in history.consents if record["at"] <= at],
            )
    return history


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(report)
