"""Durations and rates as people say them."""

import pytest

from schemas.units import Milliseconds, Rate


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("50 ms", 50),
        ("90 s", 90_000),
        ("2 min", 120_000),
        ("5 m", 300_000),
        ("16 h", 57_600_000),
        ("1 hr", 3_600_000),
        ("3 days", 259_200_000),
        ("1.5 hours", 5_400_000),
    ],
)
def test_a_duration_is_read_as_people_say_it(text: str, milliseconds: int) -> None:
    assert Milliseconds.parse(text) == milliseconds


@pytest.mark.parametrize("text", ["50ms", "2 min", "16 h", "3 d", "90 s"])
def test_a_duration_is_read_again_as_it_is_printed(text: str) -> None:
    duration = Milliseconds.parse(text)
    assert Milliseconds.parse(str(duration)) == duration


@pytest.mark.parametrize("text", ["", "soon", "5", "5 fortnights", "-1 s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example"):
        Milliseconds.parse(text)


@pytest.mark.parametrize(("text", "per_second"), [("20/s", 20.0), ("600/min", 10.0), ("3600/hr", 1.0)])
def test_a_rate_is_read_as_people_say_it(text: str, per_second: float) -> None:
    assert Rate.parse(text) == pytest.approx(per_second)
