"""Segment definitions: what is refused when they are read, before any event meets them."""

import numpy as np
import pytest

from models.segments import Segments
from schemas.policy import PolicyError, Segment
from tests.support.cuts import PACKAGED


def compiled(where: str) -> Segments:
    return Segments.compile([Segment(number=0, name="some", where=where, doc="For tests.")])


def test_the_packaged_segments_are_accepted() -> None:
    assert len(Segments.compile(PACKAGED.segments).expressions) == len(PACKAGED.segments)


@pytest.mark.parametrize(
    "where",
    [
        "views_7d >=",  # no SQL
        "views_8d > 1",  # no such feature
        "views_7d + 1",  # not a boolean
        "1 = 1",  # about nobody
        "SUM(views_7d) > 3",
        "views_7d > AVG(views_7d)",  # depends on who else is in the cut
        "views_7d = FIRST(views_7d)",
        "CAST(views_30d AS TINYINT) > 3",  # fails from 128 on
    ],
)
def test_what_is_not_a_condition_on_one_recipient_is_refused_by_name(where: str) -> None:
    with pytest.raises(PolicyError, match="segment some"):
        compiled(where)


def test_null_is_no_member() -> None:
    segments = compiled("hours_since_view > 1 OR NOT hours_since_view > 1")
    assert segments.holds(np.array([[np.nan], [0.5]])).tolist() == [[False], [True]]


def test_bits_survive_packing() -> None:
    segments = Segments.compile(
        [Segment(number=n, name=f"s{n}", where="views_7d > 0", doc="For tests.") for n in (0, 63, 64, 127)]
    )
    members = np.array([[True, False, True, False], [False, True, False, True]])
    assert (segments.members(segments.packed(members)) == members).all()
