"""A lane's pace in virtual time: the rate holds, deferrals slow it down, stops end, and a warm-up is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.pacing import Heard, Pace, heard, least_share
from schemas.lanes import Lane, WarmUp
from schemas.profile import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from schemas.replies import ReplyRule
from schemas.units import Milliseconds

START = 20_000 * DAY_MS
TAKEN, REFUSED = Heard("accepted"), Heard("deferred")


def lane(rate: str, **settings: object) -> Lane:
    return Lane.model_validate({"rate": rate} | settings)


def run(
    pace: Pace,
    until: float,
    answer: Callable[[float], Heard] = lambda _: TAKEN,
    begin: float = START,
    urgent: bool = False,
) -> np.ndarray:
    """Let messages go as soon as they may, with a backlog that never ends; returns when each began."""
    went: list[float] = []
    now = begin
    while True:
        now = max(now, pace.opens_at(now, urgent))
        if now >= until:
            return np.array(went)
        pace.begins(now, urgent)
        went.append(now)
        pace.hears(now, answer(now))


def most_in(went: np.ndarray, span: float) -> int:
    """The most in any stretch of this length."""
    return int((np.searchsorted(went, went + span) - np.arange(len(went))).max())


@pytest.mark.parametrize("rate", [20, 100])
def test_the_rate_holds_in_any_ten_seconds_and_is_used(rate: int) -> None:
    went = run(Pace(lane(f"{rate}/s"), START), START + 10 * MINUTE_MS)

    assert most_in(went, 10 * SECOND_MS) <= 1.02 * rate * 10 + 0.01 * rate * 10
    for minute in range(10):
        of_it = np.searchsorted(went, START + np.array([minute, minute + 1]) * MINUTE_MS)
        assert of_it[1] - of_it[0] >= 0.98 * rate * 60


def test_restarts_never_open_the_tap() -> None:
    setting, draw = lane("20/s"), np.random.default_rng(1)
    went, begin, standing = [], float(START), None
    for _ in range(50):
        pace = Pace(setting, begin, standing)
        end = begin + float(draw.uniform(0, 4000))
        went.append(run(pace, end, begin=begin))
        standing, begin = pace.standing, end

    assert most_in(np.concatenate(went), 10 * SECOND_MS) <= 20 * 10 + 2


@pytest.mark.parametrize("takes", [5, 20, 60])
def test_a_provider_that_takes_less_is_sent_about_what_it_takes(takes: int) -> None:
    accepted: list[float] = []
    level = float(START)

    def answer(now: float) -> Heard:
        nonlocal level
        level = max(level, now - 1000)  # one second's worth may come at once
        if level > now:
            return REFUSED
        level += 1000 / takes
        accepted.append(now)
        return TAKEN

    went = run(Pace(lane("100/s"), START), START + HOUR_MS, answer)
    settled = START + HOUR_MS // 2
    sent, taken = (went > settled).sum(), (np.array(accepted) > settled).sum()

    assert taken >= 0.5 * takes * 1800, "most of what it takes"
    assert sent - taken <= 0.15 * sent, "and little more"


def test_rare_deferrals_slow_nothing_down() -> None:
    draw = np.random.default_rng(2)
    pace = Pace(lane("20/s"), START)
    went = run(pace, START + HOUR_MS, lambda _: REFUSED if draw.random() < 0.02 else TAKEN)

    assert pace.standing.factor > 0.8
    assert len(went) > 0.9 * 20 * 3600


def test_one_deferral_slows_no_lane_down_however_slow_it_is() -> None:
    pace, answers = Pace(lane("6/hr"), START), iter([REFUSED])
    run(pace, START + DAY_MS, lambda _: next(answers, TAKEN))

    assert pace.standing.factor == 1.0


def test_what_is_the_messages_own_fault_slows_nothing_down() -> None:
    pace = Pace(lane("20/s"), START)
    run(pace, START + 10 * MINUTE_MS, lambda _: Heard("message"))

    assert (pace.standing.factor, pace.standing.stops) == (1.0, 0)


def test_a_provider_that_takes_nothing_is_asked_less_and_less_and_is_back_within_half_an_hour() -> None:
    back = START + 3 * HOUR_MS
    pace = Pace(lane("100/s"), START)
    went = run(pace, back + HOUR_MS // 2, lambda now: TAKEN if now >= back else REFUSED)
    asked, after = went[went < back], went[went >= back]

    assert len(asked) < 60, "ten to notice, then one at a time"
    assert np.diff(asked).max() <= 30 * MINUTE_MS + SECOND_MS
    assert after[0] - back <= 30 * MINUTE_MS
    assert not pace.probing
    assert pace.standing.factor > pace._lane.slowest, "and it gets faster again"


def test_a_pause_that_a_provider_asks_for_is_given_whatever_the_answer_is_called() -> None:
    for kind in ("deferred", "slow", "suspend"):
        pace = Pace(lane("100/s"), START)
        pace.begins(START + 1000)
        pace.hears(START + 1000, Heard(kind, 7 * HOUR_MS))
        assert pace.opens_at(START + 2000) == START + 1000 + 7 * HOUR_MS
        assert pace.most_until(START + 2000, START + 7 * HOUR_MS) == 0


def test_answers_that_were_under_way_when_it_stopped_do_not_stop_it_for_longer() -> None:
    pace = Pace(lane("100/s"), START)
    for i in range(60):
        pace.begins(START + i)
    for i in range(60):
        pace.hears(START + 1000 + i, REFUSED)

    assert pace.standing.stops == 1
    assert pace.opens_at(START + 2000) == START + 1009 + MINUTE_MS
    assert pace.standing.factor == 0.5


def test_an_answer_that_was_under_way_when_it_stopped_does_not_end_the_stop() -> None:
    pace = Pace(lane("100/s"), START)
    pace.hears(START, Heard("suspend", MINUTE_MS))
    pace.hears(START + 1, TAKEN)

    assert pace.probing
    assert pace.opens_at(START + 2) == START + MINUTE_MS


def test_a_slow_lane_is_back_at_its_rate_within_a_day_of_an_outage() -> None:
    back = START + 10 * HOUR_MS
    pace = Pace(lane("6/hr"), START)
    run(pace, back, lambda _: REFUSED)
    assert pace.standing.factor < 0.2
    went = run(pace, back + DAY_MS, begin=back)

    assert pace.standing.factor == 1.0
    assert len(went) > 60


def test_slowing_down_gives_no_tokens() -> None:
    pace = Pace(lane("60/hr", burst=10), START)
    later = START + DAY_MS
    assert pace.most_until(later, later, urgent=True) == 10
    for _ in range(10):
        pace.begins(later, urgent=True)
    pace.hears(later, Heard("slow"))

    assert pace.most_until(later, later, urgent=True) == 0


def test_after_a_rest_no_more_go_at_once_than_the_burst() -> None:
    pace = Pace(lane("10/s"), START)

    assert pace.most_until(START + DAY_MS, START + DAY_MS, urgent=True) == 1
    assert pace.most_until(START + DAY_MS, START + DAY_MS + SECOND_MS, urgent=True) == 11


def test_a_clock_that_was_set_back_ends_a_stop_and_goes_on() -> None:
    ahead = START + 9_500 * DAY_MS
    pace = Pace(lane("20/s", reserve=0, warm_up=WarmUp(first_day=50)), ahead)
    run(pace, ahead + DAY_MS // 2, begin=ahead)
    pace.hears(ahead + DAY_MS // 2, Heard("suspend", HOUR_MS))

    assert pace.opens_at(START) < START + 2 * DAY_MS
    assert len(run(pace, START + 3 * DAY_MS, begin=START)) > 50
    assert pace.standing.since >= START
    assert pace.standing.day < ahead // DAY_MS


def test_a_warming_lane_that_was_idle_goes_on_after_a_clock_that_was_set_back() -> None:
    pace = Pace(lane("20/s", reserve=0, warm_up=WarmUp(first_day=50)), START)
    pace.most_until(START + 30 * DAY_MS, START + 30 * DAY_MS)

    assert len(run(pace, START + 3 * DAY_MS, begin=START)) > 100


def test_a_lane_that_is_probing_goes_one_at_a_time() -> None:
    pace = Pace(lane("100/s"), START)
    pace.hears(START, Heard("suspend", MINUTE_MS))
    later = START + 2 * MINUTE_MS

    assert pace.most_until(later, later + 10 * SECOND_MS) == 1
    pace.hears(later, TAKEN)
    assert pace.most_until(later, later + 10 * SECOND_MS) > 1


def test_the_reserve_is_there_for_urgent_messages_only() -> None:
    pace = Pace(lane("10/s", reserve=0.2, burst=1), START)
    went = run(pace, START + 100 * SECOND_MS)
    assert len(went) == pytest.approx(800, abs=2)

    now = START + 100 * SECOND_MS
    assert pace.opens_at(now, urgent=True) <= now < pace.opens_at(now) + 125
    alone = run(Pace(lane("10/s", reserve=0.2, burst=1), START), START + 100 * SECOND_MS, urgent=True)
    assert len(alone) == pytest.approx(1000, abs=2)


def test_others_leave_urgent_ones_their_part_of_a_warming_day() -> None:
    pace = Pace(lane("20/s", reserve=0.1, warm_up=WarmUp(first_day=50)), START)
    others = run(pace, START + 20 * HOUR_MS)
    urgent = run(pace, START + DAY_MS, begin=START + 20 * HOUR_MS, urgent=True)

    assert (len(others), len(urgent)) == (45, 5)


def warming(first_day: int = 50, rate: str = "20/s") -> Lane:
    return lane(rate, reserve=0, warm_up=WarmUp(first_day=first_day))


def per_day(went: np.ndarray) -> list[int]:
    return [int(count) for count in np.bincount(((went - START) // DAY_MS).astype(int))]


def test_a_warming_lane_grows_from_day_to_day_while_all_goes_well() -> None:
    pace = Pace(warming(), START)
    went = run(pace, START + 6 * DAY_MS)

    assert per_day(went) == [50, 70, 98, 137, 192, 268]
    assert pace.standing.warm_days == 5
    assert most_in(went[:50], HOUR_MS) <= 50 / 8 + 2, "not all in its first minutes"


def test_a_warming_lane_holds_after_a_day_with_many_deferrals() -> None:
    third = (START + 2 * DAY_MS, START + 3 * DAY_MS)
    draw = np.random.default_rng(3)
    went = run(
        Pace(warming(), START),
        START + 5 * DAY_MS,
        lambda now: REFUSED if third[0] <= now < third[1] and draw.random() < 0.3 else TAKEN,
    )
    days = per_day(went)

    assert days[:2] == [50, 70]
    assert days[2] <= 98
    assert days[3] <= 98, "held"
    assert days[4] > 98


def test_a_day_that_was_not_used_teaches_nothing() -> None:
    pace = Pace(warming(), START)
    run(pace, START + 2 * HOUR_MS)
    pace.opens_at(START + 30 * DAY_MS)

    assert (pace.standing.allowed, pace.standing.warm_days) == (50, 0)


def test_a_day_on_which_nothing_got_to_the_provider_teaches_nothing_and_costs_nothing() -> None:
    pace = Pace(warming(), START)
    for day in range(3):
        for i in range(100):
            now = START + day * DAY_MS + i * 10 * MINUTE_MS
            if pace.opens_at(now) <= now:
                pace.begins(now)
                pace.returns()

    assert (pace.standing.allowed, pace.standing.begun) == (50, 0)


@pytest.mark.parametrize(("first_day", "reserve"), [(1, 0.01), (5, 0.5)])
def test_the_smallest_warm_up_begins_and_grows(first_day: int, reserve: float) -> None:
    setting = lane("20/s", reserve=reserve, warm_up=WarmUp(first_day=first_day))
    went = run(Pace(setting, START), START + 20 * DAY_MS)
    days = per_day(went)

    assert days[0] >= 1
    assert days[-1] > 20


def test_a_restart_in_a_warming_day_does_not_begin_it_anew() -> None:
    pace, went = Pace(warming(), START), []
    for hour in range(24):
        begin = START + hour * HOUR_MS
        went.append(run(pace, begin + HOUR_MS, begin=begin))
        pace = Pace(warming(), begin + HOUR_MS, pace.standing)

    assert sum(map(len, went)) == 50


def test_a_warm_up_ends_where_the_rate_is_reached_and_may_be_taken_out_of_the_file() -> None:
    slow = warming(first_day=2000, rate="1/min")
    pace = Pace(slow, START)
    run(pace, START + 3 * DAY_MS)
    assert pace.standing.allowed == 1440
    assert pace.rate == pytest.approx(1 / 60)

    without = Pace(lane("1/min"), START + 3 * DAY_MS, pace.standing)
    assert without.standing.allowed == 0
    assert without.most_until(START + 3 * DAY_MS, START + 4 * DAY_MS) > 1400


def test_a_refusal_that_no_rule_knows_is_the_lanes_where_it_is_for_a_time() -> None:
    assert heard(None, transient=True) == Heard("deferred")
    assert heard(None, transient=False) == Heard("message")
    assert heard(None, transient=True, retry_after=5000) == Heard("deferred", 5000, 5000)


def test_a_rule_says_what_a_refusal_is_and_the_longer_pause_counts() -> None:
    rule = ReplyRule(code=421, action="suspend", pause=Milliseconds.parse("10 min"), source="a test")
    assert heard(rule, transient=True) == Heard("suspend", 10 * MINUTE_MS, 10 * MINUTE_MS)
    assert heard(rule, transient=False, retry_after=HOUR_MS) == Heard("suspend", HOUR_MS, HOUR_MS)
    own = ReplyRule(code=452, action="message", pause=Milliseconds.parse("1 h"), source="a test")
    assert heard(own, transient=True) == Heard("message", 0, HOUR_MS)


def test_a_share_is_sure_only_of_what_was_seen_often() -> None:
    assert least_share(0, 0) == 0
    assert least_share(1, 2) < 0.2
    assert 0.45 < least_share(500, 1000) < 0.5
    assert least_share(20, 20) > 0.75
