"""Full hours: what is told to have room has it, and more demand never makes room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.room import AHEAD, Supply, full_hours
from schemas.profile import DAY_MS, HOUR_MS, SECOND_MS

START = 20_000 * DAY_MS
FIRST = START // HOUR_MS
HOURS = range(FIRST, FIRST + AHEAD)

moments = st.integers(START, START + DAY_MS - 1)
counts = st.integers(0, 60)
plans = st.dictionaries(st.integers(FIRST, FIRST + AHEAD + 23), counts)
supplies = st.builds(
    Supply,
    rate=st.sampled_from([1 / 3600, 10 / 3600, 0.01]),  # 1, 10 and 36 an hour
    waiting=st.integers(0, 100),
    opens_at=st.integers(START - HOUR_MS, START + DAY_MS),
)
warming = st.tuples(st.integers(1, 300), st.integers(0, 300)).map(lambda t: {"a_day": t[0], "left": t[1]})


def left_over(planned: dict[int, int], supply: Supply, now: int) -> dict[int, int]:
    """How many messages wait at the end of each hour, one message after the other."""
    waits, credit, gone, waiting = {}, 0.0, 0.0, supply.waiting
    first = now // HOUR_MS
    for hour in range(first, first + AHEAD):
        waiting += planned.get(hour, 0)
        if hour * HOUR_MS % DAY_MS == 0 and hour > first:
            gone = 0
        may = supply.left if hour // 24 == first // 24 else supply.a_day
        open_ms = (hour + 1) * HOUR_MS - max(now, supply.opens_at, hour * HOUR_MS)
        credit = supply.rate * max(0, open_ms) / SECOND_MS
        while waiting and credit >= 1 and gone + 1 <= may:
            waiting, credit, gone = waiting - 1, credit - 1, gone + 1
        waits[hour] = waiting
    return waits


@given(plans, supplies, moments)
def test_one_message_more_goes_in_an_hour_that_has_room(
    planned: dict[int, int], supply: Supply, now: int
) -> None:
    free = set(range(now // HOUR_MS, now // HOUR_MS + AHEAD)) - full_hours(planned, supply, now)
    before = left_over(planned, supply, now)
    for hour in free:
        after = left_over(planned | {hour: planned.get(hour, 0) + 1}, supply, now)
        assert after[hour] <= before[hour] == 0


@given(plans, supplies, warming, moments, st.integers(0, AHEAD - 1), st.integers(1, 50))
def test_more_demand_makes_no_room(
    planned: dict[int, int], supply: Supply, warm: dict[str, int], now: int, ahead: int, more: int
) -> None:
    supply = replace(supply, **warm)
    full = full_hours(planned, supply, now)
    hour = now // HOUR_MS + ahead
    assert full <= full_hours(planned | {hour: planned.get(hour, 0) + more}, supply, now)
    assert full <= full_hours(planned, replace(supply, waiting=supply.waiting + more), now)
    assert full <= full_hours(planned, supply, now, set(HOURS))


@given(plans, supplies, warming, moments)
def test_asked_again_the_answer_stays(
    planned: dict[int, int], supply: Supply, warm: dict[str, int], now: int
) -> None:
    supply = replace(supply, **warm)
    full = full_hours(planned, supply, now)
    assert full_hours(planned, supply, now, full) == full


def test_a_backlog_fills_the_hours_into_which_it_drains() -> None:
    assert full_hours({}, Supply(rate=1.0, waiting=9_000), START) == {FIRST, FIRST + 1}


def test_an_hour_takes_what_the_rest_of_it_leaves_time_for() -> None:
    halfway = START + HOUR_MS // 2
    assert full_hours({FIRST: 1_799}, Supply(1.0, 0), halfway) == frozenset()
    assert full_hours({FIRST: 1_800}, Supply(1.0, 0), halfway) == {FIRST}
    assert full_hours({}, Supply(1.0, 0, opens_at=START + 2 * HOUR_MS), START) == {FIRST, FIRST + 1}


def test_a_day_on_which_only_so_many_go_is_full_as_a_whole() -> None:
    warm = Supply(1.0, 0, a_day=100, left=10)
    assert full_hours({FIRST + 20: 9}, warm, START) == frozenset()
    assert full_hours({FIRST + 20: 10}, warm, START) == set(range(FIRST, FIRST + 24))


@pytest.mark.parametrize(("planned", "full"), [(3_600, True), (3_300, True), (3_200, False)])
def test_a_full_hour_has_room_again_once_a_tenth_of_it_is_free(planned: int, full: bool) -> None:
    was = frozenset({FIRST + 3})
    assert (FIRST + 3 in full_hours({FIRST + 3: planned}, Supply(1.0, 0), START, was)) == full
