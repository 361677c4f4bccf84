"""How `opportune report` prints DECIDE's part: events, decisions, segments, hours of day."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.cli import plots
from streams.cli.show import many, moment, table
from streams.figures.cuts import Fates, Rate
from streams.figures.times import DAY_MS, HoursOfDay
from streams.figures.trail import Campaign, Membership, Segments

_SIZES_HEIGHT: Final = 16
_HOURS_HEIGHT: Final = 12
_TICK_WIDTH: Final = 14
# Colours of the 256 that can be told apart on a dark and on a light ground; as many segments are drawn.
_COLOURS: Final = (33, 208, 34, 161, 135, 37, 178, 244)
_LETTERS: Final = "abcdefgh"
_SENDS: Final = ("●", 34)
_ACTIVITY: Final = ("░", 244)
_FATES: Final = ("records", "no trigger", "decided", "filtered", "dead", "re-keyed", "late")


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


def events(fates: Sequence[Fates]) -> Table:
    """Tell what became of each topic's records."""
    made = table("topic", *_FATES, title="Events = what became of them", right=_FATES, gap=1)
    total = Fates("all")
    for some in fates:
        total.add(some)
        made.add_row(some.topic, *_numbers(some), end_section=some is fates[-1])
    made.add_row(total.topic, *_numbers(total), style="bold")
    return made


def _numbers(fates: Fates) -> list[str]:
    return [f"{number:,}" for number in list(vars(fates).values())[1:]]


def decisions(console: Console, campaigns: Sequence[Campaign]) -> list[Table]:
    """Tell what became of decisions: campaigns side by side, with the sum of all beside the last."""
    return [_decisions(shown) for shown in plots.abreast(console, [*campaigns, total_of(campaigns)])]


def _decisions(shown: Sequence[Campaign]) -> Table:
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
    for tier in ("recipient", "thin", "prior", "unprofiled"):
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


def segments(console: Console, found: Segments) -> None:
    """Plot the sizes of segments, with their figures as the legend."""
    if not found.memberships:
        return
    step = "day" if found.step_ms == DAY_MS else "hour"
    plots.head(console, f"Size of segments at the end of each {step}")
    ranked = sorted(found.memberships, key=lambda some: -max(some.sizes))[: len(_COLOURS)]
    marks = {some.segment: place for place, some in enumerate(ranked)}
    colour = console.color_system is not None and not console.no_color
    if len(found.times) > 1:
        figure = plots.canvas(plots.width(console), _SIZES_HEIGHT, max(max(some.sizes) for some in ranked))
        places = list(range(len(found.times)))
        for some in ranked:
            place = marks[some.segment]
            # Without colours a letter tells the lines apart.
            marker = plots.marker("braille", _COLOURS[place]) if colour else _LETTERS[place]
            figure.draw(figure.signal(places, some.sizes, marker=marker).lines(True))
        ticks = places[:: -(-len(places) * _TICK_WIDTH // plots.width(console))]
        figure.ruler("x").ticks(ticks, [when(found, place) for place in ticks])
        console.print(plots.drawn(figure), soft_wrap=True)
    console.print(_legend(found.memberships, marks, colour))


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


def hours(console: Console, found: HoursOfDay) -> None:
    """Plot the hours of day that were chosen for sends over those of what recipients did."""
    if not found.sends_counted + found.activity_counted:
        return
    plots.head(console, f"Hour of day in {found.zone}")
    most = max(*found.sends, *found.activity)
    figure = plots.canvas(plots.width(console), _HOURS_HEIGHT, 100 * most)
    places = list(range(24))
    activity, sends = ([100 * share for share in shares] for shares in (found.activity, found.sends))
    figure.draw(figure.bar(places, activity, marker=plots.marker(*_ACTIVITY), width=1))
    figure.draw(figure.signal(places, sends, marker=plots.marker(*_SENDS)).lines(True))
    figure.ruler("x").lim(-0.6, 23.6)
    figure.ruler("x").ticks(places, [f"{hour:02}" for hour in places])
    console.print(plots.drawn(figure), soft_wrap=True)
    console.print(
        Text.assemble(
            "Percent of ",
            (_ACTIVITY[0] * 2, f"color({_ACTIVITY[1]})"),
            f" {found.activity_counted:,} clicks and purchases, ",
            (_SENDS[0] * 2, f"color({_SENDS[1]})"),
            f" {found.sends_counted:,} hours chosen for sends.",
        )
    )
