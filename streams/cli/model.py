"""`opportune model`: send-time models trained, evaluated, put in force and taken back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress

from models.sendtime import evaluation
from models.sendtime.evaluation import CHAMPION, Estimate, Evaluation
from streams import event_file
from streams.cli import plots, show
from streams.event_file import Columns

_HEIGHT: Final = 12
_SLOTS: Final = (24, 168)
_METRICS: Final = {
    "any1": "active in the chosen hour",
    "hit1": "first comes back in it",
    "hit3": "in one of the best three",
    "nll": "surprise, nats",
}

app = typer.Typer(no_args_is_help=True, help="Send-time models: trained, evaluated, promoted, rolled back.")

Events = Annotated[Path, typer.Option(help="CSV (also .gz) or Parquet, one event a row.")]
Recipient = Annotated[str, typer.Option(help="Column that says who.")]
At = Annotated[str, typer.Option(help="Column that says when: ISO 8601, Unix seconds or milliseconds.")]
Zone = Annotated[
    str | None, typer.Option(help="Column with an IANA zone, or an offset like +02:00.", show_default=False)
]
DefaultZone = Annotated[str, typer.Option(help="Zone of rows that have none.")]


@app.command()
def evaluate(
    events: Events,
    recipient: Recipient = "recipient",
    at: At = "at",
    zone: Zone = None,
    default_zone: DefaultZone = "UTC",
    slots: Annotated[int, typer.Option(help="Hours to choose from: 24 or 168.")] = 24,
    json: Annotated[bool, typer.Option("--json", help="For machines: everything, whole.")] = False,
) -> None:
    """Train on the earlier events of a file, try the model on the latest quarter, beside simple rules.

    Whoever is active within the hours after a visit could have read a message in one of them: any1 is how
    often the chosen hour was such a one. The model sees only what the stream's profile would have held at
    that moment. Intervals, in brackets, hold the true value with 95 %: a bootstrap over recipients.
    """
    if slots not in _SLOTS:
        raise typer.BadParameter("24 or 168", param_hint="--slots")
    activity, count = event_file.read(events, Columns(recipient, at, zone, default_zone))
    with steps("evaluating", 9) as report:
        found = evaluation.evaluate(activity, slots, report)
    described = {
        "file": events.name,
        "events": count,
        "active_hours": len(activity),
        "recipients": int(activity.recipient.max()) + 1,
        "slots": slots,
        "windows": found.windows,
        "visits": found.visits,
        "recipients_tested": found.recipients,
        "base_rate": found.calibration.base,
    }
    if json:
        typer.echo(show.as_json(machine_form(described, found)))
        return
    tell(show.console(), described, found)


@contextmanager
def steps(name: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on stderr that is told of each step."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total, completed=-1)  # a step is done when the next begins

        def report(step: str) -> None:
            progress.update(task, advance=1, description=f"{name}: {step}")

        yield report


def machine_form(described: Mapping[str, Any], found: Evaluation) -> dict[str, Any]:
    """Return an evaluation for `--json`: each estimate is a list of value, low and high end."""
    calibration = found.calibration
    return {
        "set": described,
        "models": found.models,
        "champion": CHAMPION,
        "differences": {f"{CHAMPION} - {name}": each for name, each in found.differences.items()},
        "by_history": {
            _bucket(bucket): {"windows": windows, "any1": each}
            for bucket, (windows, each) in found.by_history.items()
        },
        "calibration": {
            "base": calibration.base,
            "ratio": calibration.ratio,
            "ratio_raw": calibration.ratio_raw,
            "ece": calibration.ece,
            "deciles": calibration.deciles,
        },
        "trained": found.trained.facts,
    }


def tell(console: Console, described: Mapping[str, Any], found: Evaluation) -> None:
    """Print an evaluation."""
    console.print(
        f"{described['file']}: {described['events']:,} events, {described['active_hours']:,} active hours of "
        f"{show.many(described['recipients'], 'recipient')}; tried on {show.many(found.windows, 'visit')} of "
        f"{show.many(found.recipients, 'recipient')} who came back within {described['slots']} hours.",
        soft_wrap=True,
    )
    console.print()
    console.print(_table("", found.models))
    console.print()
    console.print(_table(f"{CHAMPION} less", found.differences))
    console.print()
    buckets = {_bucket(bucket): each for bucket, each in found.by_history.items()}
    made = show.table("any1 by active hours", *buckets, right=[*buckets])
    made.add_row("visits", *(f"{windows:,}" for windows, _ in buckets.values()), end_section=True)
    for name in found.models:
        made.add_row(name, *(f"{each[name][0]:.3f}" for _, each in buckets.values()))
    console.print(made)
    calibration = found.calibration
    value, low, high = calibration.ratio
    console.print(
        f"\nCalibration of {CHAMPION}: told {value:.3f} [{low:.3f}, {high:.3f}] times what happened "
        f"({calibration.ratio_raw:.3f} without the online intercept), base {calibration.base:.4f}, mean "
        f"distance by decile {calibration.ece / calibration.base:.1%} of it.",
        soft_wrap=True,
    )
    _plot(console, found)


def _table(title: str, rows: Mapping[str, Mapping[str, Estimate]]) -> Any:
    made = show.table(title, *(f"{name}" for name in _METRICS), right=[*_METRICS])
    for name, each in rows.items():
        style = "bold" if name == CHAMPION else ""
        made.add_row(name, *(_estimate(each.get(metric)) for metric in _METRICS), style=style)
    made.caption = "; ".join(f"{name}: {told}" for name, told in _METRICS.items())
    made.caption_justify = "left"
    return made


def _estimate(estimate: Estimate | None) -> str:
    return "–" if estimate is None else "{:.3f} [{:.3f}, {:.3f}]".format(*estimate)


def _short(name: str) -> str:
    return name.replace("eb_hour_of", "eb")


def _bucket(bucket: tuple[int, int]) -> str:
    low, high = bucket
    return f"{low}+" if high > 1_000_000 else f"{low}-{high - 1}"


def _plot(console: Console, found: Evaluation) -> None:
    plots.head(console, "any1 in %, by model")
    names = [*found.models]
    heights = [100 * found.models[name]["any1"][0] for name in names]
    figure = plots.canvas(plots.width(console), _HEIGHT, max(heights))
    xs = list(range(len(names)))
    figure.draw(figure.bar(xs, heights, marker=plots.marker("█", 34), width=0.6))
    figure.ruler("x").ticks(xs, [*map(_short, names)])
    console.print(plots.drawn(figure), soft_wrap=True)


def register(main: typer.Typer) -> None:
    """Add these commands."""
    main.add_typer(app, name="model")
