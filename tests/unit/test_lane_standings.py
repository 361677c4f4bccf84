"""How lanes are told: by what the journal says of them, and when all that waits will have gone."""

from dataclasses import replace

from schemas.lanes import Lane
from schemas.profile import DAY_MS, HOUR_MS
from schemas.units import Rate
from streams.cli import lanes as cli
from streams.lane_standings import LaneStanding

AT = 20_000 * DAY_MS
GOING = LaneStanding(
    "gmail", AT, AT, Lane(rate=Rate.parse("20/s")), 10.0, 2, 36_000, 200, 3, None, False, 1, 210, None, False
)


def test_a_lane_is_empty_once_all_that_waits_has_gone_at_its_pace() -> None:
    assert GOING.empty_at == AT + HOUR_MS
    assert replace(GOING, stopped_until=AT + HOUR_MS).empty_at == AT + 2 * HOUR_MS
    assert replace(GOING, waiting=0).empty_at is None
    assert replace(GOING, rate=0.0).empty_at is None
    assert replace(GOING, held=True).empty_at is None


def test_a_warming_lane_is_empty_only_after_as_many_days_as_it_takes() -> None:
    warming = replace(GOING, rate=1.0, allowed=50.0, begun=40, waiting=10)
    assert warming.empty_at == AT + 10_000
    assert replace(warming, waiting=70).empty_at == AT + 2 * DAY_MS + 10_000
    used_up = replace(warming, begun=50, waiting=20)
    assert used_up.opens_at == AT + DAY_MS
    assert used_up.empty_at == AT + DAY_MS + 20_000
    assert "day used up" in cli._state(used_up)


def test_a_state_says_whether_it_goes() -> None:
    assert cli._state(GOING) == "going"
    assert "paused" in cli._state(replace(GOING, held=True))
    assert cli._state(replace(GOING, probing=True)) == "trying, one at a time"
    assert "stopped until 2024-10-04 01:00 UTC" in cli._state(replace(GOING, stopped_until=AT + HOUR_MS))


def test_a_rate_of_any_size_is_printed_in_three_digits() -> None:
    assert [cli._rate(rate) for rate in (1234.5, 20.0, 0.5, 0.01, 0.0001)] == [
        "1.23e+03/s",
        "20/s",
        "30/min",
        "36/hr",
        "0.36/hr",
    ]


def test_a_warm_up_is_told_by_its_day_and_what_has_gone_of_it() -> None:
    assert cli._warm_up(GOING) == "–"
    assert cli._warm_up(replace(GOING, warm_day=3, allowed=98.0, begun=40)) == "day 3: 40 of 98"


def test_machines_get_times_and_rates_in_plain_form() -> None:
    told = cli._for_machines(replace(GOING, stopped_until=AT + HOUR_MS))
    assert told["rate_set"] == 20.0
    assert (told["lane"], told["rate"], told["waiting"]) == ("gmail", 10.0, 36_000)
    assert str(told["stopped_until"]).startswith("2024-10-04T01:00")
    assert told["opens_at"] == told["stopped_until"]
    assert str(told["cut_at"]).startswith("2024-10-04T00:00")
    assert told["held"] is False
