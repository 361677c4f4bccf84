"""`opportune campaigns dry-run NAME`: what a campaign would have done, before anyone switches it on."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from schemas.profile import DAY_MS
from schemas.settings import Settings
from streams import cluster, dry_run, serving, worker
from streams.cli import plots, show
from streams.cli.replay import bars
from streams.dry_run import Trial
from streams.policy import load_policy

_HEIGHT: Final = 10
_NEEDS: Final = 2

app = typer.Typer(no_args_is_help=True, help="Campaigns: tried before they are switched on.")


@app.callback()
def campaigns() -> None:
    """Make `dry-run` a command of its own name, though it is the only one."""


@app.command("dry-run")
def try_campaign(
    name: Annotated[str, typer.Argument(help="The campaign, as its file in the policy folder names it.")],
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Policy folder with the campaign. Default: the setting policy_dir, or the packaged policy.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, help="The last so many days of stream time.")] = 7,
    json: Annotated[bool, typer.Option("--json", help="For machines: everything, whole.")] = False,
) -> None:
    """Decide the last days again as if the campaign had been switched on, sealed: nothing is sent or written.

    Tells whom it would have reached and when, what would have held others back and what each would have
    needed, and which other campaigns it would have outranked. The rest of the policy folder is in force as
    well. It reads the journal and the source topics from their beginning, so it needs them whole; workers may
    go on meanwhile.
    """
    settings = Settings() if policy is None else Settings(policy_dir=policy)
    client = cluster.connect(settings)
    rules = load_policy(settings)
    dry_run.campaign_of(rules, name)
    spec = worker.decide_spec(settings, client)
    cuts, until = dry_run.total_cuts(spec, settings.partitions)
    trial = Trial(name, rules.digest, until - round(days * DAY_MS), until)
    trusted = serving.trusted_keys(settings)
    with bars(Console(stderr=True), "cuts") as progress:
        task = progress.add_task("deciding again", total=cuts)
        done = partial(progress.advance, task)
        dry_run.run(spec, rules, settings.partitions, lambda: trusted, trial, done)
    if json:
        typer.echo(show.as_json(machine_form(trial)))
        return
    tell(show.console(), trial)


def machine_form(trial: Trial) -> dict[str, Any]:
    """Return a trial for `--json`: messages by recipient, times in ISO 8601."""
    return {
        "campaign": trial.campaign,
        "policy": trial.policy,
        "since": show.iso(trial.since),
        "until": show.iso(trial.until),
        "cuts": trial.cuts,
        "decisions": trial.decisions,
        "reached": dict(trial.reached),
        "withheld": {
            reason: {**vars(held), "needed": dict(held.needed)} for reason, held in trial.withheld.items()
        },
        "outranks": dict(trial.outranks),
        "days": {show.iso(day): count for day, count in sorted(trial.days.items())},
        "first": [{"recipient_id": who, "due_at": show.iso(at)} for who, at in trial.first],
        "hours": {str(hour): trial.hours[hour] for hour in range(24)},
    }


def tell(console: Console, trial: Trial) -> None:
    """Print a trial."""
    stretch = f"{show.moment(trial.since)} to {show.moment(trial.until)}"
    console.print(f"{trial.campaign}, {stretch}, {show.many(trial.cuts, 'cut')}, policy {trial.policy}")
    if not trial.decisions:
        console.print("Nothing would have set it off: no decision.")
        return
    messages = show.many(trial.reached.total(), "message")
    console.print(
        f"It would have been set off {trial.decisions:,} times, and sent {messages} to "
        f"{show.many(len(trial.reached), 'recipient')} ({dry_run.share_reached(trial):.1%} of the times)."
    )
    _held_back(console, trial)
    if trial.outranks:
        lost = ", ".join(f"{name} {count:,}" for name, count in trial.outranks.most_common())
        console.print(f"\nIt would have outranked: {lost}.")
    if trial.reached:
        _when(console, trial)
        first = ", ".join(f"{show.printable(who)} ({show.moment(at)})" for who, at in trial.first[:3])
        console.print(f"\nThe first: {first}")


def _held_back(console: Console, trial: Trial) -> None:
    if not trial.withheld:
        return
    right = ("decisions", "recipients")
    made = show.table("held back by", *right, "most often needed", right=right)
    for reason, withheld in dry_run.ranked(trial):
        needed = "; ".join(need for need, _ in withheld.needed.most_common(_NEEDS))
        made.add_row(reason, f"{withheld.decisions:,}", f"{len(withheld.recipients):,}", needed)
    console.print()
    console.print(made)


def _when(console: Console, trial: Trial) -> None:
    days = [*range(min(trial.days), max(trial.days) + DAY_MS, DAY_MS)]
    _bars(console, "Messages by UTC day", trial.days, days, [show.moment(day)[5:10] for day in days])
    _bars(
        console, "Messages by UTC hour of day", trial.hours, range(24), [f"{hour:02}" for hour in range(24)]
    )


def _bars(
    console: Console, title: str, counts: Counter[int], places: range | list[int], labels: list[str]
) -> None:
    plots.head(console, title)
    heights = [counts[place] for place in places]
    figure = plots.canvas(plots.width(console), _HEIGHT, max(heights))
    xs = list(range(len(heights)))
    figure.draw(figure.bar(xs, heights, marker=plots.marker("█", 34), width=0.8))
    step = -(-len(xs) * 6 // plots.width(console))
    figure.ruler("x").ticks(xs[::step], labels[::step])
    console.print(plots.drawn(figure), soft_wrap=True)


def register(main: typer.Typer) -> None:
    """Add these commands."""
    main.add_typer(app, name="campaigns")
