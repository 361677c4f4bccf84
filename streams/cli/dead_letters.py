"""`opportune dead-letters list | show | redrive`: records that could not be handled."""

import heapq
import json
from collections import Counter
from dataclasses import asdict, replace
from typing import Annotated, Any, Final

import typer
from rich.padding import Padding
from rich.progress import Progress
from rich.text import Text

from schemas import codec, topics
from schemas.codec import MalformedRecord, UnknownSchema
from schemas.reasons import DeadLetterReason
from schemas.settings import Settings
from streams import cluster
from streams.cli import show
from streams.dead_letters import Choice, DeadLetters, Letter

_HEX_MOST: Final = 512
_AGAIN: Final = (
    "Clicks and purchases that are sent back twice are filtered as duplicates, since their event id is the "
    "same; an old consent change is filtered as stale."
)
Reason = Annotated[DeadLetterReason | None, typer.Option(help="Only letters with this reason.")]
Topic = Annotated[str | None, typer.Option(help="Only letters that came from this topic.")]

app = typer.Typer(
    no_args_is_help=True,
    help="Records that could not be handled. They are kept whole for 90 days, each with its reason and "
    "remedy; mend the cause, then send them back with `redrive`.",
)


@app.command(name="list")
def list_letters(
    reason: Reason = None,
    topic: Topic = None,
    limit: Annotated[int, typer.Option(min=1, help="Show the latest so many.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List dead letters, the latest last: where they came from, why, and what to do about it."""
    found: Counter[str] = Counter()

    def counted() -> Any:
        for letter in DeadLetters(cluster.connect(Settings())).chosen(Choice(reason, topic)):
            found[letter.reason] += 1
            yield letter

    # Letters are large and may be many: no more than the shown ones are held.
    latest = sorted(heapq.nlargest(limit, counted(), key=_age), key=_age)
    if json:
        typer.echo(show.as_json([machine_form(letter) for letter in latest]))
        return
    console = show.console()
    if not latest:
        console.print("No dead letters." if reason is None and topic is None else "No such dead letters.")
        return
    for letter in latest:
        console.print(line(letter), soft_wrap=True)
        console.print(Padding(Text(show.printable(letter.error), "dim"), (0, 0, 0, 4)))
    hidden = found.total() - len(latest)
    more = f"; {hidden} older ones are not shown (--limit)" if hidden else ""
    reasons = ", ".join(f"{name} {count:,}" for name, count in found.most_common())
    console.print(f"{show.many(found.total(), 'dead letter')}: {reasons}{more}.")
    console.print("`opportune dead-letters show TOPIC PARTITION OFFSET` shows one whole.", style="dim")


@app.command(name="show")
def show_letter(
    topic: Annotated[str, typer.Argument(help="Topic that it came from.")],
    partition: Annotated[int, typer.Argument(min=0, help="Partition that it came from.")],
    offset: Annotated[int, typer.Argument(min=0, help="Offset at which it stood there.")],
    whole: Annotated[bool, typer.Option("--whole", help="All of its bytes.")] = False,
) -> None:
    """Show one dead letter whole: why it failed, its headers, its bytes, and what they decode to."""
    letter = DeadLetters(cluster.connect(Settings())).one(topic, partition, offset)
    console = show.console()
    for name, text in described(letter):
        show.field(console, name, text)
    console.print("  decoded", style="dim")
    console.print(Text(show.printable_lines(decoded(letter))))
    value = letter.value or b""
    console.print(f"  bytes ({len(value):,})", style="dim")
    console.print(Text(show.hex_dump(value, len(value) if whole else _HEX_MOST)))


@app.command()
def redrive(
    reason: Reason = None,
    topic: Topic = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only from this partition.")] = None,
    offset: Annotated[
        int | None, typer.Option(min=0, help="Only the one from this offset; needs --topic and --partition.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Send dead letters back to their topics, to be handled again.

    Mend the cause first, or they come back: unknown_schema wants the version deployed that knows it,
    too_early that time passes; malformed, invalid, key_mismatch and oversized records stay what they are
    unless the rules have changed, and too_late only gets later. Each goes to the partition of its key, with
    headers that name where it first stood. The letters stay in the list until retention ends them. Clicks
    and purchases that are sent back twice are filtered as duplicates, since their event id is the same.
    """
    if offset is not None and (topic is None or partition is None):
        raise typer.BadParameter("an offset needs --topic and --partition", param_hint="--offset")
    console, choice = show.console(), Choice(reason, topic, partition, offset)
    letters = DeadLetters(cluster.connect(Settings()))
    found = Counter((letter.topic, letter.reason) for letter in letters.chosen(choice))
    if not found:
        console.print("No such dead letters: nothing to send.")
        return
    table = show.table("back to", "reason", "letters", right=("letters",))
    for (name, why), number in sorted(found.items()):
        table.add_row(name, why, f"{number:,}")
    console.print(table)
    console.print(_AGAIN)
    if dry_run:
        console.print(f"{found.total():,} would be sent; nothing was.")
        return
    if not yes:
        typer.confirm(f"Send {show.many(found.total(), 'record')} back?", abort=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("sending back", total=found.total())
        sent = letters.redrive(choice, lambda: progress.advance(task))
    console.print(f"{show.many(sent, 'record')} sent back.")


def line(letter: Letter) -> Text:
    """Tell of a letter in a line; its place is written as `show` takes it."""
    return Text.assemble(
        f"{show.moment(letter.at)}  ",
        (f"{letter.topic} {letter.partition} {letter.offset}", "bold"),
        "  ",
        (letter.reason, "red"),
        f"  key {show.printable(letter.key)}",
    )


def described(letter: Letter) -> list[tuple[str, str]]:
    """Name and text of what is known of a letter besides its bytes."""
    lines = [
        ("from", f"{letter.topic} partition {letter.partition} offset {letter.offset}"),
        ("at", f"{show.moment(letter.at)}, in cut {letter.cut}"),
        ("reason", letter.reason),
        ("error", show.printable(letter.error)),
        ("key", "none" if letter.key is None else show.printable(letter.key)),
    ]
    lines += [("header", f"{show.printable(name)}: {show.printable(data)}") for name, data in letter.headers]
    return lines


def decoded(letter: Letter) -> str:
    """Return the record as JSON, or why it does not decode."""
    if letter.value is None:
        return "there is no value"
    if letter.topic not in topics.BY_NAME:
        return f"{letter.topic} is no topic of ours"
    try:
        return show.as_json(codec.decode(letter.topic, letter.value))
    except (MalformedRecord, UnknownSchema) as error:
        return f"does not decode: {error}"


def machine_form(letter: Letter) -> dict[str, Any]:
    """Return a letter for `--json`: bytes in hex, and the record where it decodes."""
    record = decoded(letter)
    return {
        **asdict(replace(letter, headers=())),
        "headers": dict(letter.headers),
        "at": show.iso(letter.at),
        "key_text": show.printable(letter.key),
        "record": json.loads(record) if record.startswith("{") else None,
    }


def _age(letter: Letter) -> tuple[int, str, int, int]:
    return letter.at, letter.topic, letter.partition, letter.offset


def register(main: typer.Typer) -> None:
    """Add these commands."""
    main.add_typer(app, name="dead-letters")
