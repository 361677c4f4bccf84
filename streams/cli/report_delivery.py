"""How `opportune report` prints DELIVER's part: lanes, outcomes, latencies, and where to look further."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Final

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from infra.embedded import ClickHouseEndpoint, ClickHouseServer
from schemas.settings import Settings
from streams.cli import plots
from streams.cli.show import many, moment, table
from streams.figures.delivery import LaneFigures, Outcomes, Pacing
from streams.figures.latency import Latencies, Latency
from streams.figures.times import DAY_MS, HOUR_MS, MINUTE_MS

_LANE_HEIGHT: Final = 9
_TWO_FROM: Final = 90  # columns from which two plots stand side by side
_LANES_MOST: Final = 6
_TICKS: Final = 3
_BAR: Final = 0.8  # of a step: plotext draws a bar of a whole one over part of its neighbour
# A rate so many times as high as what was sent would press the bars flat.
_RATE_ABOVE: Final = 3.0
_SENT: Final = ("█", 34)
_RATE: Final = ("─", 208)
_UNITS: Final = ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (1000, "s"))
_QUERY: Final = "SELECT campaign, kind, count() AS n FROM delivery GROUP BY ALL ORDER BY ALL"


def delivery(console: Console, outcomes: Sequence[Outcomes], pacing: Pacing, latencies: Latencies) -> None:
    """Print all of DELIVER's part that there is something to say about."""
    if outcomes:
        plots.head(console, "Delivery")
        for place, made in enumerate(_outcomes(console, outcomes)):
            if place:
                console.print()
            console.print(made)
    if pacing.lanes:
        _lanes(console, pacing)
    _latencies(console, latencies)


def _outcomes(console: Console, found: Sequence[Outcomes]) -> list[Table]:
    numbers = [each.name for each in fields(Outcomes)][1:]
    total = Outcomes("all", *(sum(getattr(some, name) for some in found) for name in numbers))
    return [_outcomes_of(shown) for shown in plots.abreast(console, [*found, total])]


def _outcomes_of(shown: Sequence[Outcomes]) -> Table:
    names = [some.name for some in shown]
    made = table("", *names, title="Commands = what became of them", right=names)

    def row(name: str, figures: Iterable[int], style: str = "", last: bool = False) -> None:
        made.add_row(
            name, *(f"{figure:,}" if figure else "–" for figure in figures), style=style, end_section=last
        )

    row("of history, never sent", [some.history for some in shown], "dim", last=True)
    row("to send", [some.commands for some in shown], "bold")
    row("    delivered", [some.delivered for some in shown], "green")
    row("    bounced", [some.bounced for some in shown], "red")
    row("    expired in the lane", [some.expired for some in shown], "red")
    row("    recalled", [some.recalled for some in shown])
    row("    unknown, outcome lost", [some.unknown for some in shown], "red")
    row("    still waiting", [some.waiting for some in shown], "yellow")
    row("    in flight", [some.in_flight for some in shown], "yellow", last=True)
    row("attempts deferred", [some.deferred for some in shown])
    row("duplicates ignored", [some.duplicate for some in shown])
    return made


def _lanes(console: Console, pacing: Pacing) -> None:
    """Plot the lanes with the most sends, two abreast where there is room, and list all of them."""
    if len(pacing.times) > 1:
        plots.head(
            console, f"Sends per lane, messages an hour of stream time, in steps of {span(pacing.step_ms)}"
        )
        shown = sorted(pacing.lanes, key=lambda lane: -lane.sent)[:_LANES_MOST]
        shown = [lane for lane in pacing.lanes if lane in shown and lane.sent]
        abreast = 2 if console.width >= _TWO_FROM else 1
        columns = plots.width(console) // abreast - 1
        grid = Table.grid(padding=(0, 1, 0, 0))
        for start in range(0, len(shown), abreast):
            grid.add_row(*(_lane(pacing, lane, columns) for lane in shown[start : start + abreast]))
        console.print(grid)
        console.print(
            Text.assemble(
                (_SENT[0] * 2, f"color({_SENT[1]})"),
                " sent: a server answered, whatever it said. ",
                (_RATE[0] * 2, f"color({_RATE[1]})"),
                " rate that lanes.toml sets.",
            )
        )
    console.print()
    right = ("rate set", "sent", "busiest hour", "waiting now", "longest wait")
    made = table("lane", *right, title="Lanes, in stream time", right=right)
    for lane in pacing.lanes:
        figures = (f"{number:,}" for number in (lane.sent, lane.busiest_hour, lane.waiting))
        made.add_row(lane.lane, rate(lane), *figures, span(lane.longest_wait_ms))
    console.print(made)
    _note(
        console,
        "Busiest hour: the most sends in any 60 minutes. Longest wait: from release to the end, or until now "
        f"({moment(pacing.now)}); what a server deferred waits on.",
    )


