from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.features import FEATURES
from sinks.clickhouse import shape
from sinks.clickhouse.migrate import Migration, migrations, stored
from streams.recording.rows import TABLES

_REPEATABLE = re.compile(
    r"CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE VIEW"
    r"|ALTER TABLE \S+\s+(ADD (COLUMN|INDEX) IF NOT EXISTS|(COMMENT|MODIFY) COLUMN IF EXISTS)"
)
_COMMENTED = re.compile(r"ALTER TABLE audit_stored\.(\w+) COMMENT COLUMN IF EXISTS `([^`]+)` '(.*)'")
_COLUMN = re.compile(r"^    `([^`]+)` (.+?)(?: COMMENT '(.*)')?,?$", re.MULTILINE)
_AUDIT = [*shape.BODIES.values()]


def _definition(kind: str, name: str) -> str:
    statements = [text for migration in migrations() for text in migration.statements("audit")]
    database = "audit_stored" if kind == "TABLE" else "audit"
    found = [text for text in statements if re.match(rf"CREATE .*{kind} .*{database}\.{name}\s", text)]
    assert found, name
    return found[-1]


def _columns(kind: str, name: str) -> dict[str, tuple[str, str | None]]:
    heads = [_definition(kind, name).split("\n)\n")[0]]
    if kind == "TABLE":
        statements = [text for migration in migrations() for text in migration.statements("audit")]
        altered = tuple(f"ALTER TABLE audit_stored.{name} {how} COLUMN" for how in ("ADD", "MODIFY"))
        heads += [text for text in statements if text.startswith(altered)]
    found = {column: (of, comment) for head in heads for column, of, comment in _COLUMN.findall(head)}
    if kind == "TABLE":
        for of, column, comment in filter(None, (_commented(text) for text in statements)):
            if of == name:
                found[column] = found[column][0], comment
    return found


def _commented(text: str) -> tuple[str, ...] | None:
    match = _COMMENTED.match(text)
    return match and match.groups()


def test_every_statement_may_be_repeated() -> None:
    statements = [text for migration in migrations() for text in migration.statements("audit")]
    assert len(statements) > 15
    assert [text[:60] for text in statements if not _REPEATABLE.match(text)] == []


def test_a_statement_that_may_not_be_repeated_would_be_found() -> None:
    assert not _REPEATABLE.match("ALTER TABLE x ADD COLUMN y Int32")
    assert not _REPEATABLE.match("CREATE TABLE x (y Int32)")


def test_tables_and_views_go_to_databases_of_their_own() -> None:
    text = "\n".join(text for migration in migrations() for text in migration.statements("audit"))
    assert "{" not in text
    assert stored("audit") == "audit_stored"


@pytest.mark.parametrize("table", [name for names in TABLES.values() for name in names])
def test_a_view_shows_every_column_of_its_table_and_every_column_is_explained(table: str) -> None:
    kept, shown = _columns("TABLE", table), _columns("VIEW", table)
    assert shown.keys() == kept.keys() - {"is_deleted"}
    for column, (kind, comment) in shown.items():
        assert comment, column
        assert kept[column][1] == comment
        assert kept[column][0].startswith(kind)


@pytest.mark.parametrize("body", [*shape.BODIES])
def test_a_table_holds_every_field_of_its_body(body: str) -> None:
    wanted = {*shape.envelope().names, *shape.body(body).names}
    place = {"topic", "partition", "offset", "written_at", "ingested_at"}
    assert _columns("TABLE", shape.BODIES[body]).keys() == wanted | place


@pytest.mark.parametrize("topic", ["decide.journal", "deliver.journal"])
def test_the_table_of_cuts_holds_every_field_of_a_journal(topic: str) -> None:
    assert set(shape.journal(topic).names) <= _columns("TABLE", "cut").keys()


def test_a_snapshot_has_every_counting_feature() -> None:
    counting = {feature.name for feature in FEATURES.values() if feature.source in ("counter", "revenue")}
    assert counting <= _columns("TABLE", "profile_snapshot").keys()


@pytest.mark.parametrize("table", [*_AUDIT, "cut", "dlq", "profile_snapshot", "activity"])
def test_no_clock_of_the_recorder_decides_where_a_row_stands_or_goes(table: str) -> None:
    tail = _definition("TABLE", table).split("\n)\n")[1].split("COMMENT")[0]
    assert "ingested_at" not in tail
    assert "now" not in tail
    if "TTL" in tail:
        # An event of 2017 that is loaded today would be gone at once.
        assert re.search(r"TTL toDateTime\(written_at\)", tail)


def test_files_are_numbered_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("SELECT 1;")
    (tmp_path / "0003_three.sql").write_text("SELECT 3;")
    with pytest.raises(ValueError, match=r"0003_three\.sql"):
        migrations(tmp_path)


def test_a_file_is_cut_into_statements_where_a_line_ends_with_a_semicolon() -> None:
    text = "-- a; b\n\nSELECT ';' FROM {stored}.x;\n\nSELECT 2\nFROM {views}.y;\n"
    assert Migration(1, "x", text).statements("a") == ["SELECT ';' FROM a_stored.x", "SELECT 2\nFROM a.y"]


def test_a_changed_text_has_another_checksum() -> None:
    assert Migration(1, "x", "SELECT 1;").checksum != Migration(1, "x", "SELECT 1; ").checksum
