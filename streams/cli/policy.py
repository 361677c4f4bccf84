"""`opportune policy check | features`: the policy folder as a whole, without Kafka."""

from pathlib import Path
from typing import Annotated

import typer

from models.features import FEATURES
from schemas.policy import Contact, Policy
from schemas.settings import Settings
from streams.cli import show
from streams.policy import policy_folder
from streams.policy_check import check as check_folder

app = typer.Typer(
    no_args_is_help=True, help="The policy: segments, campaigns, contact policy and templates, as files."
)


@app.command()
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A policy folder. Default: the setting policy_dir, or the packaged policy.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check a policy folder as a whole, before a worker runs on it. Needs no Kafka; name yours.

    Every problem is a line FILE:LINE:COLUMN: TEXT, as compilers write them, so editors find the place:
    values of a wrong kind, segments and templates that are not there, numbers that are used twice, SQL that
    may not be used. Exit code 1 if there is any.
    """
    place = folder or policy_folder(Settings())
    files = check_folder(place)
    for problem in files.problems:
        typer.echo(str(problem))
    if files.problems:
        typer.echo(f"{show.many(len(files.problems), 'problem')} in {place}", err=True)
        raise typer.Exit(1)
    _print(files.policy(), place)


@app.command()
def features() -> None:
    """List what a segment's SQL can ask of a recipient."""
    table = show.table("feature", "unit", "meaning")
    for feature in FEATURES.values():
        table.add_row(feature.name, feature.unit, feature.doc)
    show.console().print(table)


def _print(policy: Policy, place: Path) -> None:
    console = show.console()
    segments = show.table("segment", "number", "definition", "where")
    for segment in policy.segments:
        segments.add_row(segment.name, str(segment.number), segment.definition, segment.where)
    campaigns = show.table("campaign", "number", "version", "trigger", "audience", "template", "identity")
    for campaign in policy.campaigns:
        [(kind, name)] = campaign.trigger.model_dump(exclude_none=True).items()
        audience = campaign.audience or "everyone"
        figures = (str(campaign.number), str(campaign.version))
        campaigns.add_row(
            campaign.name, *figures, f"{kind} {name}", audience, campaign.template, campaign.identity
        )
    console.print(segments)
    console.print(campaigns)
    _print_contact(policy.contact)
    console.print(f"Nothing is wrong with {place}, policy {policy.digest}.", highlight=False, soft_wrap=True)


def _print_contact(contact: Contact) -> None:
    caps = "; ".join(f"{cap} ({', '.join(cap.purposes)})" for cap in contact.cap) or "none"
    quiet = "; ".join(f"{place} {hours}" for place, hours in contact.quiet.items()) or "none"
    needs = ", ".join(f"{name} {rule.consent}" for name, rule in contact.purpose.items())
    held = f"{contact.hold_out:.1%} held out of all campaigns"
    for name, told in (
        ("caps", caps),
        ("quiet", quiet),
        ("consent", f"{needs}, profiling {contact.profiling}"),
    ):
        show.field(show.console(), name, told)
    show.field(show.console(), "hold-out", held)


def register(main: typer.Typer) -> None:
    """Add these commands."""
    main.add_typer(app, name="policy")
