"""How probable a person is behind a click or an open, as events are weighed."""

import numpy as np
import pytest

from models import human
from schemas.profile import CLICK, OPEN

NOW = 1_709_728_200_000
VIEW = 0


def weights(
    kind: list[int], at: list[int], doubts: list[int] | None = None, last: int = 0, sent: int = 0
) -> list[int]:
    n = len(kind)
    found = human.weights(
        (np.zeros(n, np.int64), np.zeros(n, np.int64)),
        np.array(kind),
        np.array(at) + NOW,
        np.ones(n, np.bool_),
        np.array(doubts or [human.OF_MAIL * (each == CLICK) for each in kind], np.uint8),
        np.array([last and last + NOW]),
        np.array([[0, sent and NOW // 1000 + sent]]),
        NOW,
    )
    return [int(each) for each in found]


@pytest.mark.parametrize(
    ("kind", "agent", "network", "found"),
    [
        ("click", None, None, 0),
        ("click", "browser", "consumer", 0),
        ("click", "a word of its own", "another", 0),
        ("click", "scanner", None, human.MACHINE),
        ("view", "scanner", "consumer", human.MACHINE),
        ("open", "proxy", None, 0),
        ("open", "proxy", "datacenter", 0),
        ("open", None, "datacenter", 2),
        ("open", "app", "privacy_proxy", human.MACHINE),
        ("click", "browser", "privacy_proxy", 0),
        ("click", None, "datacenter", 2),
        ("view", None, "datacenter", 0),
    ],
)
def test_what_producers_declare_makes_for_doubt(
    kind: str, agent: str | None, network: str | None, found: int
) -> None:
    assert human.doubt(kind, agent, network, of_mail=False) == found
    with_mail = human.doubt(kind, agent, network, of_mail=True)
    assert with_mail == found + human.OF_MAIL * (kind == "click" and found != human.MACHINE)


def test_clicks_and_opens_count_in_quarters_and_views_whole() -> None:
    assert weights([CLICK, OPEN, VIEW], [-9_000, -8_000, -7_000]) == [4, 4, 1]
    assert weights([CLICK, OPEN, VIEW], [-9_000, -8_000, -7_000], [2, 1, 2]) == [1, 2, 1]
    assert weights([CLICK, CLICK], [-9_000, -9_000], [0, 0], sent=-9) == [4, 4]  # elsewhere than in mail


def test_links_followed_in_a_burst_count_less_each_by_the_one_before_it() -> None:
    assert weights([CLICK] * 4, [-9_000, -8_100, -5_200, -2_000]) == [4, 1, 2, 4]
    assert weights([CLICK, VIEW, CLICK], [-9_000, -8_900, -8_500]) == [4, 1, 1]
    assert weights([CLICK], [-9_000], last=-11_000) == [2]
    assert weights([CLICK, CLICK], [-9_000, -9_500]) == [
        4,
        1,
    ]  # they came in another order than they were made


def test_a_click_right_after_a_release_counts_less() -> None:
    assert weights([CLICK], [0], sent=-9) == [1]
    assert weights([CLICK], [0], sent=-59) == [2]
    assert weights([CLICK], [0], sent=-60) == [4]
    assert weights([CLICK], [-20_000], sent=-9) == [4]  # before it
    assert weights([OPEN], [0], sent=-9) == [4]


def test_no_click_that_is_kept_counts_nothing() -> None:
    assert weights([CLICK], [0], [2 + human.OF_MAIL], last=-100, sent=-1) == [1]
