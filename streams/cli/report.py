"""`opportune report`: what a deployment has done, at a glance."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Final

import plotext
import typer
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from schemas import zones
from schemas.settings import Settings
from streams import cluster, reading
from streams.cli import explain as explaining
from streams.cli import show as showing
from streams.cli.show import many, moment, table
from streams.engine.kafka import Client
from streams.explain import History, UnknownRecipient, history_of
from streams.figures import DAY_MS, Campaign, Fates, HoursOfDay, Membership, Rate, Segments
from streams.report import Report, gather

_WIDTH_MOST: Final = 100
_CAMPAIGNS_ABREAST: Final = 4
_SIZES_HEIGHT: Final = 16
_HOURS_HEIGHT: Final = 12
_TICK_WIDTH: Final = 14
# Colours of the 256 that can be told apart on a dark and on a light ground; as many segments are drawn.
_COLOURS: Final = (33, 208, 34, 161, 135, 37, 178, 244)
_LETTERS: Final = "abcdefgh"
_SENDS: Final = ("●", 34)
_ACTIVITY: Final = ("░", 244)
_FATES: Final = ("records", "no trigger", "decided", "filtered", "dead", "re-keyed", "late")


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
    """Report what has been done: events and their fates, decisions, segments, hours of day, speed.

    All is counted from the topics, as far back as they go. Three decisions are then explained: one sent at
    the recipient's own hours, one withheld by the frequency cap or a cooldown, one for want of consent.
    """
    if zone is not None and zone not in zones.NAMES:
        raise typer.BadParameter(f"there is no zone {zone!r}; one is America/New_York", param_hint="--zone")
    client = cluster.connect(Settings())
    if json:
        typer.echo(showing.as_json(machine_form(gather(client, zone))))
    else:
        show(showing.console(), client, zone, explain)


def show(console: Console, client: Client, zone: str | None = None, explain: bool = True) -> None:
    """Gather a report and print it, and explain its examples if asked for."""
    with Console(stderr=True).status("reading the topics"):
        found = gather(client, zone)
    tell(console, found)
    if explain:
        tell_examples(console, found, client)


def machine_form(found: Report) -> dict[str, Any]:
    """Return a report for `--json`: all of it, times in ISO 8601."""
    form = asdict(found)
    for name in ("begin", "end"):
        form[name] = None if form[name] is None else showing.iso(form[name])
    form["segments"]["times"] = [showing.iso(at) for at in found.segments.times]
    for example in form["examples"]:
        example["at"] = showing.iso(example["at"])
    return form


def tell(console: Console, found: Report) -> None:
    """Print a report: tables and plots, without the explained examples."""
    cuts = found.history.cuts + found.live.cuts
    if not cuts:
        console.print("The journal is empty: nothing has been consumed yet.")
        return
    _head(console, "Report")
    _say(console, f"Stream time {moment(found.begin)} to {moment(found.end)}, in {many(cuts, 'cut')}.")
    for kind, rate in (("History", found.history), ("Live, as they came", found.live)):
        if rate.cuts:
            _say(console, rate_line(kind, rate))
    for name in found.begins_late:
        _say(console, f"note: retention has deleted the beginning of {name}; what is left counts", "dim")
    console.print()
    console.print(_fates(found.fates))
    _say(console, dead_line(found.dead_letters))
    for start in range(0, max(1, len(found.campaigns)), _CAMPAIGNS_ABREAST):
        console.print()
        console.print(_decisions(found.campaigns, start))
    _segments(console, found.segments)
    _hours(console, found.hours)


def rate_line(kind: str, rate: Rate) -> str:
    """Tell how fast cuts of one kind were made."""
    line = f"{kind}: {many(rate.events, 'event')} in {many(rate.cuts, 'cut')}"
    if rate.per_second is None or not rate.events:
        return f"{line}."
    return f"{line} and {rate.seconds:,.1f} s of wall clock, {rate.per_second:,.0f} events a second."


def dead_line(dead_letters: dict[str, int]) -> str:
    """Tell how many dead letters there are, the most frequent reason first."""
    if not dead_letters:
        return "No dead letters."
    ranked = sorted(dead_letters.items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in ranked)
    return f"{many(sum(dead_letters.values()), 'dead letter')}: {reasons}."


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style))


def _head(console: Console, title: str) -> None:
    console.print()
    console.print(Rule(Text(title, "bold"), align="left", style="dim"), width=_width(console))


def _width(console: Console) -> int:
    return min(console.width, _WIDTH_MOST)


def _fates(fates: Sequence[Fates]) -> Table:
    made = table("topic", *_FATES, title="Events = what became of them", right=_FATES, gap=1)
    total = Fates("all")
    for some in fates:
        total.add(some)
        made.add_row(some.topic, *_numbers(some), end_section=some is fates[-1])
    made.add_row(total.topic, *_numbers(total), style="bold")
    return made


def _numbers(fates: Fates) -> list[str]:
    return [f"{number:,}" for number in list(vars(fates).values())[1:]]


def _decisions(campaigns: Sequence[Campaign], start: int) -> Table:
    """Print some campaigns side by side, with the sum of all where they are the last."""
    shown = [*campaigns[start : start + _CAMPAIGNS_ABREAST]]
    if start + _CAMPAIGNS_ABREAST >= len(campaigns):
        shown.append(total_of(campaigns))
    names = [some.name for some in shown]
    made = table("", *names, title="Decisions = what became of them", right=names)

    def row(name: str, figures: Iterable[int], style: str = "", last: bool = False) -> None:
        cells = [f"{figure:,}" if figure else "–" for figure in figures]
        made.add_row(name, *cells, style=style, end_section=last)

    def reasons(counts: Sequence[dict[str, int]], indent: str) -> None:
        total: Counter[str] = Counter()
        for some in counts:
            total.update(some)
        for reason in sorted(total, key=lambda name: (-total[name], name)):
            row(indent + reason, [some.get(reason, 0) for some in counts], "dim")

    row("decided", [some.decided for some in shown], "bold", last=True)
    row("withheld", [sum(some.withheld.values()) for some in shown], "bold")
    reasons([some.withheld for some in shown], "    ")
    row("scheduled", [some.scheduled for some in shown], "bold")
    row("    released", [some.released for some in shown], "green")
    row("    still pending", [some.pending for some in shown], "yellow")
    row("    withheld when due", [sum(some.withheld_at_release.values()) for some in shown], "red")
    reasons([some.withheld_at_release for some in shown], "        ")
    row("times put off", [some.deferred for some in shown], last=True)
    for tier in ("recipient", "prior"):
        made.add_row(f"hour by tier {tier}", *(tier_share(some, tier) for some in shown))
    return made


def total_of(campaigns: Iterable[Campaign]) -> Campaign:
    """Sum campaigns."""
    total = Campaign("all")
    for some in campaigns:
        for name, value in list(vars(some).items())[1:]:
            so_far = getattr(total, name)
            if isinstance(value, int):
                setattr(total, name, so_far + value)
            else:
                so_far.update({key: so_far.get(key, 0) + number for key, number in value.items()})
    return total


def tier_share(campaign: Campaign, tier: str) -> str:
    """Share of a campaign's scheduled sends whose hour came from `tier`."""
    if not campaign.scheduled:
        return "–"
    return f"{campaign.tiers.get(tier, 0) / campaign.scheduled:.0%}"


