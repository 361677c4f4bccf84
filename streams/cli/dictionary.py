"""Writes docs/data-dictionary.md: `python -m streams.cli.dictionary`.

The views' own comments are the source: a ClickHouse of its own is started in a temporary folder, migrated and
asked.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sinks.clickhouse
from infra.embedded.clickhouse import ClickHouseServer
from schemas.settings import Settings
from sinks.clickhouse.client import ClickHouse
from streams import warehouse

PAGE: Final = Path(__file__).parents[2] / "docs" / "data-dictionary.md"
_QUESTIONS: Final = Path(sinks.clickhouse.__file__).parent / "questions.sql"
_HEAD: Final = """# Data dictionary

What `opportune run record` lands in ClickHouse, and twelve questions that it answers. Ask with
`opportune sql`, or with any client. This page is made from the comments of the views:
`python -m streams.cli.dictionary`.

The views are in the database `opportune` (`clickhouse_database`); read these. The tables behind them, in
`opportune_stored`, may hold a row more than once after a recorder was killed; the views never show that.
Times are UTC. `at` is the clock of the deployment, which may show another year (loaded history, a scaled
clock); `written_at` is the broker's. `topic`, `partition` and `offset` say which record a row comes from.
Every row but those of `activity` and `profile_snapshot` is written once and never changed. Rows go 25 months
after `written_at`, those of `dlq` after 90 days; `consent` and `profile_snapshot` stay until they are erased.
"""


@dataclass(frozen=True)
class Question:
    """A question, what to know about its answer, and the SQL that gives it."""

    title: str
    note: str
    sql: str


def questions() -> list[Question]:
    """Read the questions."""
    found = []
    for block in re.split(r";\n+", _QUESTIONS.read_text(encoding="utf-8").strip() + "\n"):
        lines = block.splitlines()
        notes = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
        if notes:
            found.append(Question(notes[0], " ".join(notes[1:]), "\n".join(lines[len(notes) :])))
    return found


def page(client: ClickHouse, views: str) -> str:
    """Make the whole page from migrated tables. Raises as `ClickHouse` says."""
    return "\n".join([_HEAD, "## Views", "", *_views(client, views), "## Questions", "", *_asked()])


def _views(client: ClickHouse, views: str) -> Iterator[str]:
    for name, comment in client.execute(
        "SELECT name, comment FROM system.tables WHERE database = %(views)s ORDER BY name", {"views": views}
    ):
        yield from (f"### {name}", "", comment, "", "| Column | Type | Meaning |", "|---|---|---|")
        for column, kind, meaning in client.execute(
            "SELECT name, type, comment FROM system.columns "
            "WHERE database = %(views)s AND table = %(table)s ORDER BY position",
            {"views": views, "table": name},
        ):
            yield f"| `{column}` | `{kind}` | {meaning} |"
        yield ""


def _asked() -> Iterator[str]:
    for number, question in enumerate(questions(), 1):
        yield from (f"### {number}. {question.title}", "")
        if question.note:
            yield from (question.note, "")
        yield from ("```sql", question.sql, "```", "")


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        server = ClickHouseServer(Path(folder))
        server.up()
        try:
            house = warehouse.connect(Settings(state_dir=Path(folder), clickhouse=None))
            house.migrate()
            with closing(house.connect()) as client:
                PAGE.write_text(page(client, house.views), encoding="utf-8")
        finally:
            server.down()


if __name__ == "__main__":
    main()
