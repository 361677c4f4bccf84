"""What the embedded ClickHouse reads out of a statement before the engine gets it."""

import pytest

from infra.embedded.chdb_statement import (
    Insert,
    SeveralStatements,
    identifier,
    insert_before_rows,
    insert_of,
    literal,
    single,
    streams,
    without_format,
)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SET ROLE ALL",
        "SELECT ';'; SELECT 2",
        "SELECT 1; -- two\nSELECT 2",
        "SELECT 1 /* ; */; SELECT 2",
        "SELECT `a;b`;;SELECT 2",
        "SELECT 'it''s'; DROP TABLE t",
        "SELECT 'a\\''; DROP TABLE t",
    ],
)
def test_two_statements_in_one_text_are_refused(sql: str) -> None:
    with pytest.raises(SeveralStatements):
        single(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ';', \"a;b\", `c;d`, 'it''s;', '\\';'",
        "SELECT 1 -- ; SELECT 2\n",
        "SELECT /* ; */ 1",
        "SELECT $$;$$, $tag$ ; ' $tag$",
    ],
)
def test_a_semicolon_in_quotes_or_in_a_comment_ends_nothing(sql: str) -> None:
    assert single(sql) == sql


@pytest.mark.parametrize("end", [";", " ; \n", ";;", "; -- done", ";/* done */"])
def test_what_comes_after_the_only_statement_is_left_out(end: str) -> None:
    assert single(f"SELECT 1{end}").strip() == "SELECT 1"


@pytest.mark.parametrize(
    ("sql", "insert"),
    [
        ("INSERT INTO t VALUES", Insert("t", (), "", None)),
        ('insert into d.t (a, `b,c`, "d") values', Insert("d.t", ("a", "b,c", "d"), "", None)),
        ("INSERT INTO TABLE `d`.`t` (a) FORMAT Native", Insert("`d`.`t`", ("a",), "", "Native")),
        (
            "INSERT INTO t (a)\nSETTINGS insert_deduplication_token = 'x' FORMAT CSV",
            Insert("t", ("a",), "SETTINGS insert_deduplication_token = 'x'", "CSV"),
        ),
    ],
)
def test_an_insert_that_waits_for_its_rows_is_known(sql: str, insert: Insert) -> None:
    assert insert_of(sql) == insert


@pytest.mark.parametrize(
    "sql", ["INSERT INTO t VALUES (1)", "INSERT INTO t SELECT 1", "SELECT 'INSERT INTO t VALUES'"]
)
def test_an_insert_that_has_its_rows_is_a_statement_like_others(sql: str) -> None:
    assert insert_of(sql) is None


def test_rows_begin_behind_one_line_end_even_where_they_begin_with_another() -> None:
    body = "INSERT INTO t (ä) FORMAT Native\n".encode() + b"\n\n\x01"

    found = insert_before_rows(body)

    assert found is not None
    insert, rows = found
    assert insert == Insert("t", ("ä",), "", "Native")
    assert body[rows:] == b"\n\n\x01"


def test_a_body_that_is_no_insert_has_no_rows() -> None:
    assert insert_before_rows(b"SELECT 1") is None


def test_only_a_select_is_streamed() -> None:
    for sql in ("SELECT 1", " -- why\n(select 1)", "/* a */ WITH 1 AS a SELECT a"):
        assert streams(sql)
    for sql in ("SHOW TABLES", "EXPLAIN SELECT 1", "SELECTED", "INSERT INTO t SELECT 1"):
        assert not streams(sql)


def test_a_format_is_taken_off_the_end_only() -> None:
    assert without_format("SELECT 1\n FORMAT Native") == ("SELECT 1\n ", "Native")
    assert without_format("SELECT ' FORMAT CSV'") == ("SELECT ' FORMAT CSV'", None)


def test_names_and_texts_cannot_leave_their_quotes() -> None:
    assert identifier("a`b\\") == "`a\\`b\\\\`"
    assert literal("it's \\") == "'it\\'s \\\\'"
