"""`opportune simulate`: our lanes beside other senders, against providers that judge, in virtual time."""

import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from infra.embedded import KafkaServer
from schemas import policy_files
from schemas.profile import MINUTE_MS
from schemas.replies import Replies
from schemas.settings import Settings
from streams.cli import plots, show, stack
from streams.policy import policy_folder
from streams.simulator import smtp
from streams.simulator.compare import Assumed, By, Figures, compare, sweep
from streams.simulator.demand import Outcome
from streams.simulator.parameters import Parameters
from streams.simulator.run import SENDERS

_BY_SMTP: Final = "ours, by SMTP"
_VIRTUAL: Final = "ours, in virtual time"
_COLOURS: Final[Mapping[str, tuple[str, int]]] = {
    "ours": ("█", 34),
    "fixed rate": ("▒", 208),
    "retries only": ("░", 160),
    _VIRTUAL: ("█", 34),
    _BY_SMTP: ("▒", 75),
}
_HEIGHT: Final = 9
_VIEWS: Final[Mapping[str, Callable[[Outcome], Sequence[float]]]] = {
    "messages taken, an hour": lambda each: each.taken,
    "deferrals, an hour": lambda each: each.deferred,
    "reputation, in %": lambda each: [100 * value for value in each.reputation],
    "messages that wait": lambda each: each.waiting,
}
Report = Callable[[float, float], None]  # told how much is done, of how much
Run = Mapping[str, By]  # by sender
_TWO_FROM: Final = 90


