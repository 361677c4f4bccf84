"""Segment definitions: what is refused when they are read, before any event meets them."""

import numpy as np
import pytest

from models import segment_sql
from models.segments import Segments
from schemas.policy import PolicyError, Segment
from tests.support.cuts import PACKAGED


def compiled(where: str) -> Segments:
    return Segments.compile([Segment(number=0, name="some", where=where, doc="For tests.")])


def faults(where: str) -> list[tuple[int, int]]:
    return [(fault.line, fault.column) for fault in segment_sql.lint(where)]


def said(where: str) -> str:
    return "\n".join(map(str, segment_sql.lint(where)))


def test_the_packaged_segments_are_accepted() -> None:
    assert len(Segments.compile(PACKAGED.segments).expressions) == len(PACKAGED.segments)


@pytest.mark.parametrize(
    "where",
    [
        "views_7d >= 3 AND NOT (clicks_7d = 0 OR purchases_30d <> 2)",
        "hours_since_view BETWEEN 20 AND 72 OR hours_since_view IS NULL",
        "hours_since_view IS NOT NULL",
        "COALESCE(hours_since_view, 1000) - 2 * hours_since_click > -1.5",
        "COALESCE(hours_since_view / 24, 40) > 30 AND NOT clicks_7d != 2",
        "revenue_30d / 3 >= revenue_7d",
        "views_7d\n  >= 3",
    ],
)
def test_what_the_guide_allows_is_accepted(where: str) -> None:
    assert faults(where) == []
    assert compiled(where).expressions


@pytest.mark.parametrize(
    ("where", "line", "column", "remedy"),
    [
        ("", 1, 1, "write for example"),
        (" \n", 1, 1, "write for example"),
        ("views_7d >=", 1, 10, "no SQL"),
        ("views_7d > 3 AND (clicks_7d > 1", 1, 31, "no SQL"),
        ("views_7d = 'x", 1, 14, "quote"),
        ("views_8d > 1", 1, 1, "did you mean views_"),
        ("views_7d > 1 OR\n  Clicks_7d > 1", 2, 3, "did you mean clicks_7d?"),
        ('"views_7d" > 1', 1, 1, "may not be used"),
        ("views_7d + 1", 1, 1, "not a condition"),
        ("views_7d > 1 AND clicks_7d", 1, 18, "write clicks_7d > 0"),
        ("1 = 1", 1, 1, "names no feature"),
        ("views_7d > 1 AND 1 = 1", 1, 18, "names no feature"),
        ("1 BETWEEN views_7d AND 3", 1, 1, "before BETWEEN"),
        ("SUM(views_7d) > 3", 1, 1, "no feature SUM"),
        ("views_7d > AVG(views_7d)", 1, 12, "no feature AVG"),
        ("CASE WHEN views_7d > 1 THEN 1 END > 0", 1, 1, "no feature CASE"),
        ("views_7d = '3'", 1, 12, "without quotes"),
        ("views_7d IN (1, 2)", 1, 10, "write a = 1 OR a = 2"),
        ("views_7d == 1", 1, 10, "write ="),
        ("views_7d > 1 = TRUE", 1, 16, "no truth values"),
        ("views_7d / clicks_7d > 1", 1, 12, "0.001 or more"),
        ("views_7d / 0 > 1", 1, 12, "0.001 or more"),
        ("COALESCE(views_7d, 3) / 2 > 1", 1, 1, "COALESCE around it"),
        ("COALESCE(views_7d) > 1", 1, 1, "what to take instead"),
        ("views_7d > 3 - 1", 1, 12, "write the result"),
        ("views_7d > -(-128)", 1, 15, "write the result"),
        ("views_7d = NULL", 1, 12, "may not stand here"),
        ("1 < views_7d < 3", 1, 1, "may not stand here"),
        ("views_7d > 1e3", 1, 12, "write numbers as"),
        ("views_7d > 20_000", 1, 12, "write numbers as"),
        ("views_7d > 9007199254740993", 1, 12, "write numbers as"),
        ("views_7d >=1AND clicks_1h = 0", 1, 12, "write numbers as"),
        ("views_7d > 1; DROP TABLE x", 1, 13, "without a semicolon"),
        ("views_7d > 1 -- often", 1, 12, "no comments"),
        ("views_7d \u2265 5", 1, 10, "character"),
        # What sqlglot mends, and others read otherwise or not at all.
        ("hours_since_view ISNULL", 1, 18, "no feature ISNULL"),
        ("hours_since_view NOT NULL", 1, 1, "write NOT hours_since_view IS NULL"),
        ("clicks_1h = 1 OR + (views_7d = 3)", 1, 1, "several ways"),
        ("views_7d BETWEEN 1 2", 1, 1, "several ways"),
        ("COALESCE(views_7d, ) > 2", 1, 1, "several ways"),
        ("hours_since_view NOT IS NOT NULL", 1, 1, "polars refuses it"),
        ("NOT " * 60 + "views_7d > 1", 1, 1, "polars refuses it"),
        ("(" * 300 + "views_7d > 1" + ")" * 300, 1, 1, "nested too deeply"),
        ("views_7d > 1 OR " * 300 + "views_7d > 1", 1, 1, "split it"),
    ],
)
def test_what_may_not_be_used_is_refused_where_it_stands(
    where: str, line: int, column: int, remedy: str
) -> None:
    assert faults(where)[:1] == [(line, column)], said(where)
    assert remedy in said(where)
    with pytest.raises(PolicyError, match="segment some: line"):
        compiled(where)


def test_every_fault_of_a_text_is_found() -> None:
    assert faults("view_7d > 1 AND clicks_7d IN (1)\n OR views_7d = '3'") == [(1, 1), (1, 27), (2, 16)]


def test_null_is_no_member() -> None:
    segments = compiled("hours_since_view > 1 OR NOT hours_since_view > 1")
    assert segments.holds(np.array([[np.nan], [0.5]])).tolist() == [[False], [True]]


def test_bits_survive_packing() -> None:
    segments = Segments.compile(
        [Segment(number=n, name=f"s{n}", where="views_7d > 0", doc="For tests.") for n in (0, 63, 64, 127)]
    )
    members = np.array([[True, False, True, False], [False, True, False, True]])
    assert (segments.members(segments.packed(members)) == members).all()
