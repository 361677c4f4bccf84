"""`opportune schemas check | list`: the schema files and the topics, without Kafka."""

import typer

from schemas import check as checking
from schemas import codec, topics
from schemas.units import Milliseconds
from streams.cli import show

app = typer.Typer(
    no_args_is_help=True, help="The Avro schemas and the topics that they are for. Needs no Kafka."
)


@app.command()
def check() -> None:
    """Check that today's schemas are complete and read everything that was ever released.

    A released schema is never edited: a change is a new file (behaviour.clicks.v2.avsc) with a new id at the
    end of schemas/avro/ids.toml. With a release, its file is copied to schemas/released. Exit code 1 if
    anything is wrong.
    """
    console = show.console()
    problems = checking.check()
    for problem in problems:
        console.print(f"✘ {problem}", markup=False, highlight=False)
    if problems:
        raise typer.Exit(1)
    released = len(list(checking.RELEASED.glob("*.avsc")))
    console.print(
        f"{len(codec.ids())} schemas are complete and explained, and read all {released} released ones.",
        highlight=False,
    )


@app.command(name="list")
def list_topics() -> None:
    """List the topics: what keys them, what schema is written today, and how long records stay."""
    table = show.table("topic", "key", "schema id", "partitions", "kept", "compacted")
    for topic in topics.TOPICS:
        kept = "for ever" if topic.retention_ms is None else str(Milliseconds(topic.retention_ms))
        table.add_row(
            topic.name,
            topic.key,
            str(codec.current_id(topic.name)) if topic.avro else "raw rows",
            "as set" if topic.partitions is None else str(topic.partitions),
            kept,
            "to the latest of each key" if topic.compact else "no",
        )
    show.console().print(table)


def register(main: typer.Typer) -> None:
    """Add these commands."""
    main.add_typer(app, name="schemas")
