"""Control: what is written is what the workers' reader makes of it, and how operators say and see it."""

import getpass
from dataclasses import replace

import pytest
import typer

from schemas import codec, topics
from streams import control
from streams.cli import control as cli
from streams.engine.control import Clock, Control

AT = 1_486_141_920_000  # 2017-02-03 17:12 UTC
SCALED = Clock("scaled", AT, 1_700_000_000_000, 600.0)


@pytest.mark.parametrize("paused", [True, False])
def test_a_pause_is_read_as_it_was_written(paused: bool) -> None:
    before = Control(3, not paused, SCALED)

    change = control.change_of(before, 7, control.pause_record(paused, "me", "a test", AT))

    assert change.state == Control(8, paused, SCALED)
    assert (change.pauses, change.at, change.who, change.why) == (True, AT, "me", "a test")


@pytest.mark.parametrize("clock", [Clock(), SCALED, Clock("plan", plan_id="year")])
def test_a_clock_is_read_as_it_was_written(clock: Clock) -> None:
    change = control.change_of(Control(3, True), 7, control.clock_record(clock, "me", "a test", AT))

    assert change.state == Control(8, True, clock)
    assert change.pauses is False


def test_a_clock_that_is_not_scaled_writes_no_origin() -> None:
    stray = replace(SCALED, mode="real")

    value = control.clock_record(stray, "me", "a test", AT)

    change = codec.decode(topics.CONTROL.name, value)["change"]
    assert (change["origin"], change["wall"], change["speed"]) == (None, None, None)


@pytest.mark.parametrize(("text", "speed"), [("600x", 600.0), ("600", 600.0), ("0.5X", 0.5), (" 60x ", 60.0)])
def test_a_speed_is_read_as_people_write_it(text: str, speed: float) -> None:
    assert cli.parse_speed(text) == speed


@pytest.mark.parametrize("text", ["fast", "0x", "-1x", "x", "nan", "inf", "1e999"])
def test_what_is_no_speed_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="600x"):
        cli.parse_speed(text)


@pytest.mark.parametrize(
    "text", ["2017-02-03T17:12", "2017-02-03T17:12Z", "2017-02-03T12:12-05:00", "2017-02-03 17:12:00"]
)
def test_an_origin_is_utc_unless_it_says_otherwise(text: str) -> None:
    assert cli.parse_origin(text) == AT


def test_what_is_no_time_is_refused_with_an_example() -> None:
    with pytest.raises(typer.BadParameter, match="2017-02-03T17:00"):
        cli.parse_origin("last friday")


def test_a_clock_says_how_it_runs_and_what_it_shows() -> None:
    a_second_later = SCALED.wall + 1000

    assert cli.described(SCALED, a_second_later) == "scaled: 2017-02-03 17:22 UTC at 600x"
    assert cli.described(Clock(), AT) == "real: 2017-02-03 17:12 UTC"
    assert "plan year" in cli.described(Clock("plan", plan_id="year"), AT)


def test_a_change_is_told_in_a_few_words() -> None:
    assert cli.describe_change(Control(1, True), True, AT) == "paused"
    assert cli.describe_change(Control(1, False), True, AT) == "resumed"
    assert cli.describe_change(Control(1, True), False, AT) == "clock real: 2017-02-03 17:12 UTC"


def test_a_user_without_a_name_is_still_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)

    assert cli.who().startswith("uid ")