def _segments(console: Console, segments: Segments) -> None:
    if not segments.memberships:
        return
    step = "day" if segments.step_ms == DAY_MS else "hour"
    _head(console, f"Size of segments at the end of each {step}")
    ranked = sorted(segments.memberships, key=lambda some: -max(some.sizes))[: len(_COLOURS)]
    marks = {some.segment: place for place, some in enumerate(ranked)}
    colour = console.color_system is not None and not console.no_color
    if len(segments.times) > 1:
        figure = _canvas(console, _SIZES_HEIGHT, max(max(some.sizes) for some in ranked))
        places = list(range(len(segments.times)))
        for some in ranked:
            place = marks[some.segment]
            # Without colours a letter tells the lines apart.
            marker = _marker("braille", _COLOURS[place]) if colour else _LETTERS[place]
            figure.draw(figure.signal(places, some.sizes, marker=marker).lines(True))
        ticks = places[:: -(-len(places) * _TICK_WIDTH // _width(console))]
        figure.ruler("x").ticks(ticks, [when(segments, place) for place in ticks])
        _print(console, figure)
    console.print(_legend(segments.memberships, marks, colour))


def when(segments: Segments, place: int) -> str:
    """Label of a step: the day it covers, or the hour at which it ends."""
    if segments.step_ms == DAY_MS:
        return moment(segments.times[place] - DAY_MS)[:10]
    return moment(segments.times[place])[5:16]


def _legend(memberships: Sequence[Membership], marks: dict[str, int], colour: bool) -> Table:
    right = ("now", "most", "entered", "left")
    made = table("", "segment", *right, right=right)
    for some in sorted(memberships, key=lambda some: marks.get(some.segment, len(marks))):
        place = marks.get(some.segment)
        mark = Text(" ")
        if place is not None:
            mark = Text("━━", f"color({_COLOURS[place]})") if colour else Text(_LETTERS[place])
        figures = (some.sizes[-1], max(some.sizes), some.entered, some.left)
        made.add_row(mark, some.segment, *(f"{number:,}" for number in figures))
    return made


def _hours(console: Console, hours: HoursOfDay) -> None:
    if not hours.sends_counted + hours.activity_counted:
        return
    _head(console, f"Hour of day in {hours.zone}")
    most = max(*hours.sends, *hours.activity)
    figure = _canvas(console, _HOURS_HEIGHT, 100 * most)
    places = list(range(24))
    activity, sends = ([100 * share for share in shares] for shares in (hours.activity, hours.sends))
    figure.draw(figure.bar(places, activity, marker=_marker(*_ACTIVITY), width=1))
    figure.draw(figure.signal(places, sends, marker=_marker(*_SENDS)).lines(True))
    figure.ruler("x").lim(-0.6, 23.6)
    figure.ruler("x").ticks(places, [f"{hour:02}" for hour in places])
    _print(console, figure)
    console.print(
        Text.assemble(
            "Percent of ",
            (_ACTIVITY[0] * 2, f"color({_ACTIVITY[1]})"),
            f" {hours.activity_counted:,} clicks and purchases, ",
            (_SENDS[0] * 2, f"color({_SENDS[1]})"),
            f" {hours.sends_counted:,} hours chosen for sends.",
        )
    )


def _marker(symbol: str, colour: int) -> Any:
    return plotext.marker(symbol, plotext.pixel(colour))


def _canvas(console: Console, height: int, most: float) -> Any:
    """Plotext's one figure, empty and without colours of its own, from 0 to `most` upwards."""
    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear.all()
    figure.theme("colorless")
    figure.plot_size(_width(console), height)
    step = next(step * 10**power for power in range(12) for step in (1, 2, 5) if step * 10**power * 5 >= most)
    figure.ruler("y").lim(0, max(most, 1) * 1.05)
    ticks = list(range(0, int(most) + 1, step))
    figure.ruler("y").ticks(ticks, [f"{tick:,}" for tick in ticks])
    return figure


def _print(console: Console, figure: Any) -> None:
    """Print a plot; rich leaves its colours out where there are none."""
    console.print(Text.from_ansi(figure.build().string()), soft_wrap=True)


def tell_examples(console: Console, found: Report, client: Client) -> None:
    """Explain the decisions that a report names, each as of then, with what followed."""
    reader = reading.audit_reader(client)
    for example in found.examples:
        _head(console, f"{example.shows}: {example.campaign}, {moment(example.at)}")
        try:
            history = history_of(example.recipient_id, reader.of_recipient(example.recipient_id))
        except UnknownRecipient:
            continue  # retention took it since
        explaining.tell(console, as_of(history, example.decision_id), 1)
    if found.examples:
        name = Text(showing.printable(found.examples[-1].recipient_id))
        console.print()
        console.print(
            Text.assemble(("`opportune explain ", "dim"), name, ("` tells all of a recipient.", "dim"))
        )


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