def simulate(
    days: Annotated[int | None, typer.Option(min=1, max=90, help="Days; 14, or 2 with --real.")] = None,
    recipients: Annotated[
        int | None, typer.Option(min=1000, help="How many there are; 50,000, or 2,000 with --real.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="So many times, each with another seed.")] = 1,
    swept: Annotated[
        bool, typer.Option("--sweep", help="Every assumption halved and raised by half, on all cores.")
    ] = False,
    real: Annotated[
        bool, typer.Option("--real", help="Ours through Kafka, workers and SMTP, beside virtual time.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Send days of mail to simulated mailbox providers: by our lanes, at a fixed rate, by retries only.

    The lanes are DELIVER's own: pace, order, retries, and the rules of your replies.toml, but not the rates
    of your lanes.toml. Providers answer and judge as streams/simulator/parameters.toml says, where each
    number has its source. All is computed, in virtual time: nothing is sent, and no Kafka is needed. With
    --real the providers are SMTP servers of this machine instead, and Kafka, DECIDE and DELIVER are started,
    in the folder simulator of the state folder, which is emptied first; two days take half an hour. A message
    is taken in time if a provider took it before its expiry.
    """
    if swept and real:
        raise typer.BadParameter("one at a time", param_hint="--sweep / --real")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or what was started would go on
    rules = policy_folder(Settings())
    replies = policy_files.load_replies(rules)
    console = show.console()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("simulating", total=None)

        def report(done: float, of: float) -> None:
            progress.update(task, completed=done, total=of)

        if swept:
            assumed = _swept(replies, days or 14, recipients or 50_000, seeds, report)
        elif real:
            runs = _real(rules, days or 2, recipients or 2000, seeds, report)
        else:
            runs = _runs(replies, days or 14, recipients or 50_000, seeds, report)
    if swept:
        _tell_sweep(console, assumed, as_json)
        return
    figures = {name: [Figures.of([*run[name].values()]) for run in runs] for name in runs[0]}
    if as_json:
        told = {sender: [vars(each) for each in some] for sender, some in figures.items()}
        typer.echo(show.as_json(told))
        return
    console.print(_table(figures))
    if real:
        _tell_agreement(console, figures)
    _plot(console, runs[0])


def _runs(replies: Replies, days: int, recipients: int, seeds: int, report: Report) -> list[Run]:
    """All senders beside each other, in virtual time, for each seed."""
    parameters, done = Parameters.assumed(), count(1)
    of = seeds * len(parameters.provider)
    found = list[Run]()
    for seed in range(seeds):
        by_sender = compare(parameters, replies, days, recipients, seed, lambda: report(next(done), of))
        found.append({str(sender): by for sender, by in by_sender.items()})
    return found


def _swept(replies: Replies, days: int, recipients: int, seeds: int, report: Report) -> list[Assumed]:
    parameters, found = Parameters.assumed(), []
    for each in sweep(parameters, replies, days, recipients, seeds):
        found.append(each)
        report(len(found), len(parameters.changes()))
    return found


def _real(rules: Path, days: int, recipients: int, seeds: int, report: Report) -> list[Run]:
    """Ours in virtual time and through the product, for each seed."""
    settings, found = stack.apart(Settings(), "simulator"), list[Run]()
    replies = policy_files.load_replies(rules)
    for seed in range(seeds):
        plan = smtp.Plan.of(days, recipients, seed)
        KafkaServer(settings.state_dir, settings.cache_dir / "jars").discard()
        shutil.rmtree(settings.state_dir, ignore_errors=True)
        by_smtp = smtp.real(plan, rules, settings, lambda part: report(part, 1))
        found.append({_VIRTUAL: smtp.virtual(plan, replies), _BY_SMTP: by_smtp})
    return found


def _tell_agreement(console: Console, beside: Mapping[str, list[Figures]]) -> None:
    """Say by how much SMTP's figures differ from virtual time's."""
    virtual, real = beside.values()
    told = []
    for name in ("accepted", "inbox", "expired", "deferrals", "reputation"):
        of_virtual, of_real = (mean(getattr(each, name) for each in some) for some in (virtual, real))
        told.append(f"{name} {of_real / of_virtual - 1:+.1%}" if of_virtual else f"{name} {of_real:.3f}")
    console.print("By SMTP beside virtual time: " + ", ".join(told) + ".")


def _table(figures: Mapping[str, list[Figures]]) -> Table:
    right = ("taken in time", "inbox", "expired", "deferrals a message", "reputation", "urgent wait")
    made = show.table("sender", *right, right=right)
    for sender, some in figures.items():
        made.add_row(
            sender,
            *(_share([getattr(each, name) for each in some]) for name in ("accepted", "inbox", "expired")),
            _range([each.deferrals for each in some], "{:.3f}"),
            _range([each.reputation for each in some], "{:.2f}"),
            _range([each.urgent_wait_ms / MINUTE_MS for each in some], "{:,.1f} min"),
        )
    several = any(len(some) > 1 for some in figures.values())
    over = "Means over the seeds, and from lowest to highest. " if several else ""
    made.caption = f"{over}Reputation: from 0 to 1, at the end."
    made.caption_justify = "left"
    return made


def _share(values: Sequence[float]) -> str:
    return _range(values, "{:.1%}")


def _range(values: Sequence[float], form: str) -> str:
    told = form.format(mean(values))
    if len(values) == 1:
        return told
    return f"{told} [{form.format(min(values))}, {form.format(max(values))}]"


def _tell_sweep(console: Console, assumed: Sequence[Assumed], as_json: bool) -> None:
    """Say for which assumptions ours is not better in everything, and by how much it is at the least."""
    if as_json:
        rows = [
            {"where": each.where, "name": each.name, "factor": each.factor, "aside": each.aside}
            | {sender: [vars(seed[sender]) for seed in each.figures] for sender in SENDERS}
            for each in assumed
        ]
        typer.echo(show.as_json(rows))
        return
    console.print(
        "Fewer deferrals, a better reputation, more in the inbox and more taken in time than both others:"
    )
    for aside, half in ((False, "tuned with"), (True, "held aside")):
        some = [each for each in assumed if each.aside is aside]
        better = sum(not each.not_better_than() for each in some)
        console.print(f"under {better} of the {len(some)} changed assumptions {half}.")
    right = ("times", "taken", "theirs", "inbox", "theirs", "reputation", "theirs")
    made = show.table("assumption", "not better than", *right, right=right)
    for each in assumed:
        for other in each.not_better_than():
            figures = [
                form.format(mean(getattr(seed[sender], what) for seed in each.figures))
                for what, form in (("accepted", "{:.1%}"), ("inbox", "{:.1%}"), ("reputation", "{:.2f}"))
                for sender in ("ours", other)
            ]
            made.add_row(f"{each.where}.{each.name}", other, f"{each.factor:g}", *figures)
    if made.row_count:
        console.print(made)


def _plot(console: Console, run: Run) -> None:
    """Plot what went to each provider, what it deferred, its view of the senders, and what waits, by hour."""
    abreast = 2 if console.width >= _TWO_FROM else 1
    columns = plots.width(console) // abreast - 1
    legend = [part for name in run for part in _mark(name, *_COLOURS[name])]
    for provider in next(iter(run.values())):
        plots.head(console, provider)
        grid = Table.grid(padding=(0, 1, 0, 0))
        views = [
            _figure(title, columns, {name: of(by[provider]) for name, by in run.items()})
            for title, of in _VIEWS.items()
        ]
        for start in range(0, len(views), abreast):
            grid.add_row(*views[start : start + abreast])
        console.print(grid)
    console.print(Text.assemble(*legend))


def _mark(name: str, symbol: str, colour: int) -> list[Any]:
    return [(symbol * 2, f"color({colour})"), f" {name}  "]


def _figure(title: str, columns: int, series: Mapping[str, Sequence[float]]) -> Text:
    hours = max(map(len, series.values()))
    most = max((max(values) for values in series.values() if values), default=1.0)
    figure = plots.canvas(columns, _HEIGHT, most)
    for sender, values in series.items():
        line = figure.signal([*range(len(values))], [*values], marker=plots.marker(*_COLOURS[sender]))
        figure.draw(line.lines(True))
    days = range(0, hours, 24 * max(1, hours // 24 // 7))
    figure.ruler("x").ticks([*days], [f"day {hour // 24 + 1}" for hour in days])
    return Text.assemble((title, "dim"), "\n", plots.drawn(figure))


def register(main: typer.Typer) -> None:
    """Add `opportune simulate`."""
    main.command()(simulate)
