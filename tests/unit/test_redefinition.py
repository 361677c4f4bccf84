"""Segments defined anew: what changes between versions, and when the sweep comes by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import features
from models.features import FEATURES
from models.redefinition import changes, reached_at
from schemas.policy import Applied, Segment
from schemas.profile import HOUR_MS, MINUTE_MS


def segment(number: int, name: str, where: str = "views_7d >= 1") -> Segment:
    return Segment(number=number, name=name, where=where, doc="For tests.")


A, B = segment(0, "a"), segment(1, "b")
WIDER, OTHER = segment(0, "a", "views_7d >= 0"), segment(0, "other")
APPLIED = (Applied(0, (A,)), Applied(3, (WIDER,)), Applied(5, (WIDER, B)), Applied(9, (A, B)))


@pytest.mark.parametrize(
    ("applied", "since", "found"),
    [
        (APPLIED[:1], 0, []),
        (APPLIED[:2], 0, [(0, A, WIDER, 3)]),
        (APPLIED[:3], 0, [(0, A, WIDER, 3), (1, None, B, 5)]),
        (APPLIED[:3], 4, [(1, None, B, 5)]),
        (APPLIED, 0, [(1, None, B, 5)]),
        (APPLIED, 4, [(0, WIDER, A, 9), (1, None, B, 5)]),
        (APPLIED, 3, [(0, WIDER, A, 9), (1, None, B, 5)]),
        (APPLIED, 9, []),
        ((*APPLIED, Applied(12, ())), 5, [(0, WIDER, None, 12), (1, B, None, 12)]),
        ((Applied(0, (A,)), Applied(2, (OTHER,))), 0, [(0, A, OTHER, 2)]),
    ],
)
def test_a_change_is_from_what_a_row_knows_to_what_is_in_force(
    applied: tuple[Applied, ...], since: int, found: list[tuple[int, Segment | None, Segment | None, int]]
) -> None:
    made = changes(applied, since, applied[-1].version)
    assert [(each.number, each.before, each.now, each.version) for each in made] == found


def test_a_row_that_knows_later_definitions_than_are_in_force_goes_back_to_these() -> None:
    found = [(each.number, each.before, each.now, each.version) for each in changes(APPLIED, 9, 0)]
    assert found == [(1, B, None, 5)]
    found = [(each.number, each.before, each.now, each.version) for each in changes(APPLIED, 9, 3)]
    assert found == [(0, A, WIDER, 9), (1, B, None, 5)]


@given(st.lists(st.binary(min_size=1, max_size=12), max_size=5), st.integers(0, 2**41), st.integers(0, 3))
def test_the_sweep_comes_to_everybody_once_a_minute(keys: list[bytes], after: int, minutes: int) -> None:
    first = reached_at(keys, after)
    assert ((first > after) & (first <= after + MINUTE_MS)).all()
    assert (reached_at(keys, after + minutes * MINUTE_MS) == first + minutes * MINUTE_MS).all()
    # As a worker that takes over finds: what is still to come comes when it would have come.
    later = after + 17_000
    waits = first > later
    assert (reached_at(keys, later)[waits] == first[waits]).all()


def test_the_sweep_is_spread_evenly() -> None:
    moments = reached_at([b"%d" % n for n in range(60_000)], 0)
    per_second = np.bincount(moments // 1000, minlength=60)
    assert per_second[:60].min() > 800
    assert per_second.max() < 1200


def test_a_window_in_clickhouse_ends_now() -> None:
    now = 1_486_141_920_000
    assert features.in_clickhouse(FEATURES["views_6h"], now) == (
        f"toFloat64(arraySum(arraySlice(views_by_hour, 1, greatest(6 - greatest({now // HOUR_MS} - "
        "intDiv(toUnixTimestamp64Milli(as_of), 3600000), 0), 0))))"
    )
