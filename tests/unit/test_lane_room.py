"""Which hours are told to be full: by all lanes of a provider together, and only when it has changed."""

from __future__ import annotations

import time
from dataclasses import replace
from math import inf

import pytest

from models.room import Supply
from schemas.lanes import Lane, Lanes, WarmUp
from schemas.profile import DAY_MS, HOUR_MS, MINUTE_MS
from schemas.units import Rate
from sinks.clickhouse.client import Address, ClickHouseUnavailable
from streams import lane_room
from streams.cli import lanes_publish as cli
from streams.control import FullHours
from streams.lane_room import TrailBehind
from streams.lane_standings import LaneStanding
from streams.warehouse import Warehouse

NOW = 20_000 * DAY_MS
FIRST = NOW // HOUR_MS
LANE = Lane(rate=Rate.parse("360/hr"), reserve=0.5)
NEW = Lane(rate=Rate.parse("360/hr"), reserve=0.5, warm_up=WarmUp(first_day=50))
PARTS = LANE.model_copy(update={"parts": 2})
LANES = Lanes(default=LANE, lane={"yahoo": NEW, "news/gmail": PARTS}, identities={"news": 1})
GOING = LaneStanding("gmail", NOW, NOW, LANE, 0.1, 2, 30, 200, 3, None, False, 1, 210, None, False)


def test_what_goes_to_a_provider_is_what_goes_on_all_its_lanes() -> None:
    stopped = replace(GOING, lane="news/gmail#1", waiting=12, rate=0.01, stopped_until=NOW + 5)
    others = replace(GOING, lane="yahoo")

    found = lane_room.supply("gmail", [GOING, stopped, others], {"gmail": 0.08}, LANES)

    assert found.rate == pytest.approx(0.5 * (0.08 + 0.01 + 0.05)), "the other part goes as is set"
    assert (found.waiting, found.opens_at) == (42, 0)
    alone = lane_room.supply("other", [replace(GOING, lane="other", stopped_until=NOW + 5)], {}, LANES)
    assert alone.opens_at == NOW + 5


def test_a_warm_up_leaves_so_many_a_day_unless_another_lane_has_none() -> None:
    warm = replace(GOING, allowed=100.0, begun=70)

    both = lane_room.supply("gmail", [warm, replace(warm, lane="shop/gmail", begun=120)], {}, LANES)
    assert (both.a_day, both.left) == (200.0, 30.0)
    either = lane_room.supply("gmail", [warm, replace(GOING, lane="shop/gmail")], {}, LANES)
    assert (either.a_day, either.left) == (inf, inf)


def test_where_nothing_went_yet_the_settings_tell() -> None:
    assert lane_room.supply("other", [GOING], {}, LANES) == Supply(0.05, 0)
    assert lane_room.supply("yahoo", [], {}, LANES) == Supply(0.05, 0, 0, 25.0, 25.0)


def test_only_a_change_of_hours_to_come_is_told() -> None:
    plan = {"gmail": {FIRST + 3: 180}, "yahoo": {FIRST + 1: 1}}
    full = {"gmail": frozenset({FIRST + 3})}

    def told(in_force: dict[str, frozenset[int]], now: int = NOW) -> FullHours | None:
        return lane_room.change(plan, [], {}, LANES, now, in_force)

    assert told({}) == FullHours(full)
    assert told(full) is None
    assert told({"gmail": frozenset({FIRST - 1, FIRST + 3}), "other": frozenset({FIRST - 1})}) is None
    assert told({"gmail": frozenset({FIRST + 3, FIRST + 4})}) == FullHours(full)
    assert told(full, NOW + 4 * HOUR_MS) is None, "it has passed"
    assert told({"other": frozenset({FIRST + 9})}) == FullHours(full)


def test_servers_that_are_away_are_told_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[int] = []

    class Enough(Exception):
        pass

    def look(*_: object) -> None:
        looks.append(len(looks))
        if len(looks) == 3:
            raise Enough
        raise ClickHouseUnavailable("127.0.0.1:1 does not answer")

    monkeypatch.setattr(cli, "_look", look)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("OPPORTUNE_CLICKHOUSE", "127.0.0.1:1")
    monkeypatch.setenv("OPPORTUNE_BROKERS", "127.0.0.1:1")
    with pytest.raises(Enough):
        cli.publish("5 min")
    assert capsys.readouterr().err.count("not looked: 127.0.0.1:1 does not answer") == 2
    looks.clear()
    with pytest.raises(ClickHouseUnavailable):
        cli.publish(None)


def test_a_trail_that_is_far_behind_says_nothing_of_what_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    class Landed:
        def __init__(self, *_: object) -> None: ...

        def execute(self, statement: str) -> list[tuple[int]]:
            return [(NOW - 10 * MINUTE_MS,)]

        def close(self) -> None: ...

    monkeypatch.setattr(lane_room, "ClickHouse", Landed)
    house = Warehouse(Address("nowhere", 1), "opportune")
    lane_room.check_fresh(house, [GOING])
    lane_room.check_fresh(house, [])
    with pytest.raises(TrailBehind, match="ClickHouse is 11 min behind Kafka"):
        lane_room.check_fresh(house, [replace(GOING, cut_at=NOW + MINUTE_MS)])
