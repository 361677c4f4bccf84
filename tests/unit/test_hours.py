"""Hours that the lanes have no room in are chosen around, and told."""

import uuid

import numpy as np

from models.campaigns import Campaigns
from models.hours import GATES, hours_of
from models.segments import Segments
from schemas.profile import HOUR_MS, empty
from schemas.reasons import Reason
from tests.support.cuts import POLICY, START

NEXT = START // HOUR_MS + 1
LANE = GATES.index(Reason.LANE_FULL)


def test_only_hours_with_room_on_the_lane_of_the_provider_are_left() -> None:
    rows = empty(3)
    rows["provider"] = [b"gmail", b"yahoo", b""]
    full = {
        "gmail": frozenset(range(NEXT, NEXT + 24)) - {NEXT + 9},
        "other": frozenset(range(NEXT, NEXT + 24)),
    }
    campaigns = Campaigns.compile(POLICY, Segments.compile(POLICY.segments))
    which = np.full(3, 1)  # leaves `viewers`; expires after 90 hours
    hours = hours_of(rows, campaigns, which, [uuid.UUID(int=0)] * 3, POLICY, START, full)
    free = hours_of(rows, campaigns, which, [uuid.UUID(int=0)] * 3, POLICY, START, {})
    assert free.allowed[0, 9], "it is not quiet then"
    assert np.flatnonzero(hours.allowed[0]).tolist() == [9]
    assert (hours.allowed[1:] == free.allowed[1:]).all(), "a lane without any room is set aside, and told"
    assert hours.emptied[:, LANE].tolist() == [False, False, True]
    assert hours.left[:, LANE].tolist() == [1, free.allowed[1].sum(), 0]
