"""More commands at once than a lane can send: who goes, what becomes of the rest, and who else feels it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from models.order import Ranks
from schemas.lanes import Lane, Lanes
from schemas.units import Rate
from streams.engine.cut import Cut
from streams.engine.partitioner import partition_of
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
_CLEARS_MS = 15_000  # in which a lane of 20/s sends what came to it in a minute, 4/s, and is still coming
_PARTITIONS = 2
_FULL = "full"
_BESIDE, _ELSEWHERE = (  # on the same partition, and on the worker's other one
    next(
        name
        for name in ("b", "c", "d", "e", "f")
        if (partition_of(name.encode(), 2) == partition_of(_FULL.encode(), 2)) is same
    )
    for same in (True, False)
)


def _lanes(rate: int) -> Lanes:
    lane = Lane(rate=Rate.parse("20/s"), connections=20)
    return Lanes(default=lane, lane={_FULL: Lane(rate=Rate.parse(f"{rate}/s"), connections=20, reserve=0)})


@dataclass
class _Watched:
    """A worker for four minutes, and what it was given."""

    cluster: Cluster
    taken_up: list[int] = field(default_factory=list)  # when cuts took many commands, UTC ms

    async def run(self, size: int) -> None:
        """A few messages a second on two lanes, and on another so many at once after ten seconds."""
        self.cluster.server.before = (0.02, 0.02)  # they arrive in the order in which they begin
        self.cluster.watches.append(self._note)
        await self.cluster.start(*range(_PARTITIONS))
        quiet = [asyncio.create_task(self._quiet(lane)) for lane in (_BESIDE, _ELSEWHERE)]
        await asyncio.sleep(10)
        self._burst(size)
        await asyncio.sleep(_WATCHED_S - 10)
        for task in quiet:
            task.cancel()

    def _note(self, cut: Cut) -> None:
        if len(cut.records[COMMANDS]) > 100:
            self.taken_up.append(self.cluster.time.ms)

    async def _quiet(self, lane: str) -> None:
        while True:
            self.cluster.produce(self.cluster.command(lane))
            await asyncio.sleep(self.cluster.chance.expovariate(4))

    def _burst(self, size: int) -> None:
        """Commands of all campaigns at once, with deadlines in the last 20 s of their time."""
        cluster, chance = self.cluster, self.cluster.chance
        for name in chance.choices([*_SHARES], [*_SHARES.values()], k=size):
            cluster.produce(cluster.command(_FULL, name, _LASTS - chance.randrange(20_000)))

    def p99(self, lane: str, since: int = 0) -> float:
        """How long all but a hundredth of a lane's messages took from their release at most, ms."""
        released = {
            which: each["released_at"]
            for which, each in self.cluster.commands.items()
            if each["lane"] == lane
        }
        took = [
            at - released[which]
            for at, which in self.cluster.server.taken
            if released.get(which, -1) >= since
        ]
        return float(np.percentile(took, 99))

    def check(self, rate: int) -> None:
        """Who went, in which order, and how all others ended."""
        commands = self.cluster.commands
        burst = {which for which, each in commands.items() if each["lane"] == _FULL}
        gone = [(at, which) for at, which in self.cluster.server.taken if which in burst]
        delivered = {which for _, which in gone}
        ends = {each["dispatch_id"]: each["kind"] for each in self.cluster.trail() if each["kind"] in ENDS}
        assert self.cluster.off() == []
        assert {which for which in burst if ends[which] == "delivered"} == delivered
        assert {which for which in burst if ends[which] == "expired"} == burst - delivered
        assert len(gone) >= 0.98 * rate * 175, "the lane was used to the end"
        went = [(at, commands[which]) for at, which in gone if at > self.taken_up[-1] + 1000]
        _check_turns([each["campaign"] for _, each in went], rate)
        for name in _SHARES:
            _check_deadlines([(at, each["expires_at"]) for at, each in went if each["campaign"] == name])


def _check_turns(campaigns: list[str], rate: int) -> None:
    """Of those that went once all had come: rank, then turns."""
    ranks = [Ranks.of(_POLICY)(each) for each in campaigns]
    assert ranks == sorted(ranks)
    equals = [each for each in campaigns if each in ("small", "large")]
    both = equals[: len(equals) - equals[::-1].index("small")]
    assert len(both) > rate * 60
    ahead = np.cumsum([1 if name == "small" else -1 for name in both])
    assert np.ptp(ahead) <= 10, "they take turns while both have any; a claim that is given back had one"


def _check_deadlines(went: list[tuple[int, int]]) -> None:
    """The earliest deadline first, but for claims that were given back: those go within two seconds."""
    if not went:
        return
    times, deadlines = np.array(went).T
    earliest_from = np.minimum.accumulate(deadlines[::-1])[::-1]
    later = np.searchsorted(times, times + 2000)
    has_later = later < len(times)
    assert (deadlines[has_later] <= earliest_from[later[has_later]]).all()


@pytest.mark.parametrize(
    ("size", "rate"),
    [
        (10_000, 10),
        pytest.param(500_000, 100, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_of_a_burst_those_go_that_matter_most_all_others_expire_and_no_other_lane_is_held_up(
    size: int, rate: int
) -> None:
    """But for what comes behind the burst in the same partition, until all that is taken up and has gone."""
    watched = []

    async def story(many: int, cluster: Cluster) -> None:
        watched.append(_Watched(cluster))
        await watched[-1].run(many)

    for many in (0, size):
        virtual_deliver.run(partial(story, many), _POLICY, _lanes(rate), _PARTITIONS)
    without, burst = watched
    burst.check(rate)
    assert burst.p99(_ELSEWHERE) <= 2 * without.p99(_ELSEWHERE)
    assert burst.p99(_BESIDE, burst.taken_up[-1] + _CLEARS_MS) <= 2 * without.p99(_BESIDE)
