"""`opportune verify`: everything decided again, sealed, and compared."""

from typing import Annotated

import typer

from schemas.settings import Settings
from streams import cluster, worker
from streams import verify as checking
from streams.cli import show
from streams.cli.replay import bars


def verify(
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition; default: all.")] = None,
) -> None:
    """Handle the journal's cuts again, sealed, and compare with what was written.

    No group is joined and nothing is produced. Audit records, dead letters and rows must come out byte by
    byte as they stand in the topics. Run it while no worker runs. Exit code 1 if anything differs.
    """
    console, settings = show.console(), Settings()
    spec = worker.decide_spec(settings, cluster.connect(settings))
    partitions = range(settings.partitions) if partition is None else [partition]
    found: list[str] = []
    with bars(console, "partitions") as progress:
        task = progress.add_task("verifying", total=len(partitions))
        for number in partitions:
            found += checking.differences(spec, number)
            progress.advance(task)
    for line in found:
        console.print(line, markup=False)
    console.print(f"{len(found)} differences." if found else "All came out as it was written.")
    raise typer.Exit(1 if found else 0)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(verify)
