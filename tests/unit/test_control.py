"""Control: what is written is what the workers' reader makes of it, and how operators say and see it."""

import getpass
from dataclasses import replace
from typing import cast

import pytest
import typer

from schemas import codec, topics
from schemas.policy import Applied, Segment
from schemas.scopes import SCOPES, Marks, Scope, Scoped, Scopes
from streams import control
from streams.cli import control as cli
from streams.control import Change, FullHours, ModelChange, ModelIntercept, Pause, Role, What
from streams.engine.control import Clock, Control, Intercept
from streams.engine.kafka import Client
from tests.support.cuts import PACKAGED

AT = 1_486_141_920_000  # 2017-02-03 17:12 UTC
SEGMENTS = (
    Segment(number=0, name="viewers", where="views_24h >= 3", doc=""),
    Segment(number=9, name="buyers", where="purchases_7d >= 1", doc="Bought."),
)
SCALED = Clock("scaled", AT, 1_700_000_000_000, 600.0)


def _described(what: What) -> str:
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


def _after(*pauses: Pause) -> Control:
    state = Control()
    for offset, pause in enumerate(pauses):
        change = control.change_of(state, offset, control.pause_record(pause, "me", "a test", AT))
        assert change.what == pause
        state = change.state
    return state


CAMPAIGNS = PACKAGED.campaigns
MARKS = Marks("news/gmail#3", "win_back", "win_back", "st-0123456789ab")


@pytest.mark.parametrize(
    ("of", "held"),
    [
        (None, True),
        (("campaign", "win_back"), True),
        (("campaign", "replenishment"), False),
        (("lane", "news/gmail#3"), True),
        (("lane", "news/gmail"), True),
        (("lane", "gmail"), False),
        (("provider", "gmail"), True),
        (("provider", "yahoo"), False),
        (("segment", "lapsing"), True),
        (("segment", "big_spenders"), False),
        (("template", "win_back"), True),
        (("template", "replenishment"), False),
        (("model", "st-0123456789ab"), True),
        (("model", "built-in"), False),
    ],
)
def test_a_pause_holds_what_is_in_its_scope_until_it_is_resumed(of: Scoped | None, held: bool) -> None:
    scopes = Scopes.of(CAMPAIGNS)(MARKS)

    assert _after(Pause(True, of)).holds(scopes) == held
    assert not _after(Pause(True, of), Pause(False, of)).holds(scopes)


def test_each_pause_is_lifted_by_itself() -> None:
    lane: Scoped = ("lane", "gmail")
    state = _after(Pause(True), Pause(True, ("campaign", "win_back")), Pause(True, lane), Pause(False))

    assert not state.paused
    assert state.held == {("campaign", "win_back"), lane}
    assert control.change_of(
        state, 4, control.pause_record(Pause(False, lane), "me", "why", AT)
    ).state.held == {("campaign", "win_back")}


def test_what_no_model_chose_is_in_no_models_scope() -> None:
    assert {scope for scope, _ in Scopes.of(CAMPAIGNS)(MARKS._replace(model=""))} == {*SCOPES} - {"model"}


@pytest.mark.parametrize(
    "pause", [Pause(True), Pause(True, ("campaign", "win_back")), Pause(False, ("lane", "a"))]
)
@pytest.mark.parametrize("number", codec.ids_of(topics.CONTROL.name))
def test_a_pause_written_by_an_older_version_is_read(number: int, pause: Pause) -> None:
    change = {"paused": pause.paused} | dict([pause.of] if pause.of else [])
    record = {"changed_at": AT, "changed_by": "me", "why": "a test", "change": ("opportune.Pause", change)}

    read = control.change_of(Control(), 0, codec.header(number) + codec.body(number, record))

    first = number == codec.ids_of(topics.CONTROL.name)[0]  # it knew no scopes
    assert read.what == (Pause(pause.paused) if first else pause)


def test_the_latest_full_hours_are_those_that_count() -> None:
    state = Control()
    for offset, full in enumerate([{"gmail": {5, 6}, "yahoo": {7}}, {"gmail": {9}, "yahoo": set()}]):
        told = FullHours({provider: frozenset(hours) for provider, hours in full.items()})
        change = control.change_of(state, offset, control.full_record(told, "me", "a test", AT))
        state = change.state

    assert state.full == {"gmail": {9}}
    assert (
        _described(change.what)
        == "full hours: gmail 1 hour from 1970-01-01 09:00 UTC to 1970-01-01 10:00 UTC"
    )


def test_every_model_that_ever_had_a_role_keeps_its_number() -> None:
    state = Control()
    for offset, (version, role) in enumerate(
        [
            ("a", "canary"),
            ("b", "shadow"),
            ("a", "none"),
            ("built-in", "champion"),
            ("c", "champion"),
            ("a", "canary"),
        ]
    ):
        change = ModelChange(version, cast(Role, role))
        state = control.change_of(state, offset, control.model_record(change, "me", "a test", AT)).state

    assert state.models == ("built-in", "a", "b", "c")


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
    assert _described(Pause(False, ("lane", "gmail"))) == "resumed: lane gmail"
    assert _described(Pause(True, ("campaign", "win_back"))) == "paused: campaign win_back"
    assert _described(Clock()) == "clock real: 2017-02-03 17:12 UTC"
    assert _described(SEGMENTS[:1]) == "segments in force: viewers"
    assert _described(()) == "segments in force: none"


def test_a_user_without_a_name_is_still_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)

    assert cli.who().startswith("uid ")


@pytest.mark.parametrize(
    ("scope", "says"),
    [
        ("campaign", "win_back"),
        ("lane", "gmail.*other"),
        ("provider", "gmail.*other"),
        ("segment", "big_spenders.*lapsing"),
        ("template", "win_back"),
    ],
)
def test_a_pause_of_what_the_policy_does_not_know_is_refused_with_what_it_knows(
    scope: Scope, says: str
) -> None:
    nowhere = Client("127.0.0.1:1", {})  # the files tell
    with pytest.raises(typer.BadParameter, match=f"no {scope} 'nosuch'; there are .*{says}"):
        cli._refuse_unknown((scope, "nosuch"), nowhere)
    cli._refuse_unknown(("lane", "other"), nowhere)
    with pytest.raises(typer.BadParameter, match="no lane 'gmail#3'"):
        cli._refuse_unknown(("lane", "gmail#3"), nowhere)


def test_a_pause_names_one_scope() -> None:
    options: dict[str, str | None] = dict.fromkeys(SCOPES)
    assert cli._named(options) is None
    assert cli._named(options | {"segment": "lapsing"}) == ("segment", "lapsing")
    assert cli._named(options | {"lane": "default/gmail#0"}) == ("lane", "gmail")
    with pytest.raises(typer.BadParameter, match="name one"):
        cli._named(options | {"segment": "lapsing", "lane": "gmail"})
