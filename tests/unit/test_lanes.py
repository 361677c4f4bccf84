"""Pacing of a lane: how many messages a bucket lets go, and when a deferred one is tried again."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.lanes import Bucket, retry_at
from schemas.lanes import Lanes
from schemas.routes import LaneName
from schemas.units import Rate

MINUTE = 60_000


def gone(bucket: Bucket, asked: list[float], level: float) -> list[float]:
    """When messages went that were asked for at these times, each waiting for its turn."""
    out: list[float] = []
    for at in sorted(asked):
        now = max(at, bucket.opens_at(level), out[-1] if out else at)
        level = bucket.after(level, now)
        out.append(now)
    return out


@given(
    st.floats(0.01, 500),
    st.integers(1, 20),
    st.lists(st.floats(0, 60_000), min_size=2, max_size=200),
)
def test_in_any_stretch_at_most_the_rate_and_one_burst_go(
    rate: float, burst: int, asked: list[float]
) -> None:
    bucket = Bucket(1000 / rate, burst)
    times = gone(bucket, asked, bucket.emptied(0))
    for first in range(len(times)):
        for last in range(first, len(times)):
            stretch = times[last] - times[first]
            assert last - first + 1 <= stretch / bucket.interval + burst + 1e-6


def test_a_lane_with_a_backlog_uses_its_whole_rate() -> None:
    bucket = Bucket(10.0, 1)
    times = gone(bucket, [0.0] * 1000, bucket.emptied(0))
    assert times[-1] == pytest.approx(10_000)


def test_a_rest_saves_up_no_more_than_the_burst() -> None:
    bucket = Bucket(10.0, 3)
    level = bucket.after(bucket.emptied(0), 100)
    times = gone(bucket, [60_000.0] * 5, level)
    assert times == [60_000, 60_000, 60_000, 60_010, 60_020]


def test_whoever_takes_a_lane_over_begins_with_an_empty_bucket() -> None:
    bucket = Bucket(10.0, 5)
    assert bucket.opens_at(bucket.emptied(1_000)) == 1_010


def test_the_burst_is_a_tenth_of_a_seconds_messages_unless_it_is_set() -> None:
    def burst(text: str) -> int:
        return Bucket.of(Rate.parse(text), None).burst

    assert (burst("100/s"), burst("20/s"), burst("100/hr")) == (10, 2, 1)
    assert Bucket.of(100, 1).burst == 1


def test_tries_move_apart_up_to_two_hours() -> None:
    assert [retry_at(0, n) // MINUTE for n in (1, 2, 3, 4, 5, 6, 60)] == [5, 10, 20, 40, 80, 120, 120]


@pytest.mark.parametrize(
    ("text", "per_second", "printed"),
    [
        ("100/hr", 100 / 3600, "100/hr"),
        ("20/s", 20, "20/s"),
        ("90 / min", 1.5, "90/min"),
        ("1/day", 1 / 86400, "1/d"),
    ],
)
def test_rates_are_written_as_people_say_them(text: str, per_second: float, printed: str) -> None:
    rate = Rate.parse(text)
    assert float(rate) == pytest.approx(per_second)
    assert str(rate) == printed


@pytest.mark.parametrize("text", ["100", "0/s", "fast", "5/fortnight", "-1/s"])
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gmail", LaneName("gmail")),
        ("news/gmail", LaneName("gmail", "news")),
        ("gmail#3", LaneName("gmail", part=3)),
        ("news/gmail#11", LaneName("gmail", "news", 11)),
    ],
)
def test_a_lane_is_named_after_identity_provider_and_part(text: str, name: LaneName) -> None:
    assert LaneName.of(text) == name
    assert str(name) == text


def test_the_default_identity_is_left_out_when_it_is_written() -> None:
    assert str(LaneName.of("default/gmail")) == "gmail"
    assert LaneName.of("what#is/this").provider == "what#is/this"


LANES = Lanes.model_validate(
    {
        "default": {"rate": "6/hr", "parts": 2},
        "lane": {
            "gmail": {"rate": "100/s", "burst": 8, "connections": 10, "parts": 4, "slowest": 0.1},
            "news/gmail": {"rate": "20/s", "warm_up": {"first_day": 1001}, "parts": 2},
        },
        "identities": {"news": 7},
    }
)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("gmail", 25.0),
        ("gmail#3", 25.0),
        ("gmail#4", 25 * 0.1 / 64),  # of a time when there were more parts
        ("news/gmail#1", 10.0),
        ("shop/gmail#1", 25.0),
        ("news/yahoo#1", 3 / 3600),
    ],
)
def test_a_part_of_a_lane_has_its_share_of_the_rate(name: str, rate: float) -> None:
    assert LANES.of(name).rate == pytest.approx(rate)


def test_parts_share_all_that_a_lane_may_do() -> None:
    gmail, news, other = LANES.of("gmail#1"), LANES.of("news/gmail"), LANES.of("yahoo")
    assert (LANES.of("gmail#4").burst, LANES.of("gmail#4").connections) == (1, 1)
    assert (gmail.burst, gmail.connections) == (2, 2)
    assert news.warm_up is not None
    assert (news.warm_up.first_day, news.connections) == (500, 2)
    assert (other.burst, other.connections) == (None, 2)


def test_messages_go_by_the_lane_of_identity_provider_and_recipient() -> None:
    routes = LANES.routes
    taken = [routes.lane("default", "gmail", f"r{i}") for i in range(4000)]
    assert routes.lane("default", "gmail", "r1") == taken[1]  # for as long as there are as many parts
    counts = Counter(str(lane) for lane in taken)
    assert sorted(counts) == ["gmail", "gmail#1", "gmail#2", "gmail#3"]
    assert min(counts.values()) > 900
    assert {str(routes.lane("news", "yahoo", f"r{i}")) for i in range(50)} == {"news/yahoo", "news/yahoo#1"}
    assert str(routes.lane("default", "news/gmail", "r1")).startswith("other"), "no provider is written so"
    assert (routes.number("default"), routes.number("news")) == (0, 7)
    assert (routes.identity(0), routes.identity(7), routes.identity(8)) == ("default", "news", "default")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"identities": {"news": 7, "shop": 7}}, "7 is that of news too"),
        ({"identities": {"news": 7, "default": 1}}, "leave it out"),
        ({"identities": {}}, "no identity is called news: add it to identities"),
        ({"identities": {"news": 0}}, "greater than or equal to 1"),
        ({"identities": {"News": 1}}, "small letters"),
        ({"default": {"rate": "1/s", "connections": 2, "parts": 3}}, "parts: at most 2"),
        ({"default": {"rate": "1/s", "warm_up": {"first_day": 1}, "parts": 2}}, "parts: at most 1"),
        ({"lane": {"gmail#3": {"rate": "1/s"}}}, "write gmail, and how many parts"),
        ({"lane": {"default/gmail": {"rate": "1/s"}}}, "write gmail"),
    ],
)
def test_lanes_that_cannot_be_are_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Lanes.model_validate(LANES.model_dump() | changed)
