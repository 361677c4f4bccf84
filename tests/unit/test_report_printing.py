"""How `opportune report` prints its figures."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from schemas import topics
from schemas.settings import Settings
from streams.cli import report as printing
from streams.cli import report_decisions as decide
from streams.cli import report_delivery as deliver
from streams.figures.cuts import Fates, Rate
from streams.figures.delivery import LaneFigures, Outcomes, Pacing
from streams.figures.latency import Latencies, Latency
from streams.figures.times import HoursOfDay
from streams.figures.trail import Campaign, Example, Membership, Segments
from streams.report import Report

HOUR = 3_600_000
DAY = 24 * HOUR
NOON = 1_488_369_600_000  # 2017-03-01 12:00 UTC, a Wednesday
CLICKS = topics.CLICKS.name


def a_quiet_lane() -> LaneFigures:
    return LaneFigures("yahoo", 100, 3, 2, 0, None, [1, 2, 0])


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
        outcomes=[Outcomes("win_back", history=6, commands=9, delivered=4, waiting=5, deferred=2)],
        pacing=Pacing(
            NOON + 3 * HOUR,
            HOUR,
            [NOON, NOON + HOUR, NOON + 2 * HOUR],
            [LaneFigures("gmail", 60, 90, 45, 5, 438_000, [40, 0, 50]), a_quiet_lane()],
        ),
        latencies=Latencies(
            [Latency("source event → decision", 306, 10, 22, 28, 38), Latency("command → outcome", 0)],
            [Latency("released → delivered", 4, 12_000, 399_600, 435_000, 11_100_000)],
        ),
        examples=[],
        begins_late=[],
    )


def printed(found: Report, width: int = 100, **terminal: Any) -> str:
    console = Console(file=io.StringIO(), width=width, **terminal)
    printing.tell(console, found)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal_or_a_hundred_and_none_has_colours_where_nobody_looks(
    width: int,
) -> None:
    text = printed(a_report(), width)
    assert max(map(len, text.splitlines())) <= min(width, 100)
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
        "of history, never sent 6 6 to send 9 9 delivered 4 4",
        "still waiting 5 5 in flight – – attempts deferred 2 2",
        "gmail 90 sent, rate set 60/hr yahoo 3 sent, rate set 100/hr, far above",
        "gmail 60/hr 90 45 5 7 min 18 s yahoo 100/hr 3 2 0 –",
        "until now (2017-03-01 15:00 UTC)",
        "source event → decision 306 10 ms 22 ms 28 ms 38 ms command → outcome 0 – – – –",
        "released → delivered 4 12.0 s 6 min 39 s 7 min 15 s 3 h 5 min",
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
    assert text.split().count("all") == 3  # of topics, of decisions, of deliveries


def test_steps_are_labelled_with_the_day_they_cover_or_the_hour_they_end() -> None:
    assert decide.when(a_report().segments, 0) == "2017-03-01"
    assert decide.when(Segments(HOUR, [NOON], []), 0) == "03-01 12:00"


def test_machines_get_times_in_iso_8601() -> None:
    at = int(datetime(2017, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
    form = printing.machine_form(replace(a_report(), examples=[Example("x", "r1", "d", "win_back", at)]))
    assert form["begin"] == form["examples"][0]["at"] == "2017-03-01T12:00:00.000Z"
    assert form["segments"]["times"][0] == "2017-03-02T00:00:00.000Z"
    assert form["campaigns"][0]["withheld"] == {"cooldown": 4}
    assert (
        form["pacing"]["now"] == form["pacing"]["times"][0].replace("12", "15") == "2017-03-01T15:00:00.000Z"
    )


def test_the_sum_of_campaigns_adds_numbers_and_reasons_and_leaves_them_as_they_are() -> None:
    one = Campaign("a", decided=2, scheduled=1, withheld={"cooldown": 1}, tiers={"prior": 1})
    two = Campaign("b", decided=3, scheduled=1, withheld={"cooldown": 1, "no_consent": 1})
    total = decide.total_of([one, two])
    assert (total.decided, total.scheduled) == (5, 2)
    assert total.withheld == {"cooldown": 2, "no_consent": 1}
    assert one.withheld == {"cooldown": 1}


def plotted(lane: LaneFigures, width: int = 60) -> list[str]:
    report = replace(a_report(), pacing=replace(a_report().pacing, lanes=[lane]))
    lines = printed(report, width).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(f"{lane.lane}  "))
    return lines[start : start + 9]


def test_a_lane_is_drawn_with_its_rate_as_a_line_where_both_are_seen() -> None:
    found = plotted(a_report().pacing.lanes[0])
    assert any("──────────" in line for line in found if "│" in line)
    assert any("█" in line for line in found)


def test_a_rate_far_above_what_was_sent_is_told_and_not_drawn() -> None:
    found = plotted(a_quiet_lane())
    assert found[0].rstrip().endswith("rate set 100/hr, far above")
    assert not any("──────────" in line for line in found if "│" in line)
    assert any("█" in line for line in found)


def test_an_hour_without_sends_stays_empty_beside_two_full_ones() -> None:
    rows = [line[3:-1] for line in plotted(a_report().pacing.lanes[0]) if "█" in line]
    thirds = [[row[third * 18 + 6 : third * 18 + 12] for row in rows] for third in range(3)]
    assert ["█" in "".join(third) for third in thirds] == [True, False, True]


def test_a_narrow_terminal_draws_the_lanes_one_below_the_other() -> None:
    def abreast(width: int) -> bool:
        return any(
            "gmail  90" in line and "yahoo  3" in line for line in printed(a_report(), width).splitlines()
        )

    assert abreast(100)
    assert not abreast(80)


def test_figures_are_not_broken_on_a_narrow_terminal() -> None:
    many = [Outcomes(f"campaign_{number}", history=1_234_567) for number in range(4)]
    text = printed(replace(a_report(), outcomes=many), 60)
    assert text.count("1,234,567") == 4
    assert "4,938,268" in text


def test_without_deliveries_that_part_is_left_out() -> None:
    nothing = replace(a_report(), outcomes=[], pacing=Pacing(None, HOUR, [], []), latencies=Latencies([], []))
    text = printed(nothing)
    assert "Hour of day" in text
    assert not any(words in text for words in ("Delivery", "Lanes", "Wall clock"))


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (None, "–"), (0, "0 ms"), (999, "999 ms"), (1_000, "1.0 s"), (59_949, "59.9 s"), (60_000, "1 min"),
        (438_000, "7 min 18 s"), (11_100_000, "3 h 5 min"), (DAY, "1 d"), (40 * DAY + 2 * HOUR, "40 d 2 h"),
    ],
)  # fmt: skip
def test_durations_are_told_by_their_two_largest_units(ms: int | None, told: str) -> None:
    assert deliver.span(ms) == told


def foot(folder: Path, **more: Any) -> str:
    console = Console(file=io.StringIO(), width=100)
    deliver.foot(console, Settings(state_dir=folder, **more))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_foot_counts_the_mail_that_the_sandbox_has_kept(tmp_path: Path) -> None:
    shelf = tmp_path / "sandbox" / "mail" / "0a"
    shelf.mkdir(parents=True)
    for name in ("one.1.eml", "two.1.eml", "two.part"):
        (shelf / name).touch()
    assert "2 .eml files below" in foot(tmp_path)


def test_without_a_sandbox_the_foot_says_nothing_of_mail(tmp_path: Path) -> None:
    assert ".eml" not in foot(tmp_path)


def test_the_foot_tells_where_clickhouse_answers_or_how_to_start_it(tmp_path: Path) -> None:
    assert "down; `opportune up` starts it" in foot(tmp_path)
    assert "native ch.example:9000" in foot(tmp_path, clickhouse="ch.example:9000")
