"""How `opportune report` prints its figures."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from schemas import topics
from streams.cli import report as printing
from streams.figures import Campaign, Example, Fates, HoursOfDay, Membership, Rate, Segments
from streams.report import Report

HOUR = 3_600_000
DAY = 24 * HOUR
NOON = 1_488_369_600_000  # 2017-03-01 12:00 UTC, a Wednesday
CLICKS = topics.CLICKS.name


def a_report() -> Report:
    sizes = [5, 1200, 700, 0]
    return Report(
        begin=NOON,
        end=NOON + 3 * DAY,
        history=Rate(100, 66_000, 17.4, 3793.1),
        live=Rate(0, 0, 0.0, None),
        fates=[Fates(CLICKS, 66_000, no_trigger=65_990, decided=10)],
        dead_letters={"malformed": 1, "too_late": 2},
        campaigns=[
            Campaign("browse_abandonment", 10, 6, {"prior": 6}, {"cooldown": 4}, 4, {"expired": 1}, pending=1)
        ],
        segments=Segments(
            DAY,
            [NOON // DAY * DAY + (n + 1) * DAY for n in range(4)],
            [Membership("lapsing", sizes, 1300, 1300)],
        ),
        hours=HoursOfDay("Europe/Berlin", [0.0] * 12 + [1.0] + [0.0] * 11, [1 / 24] * 24, 10, 66_000),
        examples=[],
        begins_late=[],
    )


def printed(found: Report, width: int = 100, **terminal: Any) -> str:
    console = Console(file=io.StringIO(), width=width, **terminal)
    printing.tell(console, found)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


@pytest.mark.parametrize("width", [100, 140])
def test_no_line_is_wider_than_a_hundred_and_none_has_colours_where_nobody_looks(width: int) -> None:
    text = printed(a_report(), width)
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


def test_plots_have_colours_on_a_terminal() -> None:
    assert "\x1b[38;5;33m" in printed(a_report(), force_terminal=True, color_system="256")


def test_every_figure_is_printed() -> None:
    text = " ".join(printed(a_report()).split())
    for words in (
        "Stream time 2017-03-01 12:00 UTC to 2017-03-04 12:00 UTC, in 100 cuts.",
        "History: 66,000 events in 100 cuts and 17.4 s of wall clock, 3,793 events a second.",
        "behaviour.clicks 66,000 65,990 10 0 0 0 0",
        "3 dead letters: too_late 2, malformed 1.",
        "decided 10 10 withheld 4 4 cooldown 4 4",
        "released 4 4 still pending 1 1 withheld when due 1 1 expired 1 1",
        "hour by tier prior 100% 100%",
        "a lapsing 0 1,200 1,300 1,300",
        "Hour of day in Europe/Berlin",
        "66,000 clicks and purchases",
    ):
        assert words in text


@pytest.mark.parametrize("terminal", [{}, {"force_terminal": True, "color_system": "256", "no_color": True}])
def test_without_colours_a_letter_draws_each_segment(terminal: dict[str, Any]) -> None:
    plots = [line for line in printed(a_report(), **terminal).splitlines() if "│" in line]
    assert any("aaa" in line for line in plots)


def test_the_hour_that_all_sends_take_stands_out() -> None:
    lines = printed(a_report()).splitlines()
    labels = next(line for line in lines if line.split()[:3] == ["00", "01", "02"])
    top = next(line for line in lines if "●" in line)
    assert abs(top.index("●") - labels.index("12")) <= 3


def test_where_retention_has_deleted_a_beginning_a_note_says_so() -> None:
    text = printed(replace(a_report(), begins_late=["audit.records"]))
    assert "note: retention has deleted the beginning of audit.records" in text


def test_an_empty_journal_is_told_in_one_line() -> None:
    nothing = replace(a_report(), history=Rate(0, 0, 0.0, None))
    assert printed(nothing) == "The journal is empty: nothing has been consumed yet.\n"


def test_many_campaigns_are_printed_in_several_tables() -> None:
    campaigns = [replace(a_report().campaigns[0], name=f"campaign_{number}") for number in range(6)]
    text = printed(replace(a_report(), campaigns=campaigns))
    assert all(f"campaign_{number}" in text for number in range(6))
    assert max(map(len, text.splitlines())) <= 100
    assert text.split().count("all") == 2  # one sum of topics, one of campaigns


def test_steps_are_labelled_with_the_day_they_cover_or_the_hour_they_end() -> None:
    assert printing.when(a_report().segments, 0) == "2017-03-01"
    assert printing.when(Segments(HOUR, [NOON], []), 0) == "03-01 12:00"


def test_machines_get_times_in_iso_8601() -> None:
    at = int(datetime(2017, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
    form = printing.machine_form(replace(a_report(), examples=[Example("x", "r1", "d", "win_back", at)]))
    assert form["begin"] == form["examples"][0]["at"] == "2017-03-01T12:00:00.000Z"
    assert form["segments"]["times"][0] == "2017-03-02T00:00:00.000Z"
    assert form["campaigns"][0]["withheld"] == {"cooldown": 4}


def test_the_sum_of_campaigns_adds_numbers_and_reasons_and_leaves_them_as_they_are() -> None:
    one = Campaign("a", decided=2, scheduled=1, withheld={"cooldown": 1}, tiers={"prior": 1})
    two = Campaign("b", decided=3, scheduled=1, withheld={"cooldown": 1, "no_consent": 1})
    total = printing.total_of([one, two])
    assert (total.decided, total.scheduled) == (5, 2)
    assert total.withheld == {"cooldown": 2, "no_consent": 1}
    assert one.withheld == {"cooldown": 1}