def _lane(pacing: Pacing, lane: LaneFigures, columns: int) -> Group:
    """Plot one lane's sends as bars and its rate as a line, which is left out where it is far above them."""
    hourly = [count * HOUR_MS / pacing.step_ms for count in lane.per_step]
    above = lane.rate_per_hour > _RATE_ABOVE * max(hourly)
    most = max(hourly) if above else max(*hourly, lane.rate_per_hour)
    figure = plots.canvas(columns, _LANE_HEIGHT, most)
    places = list(range(len(hourly)))
    figure.draw(figure.bar(places, hourly, marker=plots.marker(*_SENT), width=_BAR))
    if not above:
        line = figure.signal([-0.5, len(places) - 0.5], [lane.rate_per_hour] * 2, marker=plots.marker(*_RATE))
        figure.draw(line.lines(True))
    figure.ruler("x").lim(-0.6, len(places) - 0.4)
    ticks = places[:: -(-len(places) // _TICKS)]
    labels = slice(0, 10) if pacing.step_ms >= DAY_MS else slice(5, 16)
    figure.ruler("x").ticks(ticks, [moment(pacing.times[place])[labels] for place in ticks])
    where = ", far above" if above else ""
    title = Text.assemble((lane.lane, "bold"), f"  {lane.sent:,} sent, rate set {rate(lane)}{where}")
    return Group(title, plots.drawn(figure))


def rate(lane: LaneFigures) -> str:
    """Print the rate set for a lane in messages an hour."""
    return f"{lane.rate_per_hour:,.10g}/hr"


def span(ms: int | None) -> str:
    """Print a duration by its two largest units: `118 ms`, `1.2 s`, `7 min 18 s`, `3 h 5 min`."""
    if ms is None:
        return "–"
    if ms < 1000:
        return f"{ms} ms"
    if ms < MINUTE_MS:
        return f"{ms / 1000:.1f} s"
    place = next(place for place, (length, _) in enumerate(_UNITS) if ms >= length)
    (length, unit), (part, small) = _UNITS[place : place + 2]
    whole, rest = ms // length, ms % length // part
    return f"{whole:,} {unit} {rest} {small}" if rest else f"{whole:,} {unit}"


def _latencies(console: Console, found: Latencies) -> None:
    if not any(some.count for some in (*found.wall, *found.stream)):
        return
    plots.head(console, "How long it took")
    console.print(_latency(found.wall, "Wall clock: from one record's broker timestamp to another's"))
    _note(
        console,
        "Of live cuts. Event: its record; decision and outcome: their audit records, commits not counted; "
        "outcome: delivered or bounced, so that the wait in the lane is in it, at the speed of the clock.",
    )
    console.print()
    console.print(_latency(found.stream, "Stream time: in the lane, from release to the server's answer"))
    _note(
        console,
        "On a scaled clock the seconds that the work itself takes count so many times as well.",
    )


def _latency(found: Sequence[Latency], title: str) -> Table:
    right = ("count", "p50", "p95", "p99", "max")
    made = table("", *right, title=title, right=right)
    for some in found:
        figures = (some.p50, some.p95, some.p99, some.most)
        made.add_row(some.what, f"{some.count:,}", *(span(figure) for figure in figures))
    return made


def _note(console: Console, text: str) -> None:
    console.print(Text(text, "dim"), width=plots.width(console))


def foot(console: Console, settings: Settings) -> None:
    """Tell where mail is kept, where ClickHouse answers, and which commands tell more."""
    plots.head(console, "To look further")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    mail = settings.state_dir / "sandbox" / "mail"
    if mail.is_dir():
        count = sum(1 for _ in mail.glob("*/*.eml"))
        grid.add_row("mail", Text(f"{many(count, '.eml file')} below {os.path.relpath(mail)}"))
    grid.add_row("ClickHouse", Text(_clickhouse(settings)))
    if settings.state_dir != Settings().state_dir:
        grid.add_row("first", Text(f"export OPPORTUNE_STATE_DIR={os.path.relpath(settings.state_dir)}"))
    program = sys.argv[0]
    grid.add_row("query", Text(f'{program} sql "{_QUERY}"'))
    grid.add_row("", Text(f'tables decision, delivery and more: {program} sql "SHOW TABLES"', "dim"))
    grid.add_row("one recipient", Text(f"{program} explain RECIPIENT"))
    grid.add_row("nothing lost", Text(f"{program} reconcile"))
    console.print(grid, width=plots.width(console))


def _clickhouse(settings: Settings) -> str:
    if settings.clickhouse is not None:
        return f"native {settings.clickhouse}"
    status = ClickHouseServer(settings.state_dir).status()
    at = status.endpoint
    if status.health != "ready" or not isinstance(at, ClickHouseEndpoint):
        return f"{status.health}; `opportune up` starts it"
    return f"native {at}, HTTP http://{at.host}:{at.http_port}"
