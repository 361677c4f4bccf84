"""More commands at once than a lane can send: who goes, what becomes of the rest, and who else feels it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import numpy as np
import pytest

from models.order import Ranks
from schemas.lanes import Lane, Lanes
from schemas.units import Rate
from streams.reconciling.deliveries import ENDS
from tests.support import virtual_deliver
from tests.support.virtual_deliver import COMMANDS, MINUTE, Cluster, campaign, policy

_POLICY = policy(
    campaign(0, "receipt", purpose="transactional"),
    campaign(1, "small", priority=5),
    campaign(2, "large", priority=5),
    campaign(3, "least", priority=1),
)
_SHARES = {"receipt": 0.01, "small": 0.05, "large": 0.44, "least": 0.5}  # of the burst
_LASTS = 3 * MINUTE
_WATCHED_S = 240


def _lanes(rate: int) -> Lanes:
    lane = Lane(rate=Rate.parse(f"{rate}/s"), connections=20, reserve=0)
    return Lanes(default=lane, lane={"quiet": Lane(rate=Rate.parse("20/s"), connections=20)})


async def _quiet(cluster: Cluster) -> None:
    """A few messages a second on another lane."""
    while True:
        cluster.produce(cluster.command("quiet"))
        await asyncio.sleep(cluster.chance.expovariate(4))


def _waits(cluster: Cluster) -> np.ndarray:
    """How long the other lane's messages took from their release, ms."""
    commands = cluster.commands
    return np.array(
        [
            at - commands[which]["released_at"]
            for at, which in cluster.server.taken
            if commands[which]["lane"] == "quiet"
        ]
    )


def _burst(cluster: Cluster, size: int) -> None:
    """Commands of all campaigns at once; deadlines within the last 20 s."""
    campaigns = cluster.chance.choices([*_SHARES], [*_SHARES.values()], k=size)
    cluster.produce(
        *(cluster.command("full", each, _LASTS - cluster.chance.randrange(20_000)) for each in campaigns)
    )


@pytest.mark.parametrize(
    ("size", "rate"),
    [
        (10_000, 10),
        pytest.param(500_000, 100, marks=[pytest.mark.faults, pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_of_a_burst_those_go_that_matter_most_all_others_expire_and_the_next_lane_hardly_feels_it(
    size: int, rate: int
) -> None:
    waits = []

    async def alone(cluster: Cluster) -> None:
        cluster.server.before = (0.02, 0.02)  # they arrive in the order in which they begin
        await cluster.start(0)
        asyncio.create_task(_quiet(cluster))
        await asyncio.sleep(_WATCHED_S)
        waits.append(_waits(cluster))

    async def burst(cluster: Cluster) -> None:
        taken_up: list[int] = []
        cluster.watches.append(
            lambda cut: taken_up.append(cut.now) if len(cut.records[COMMANDS]) > 100 else None
        )
        cluster.server.before = (0.02, 0.02)  # they arrive in the order in which they begin
        await cluster.start(0)
        asyncio.create_task(_quiet(cluster))
        await asyncio.sleep(10)
        _burst(cluster, size)
        await asyncio.sleep(_WATCHED_S - 10)
        waits.append(_waits(cluster))
        print([np.percentile(w, [50, 90, 99, 100]).tolist() for w in waits], taken_up[-1] - taken_up[0])  # noqa: T201
        _check(cluster, rate, taken_up[-1])

    virtual_deliver.run(alone, _POLICY, _lanes(rate))
    virtual_deliver.run(burst, _POLICY, _lanes(rate))
    before, during = (float(np.percentile(each, 99)) for each in waits)
    assert during <= 2 * before


def _check(cluster: Cluster, rate: int, accepted_at: int) -> None:
    burst = {which: each for which, each in cluster.commands.items() if each["lane"] == "full"}
    gone = [which for _, which in cluster.server.taken if which in burst]
    ends = {each["dispatch_id"]: each["kind"] for each in cluster.trail() if each["kind"] in ENDS}
    assert cluster.off() == []
    assert {which: ends[which] for which in burst} == {
        which: "delivered" if which in {*gone} else "expired" for which in burst
    }
    assert len(gone) >= 0.98 * rate * 175, "the lane was used to the end"
    went = [burst[which] for at, which in cluster.server.taken if which in burst and at > accepted_at + 1000]
    ranks = Ranks.of(_POLICY)
    assert [ranks(each["campaign"]) for each in went] == sorted(ranks(each["campaign"]) for each in went)
    equals = [each["campaign"] for each in went if each["campaign"] in ("small", "large")]
    both = equals[: len(equals) - equals[::-1].index("small")]
    assert len(both) > rate * 60
    assert all(one != other for one, other in pairwise(both)), "they take turns while both have any"
    for name in _SHARES:
        deadlines = [each["expires_at"] for each in went if each["campaign"] == name]
        assert deadlines == sorted(deadlines), name
