"""Control: what is written is what the workers' reader makes of it, and how operators say and see it."""

import getpass
from dataclasses import replace

import pytest
import typer

from schemas import codec, topics
from schemas.policy import Applied, Segment
from streams import control
from streams.cli import control as cli
from streams.control import Change, ModelChange, ModelIntercept, Pause
from streams.engine.control import Clock, Control, Intercept

AT = 1_486_141_920_000  # 2017-02-03 17:12 UTC
SEGMENTS = (
    Segment(number=0, name="viewers", where="views_24h >= 3", doc=""),
    Segment(number=9, name="buyers", where="purchases_7d >= 1", doc="Bought."),
)
SCALED = Clock("scaled", AT, 1_700_000_000_000, 600.0)


def _described(what: Pause | Clock | tuple[Segment, ...] | ModelChange | ModelIntercept) -> str:
    return cli.describe_change(Change(Control(), what, AT, "me", "a test"))


def test_segments_are_in_force_since_ever_and_later_ones_since_their_version() -> None:
    state, redefined = Control(), SEGMENTS[:1]
    for offset, segments in enumerate([SEGMENTS, SEGMENTS, redefined, redefined, ()]):
        record = control.segments_record(segments, "me", "a test", AT)
        change = control.change_of(state, offset, record)
        state = change.state

    assert change.what == ()
    assert state == Control(5, segments=(Applied(0, SEGMENTS), Applied(3, redefined), Applied(5, ())))


def test_of_each_model_the_newest_intercept_counts() -> None:
    state, told = Control(), []
    for offset, (model, log_odds) in enumerate([("a", 0.25), ("b", -1.0), ("a", -0.5)]):
        record = control.intercept_record(ModelIntercept(model, log_odds), "me", "a test", AT)
        change = control.change_of(state, offset, record)
        state = change.state
        told.append(_described(change.what))

    assert state == Control(3, intercepts=(Intercept("b", 2, -1.0), Intercept("a", 3, -0.5)))
    assert [state.intercept_of(model) for model in "abc"] == [-0.5, -1.0, 0.0]
    assert told == ["model a: log-odds +0.25", "model b: log-odds -1.00", "model a: log-odds -0.50"]


@pytest.mark.parametrize("paused", [True, False])
def test_a_pause_is_read_as_it_was_written(paused: bool) -> None:
    before = Control(3, not paused, SCALED)

    change = control.change_of(before, 7, control.pause_record(Pause(paused), "me", "a test", AT))

    assert change.state == Control(8, paused, SCALED)
    assert (change.what, change.at, change.who, change.why) == (Pause(paused), AT, "me", "a test")


def test_pauses_of_a_campaign_a_lane_and_everything_are_lifted_each_by_itself() -> None:
    state = Control()
    pauses = [Pause(True), Pause(True, campaign="win_back"), Pause(True, lane="gmail"), Pause(False)]
    for offset, pause in enumerate(pauses):
        state = control.change_of(state, offset, control.pause_record(pause, "me", "a test", AT)).state

    assert not state.paused
    assert state.holds("win_back", "yahoo")
    assert state.holds("replenishment", "gmail")
    assert not state.holds("replenishment", "yahoo")
    lifted = control.change_of(state, 4, control.pause_record(Pause(False, lane="gmail"), "me", "why", AT))
    assert not lifted.state.holds("replenishment", "gmail")


def test_a_pause_written_before_there_were_scopes_is_of_everything() -> None:
    old = codec.header(11) + control.pause_record(Pause(True), "me", "a test", AT)[5:-2]

    assert control.change_of(Control(), 0, old).state == Control(1, True)


@pytest.mark.parametrize("clock", [Clock(), SCALED, Clock("plan", plan_id="year")])
def test_a_clock_is_read_as_it_was_written(clock: Clock) -> None:
    change = control.change_of(Control(3, True), 7, control.clock_record(clock, "me", "a test", AT))

    assert change.state == Control(8, True, clock)
    assert change.what == clock


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
    assert _described(Pause(True)) == "paused: everything"
    assert _described(Pause(False, lane="gmail")) == "resumed: lane gmail"
    assert _described(Pause(True, "win_back")) == "paused: campaign win_back"
    assert _described(Clock()) == "clock real: 2017-02-03 17:12 UTC"
    assert _described(SEGMENTS[:1]) == "segments in force: viewers"
    assert _described(()) == "segments in force: none"


def test_a_user_without_a_name_is_still_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)

    assert cli.who().startswith("uid ")


@pytest.mark.parametrize(
    ("campaign", "lane", "says"),
    [("win_back", "gmail", "not both"), ("nosuch", None, "win_back"), (None, "nosuch", "gmail")],
)
def test_a_pause_of_what_the_policy_does_not_know_is_refused_with_what_it_knows(
    campaign: str | None, lane: str | None, says: str
) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        cli._pause(True, campaign, lane)


def test_what_the_policy_no_longer_has_can_still_be_resumed() -> None:
    assert cli._pause(False, None, "gone") == Pause(False, lane="gone")
    assert cli._pause(True, None, "other") == Pause(True, lane="other")
