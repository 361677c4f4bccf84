"""A lane keeps to its rate and uses it, counted where its messages arrive, whoever owns it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from schemas.lanes import Lane, Lanes
from schemas.units import Rate
from streams.engine.partitioner import partition_of
from tests.support import virtual_deliver
from tests.support.virtual_deliver import Cluster, campaign, policy

_POLICY = policy(campaign(0, "news"), campaign(1, "receipt", purpose="transactional"))
_PARTITIONS = 3
_RATES = {"fast": 100, "slow": 20, "shared": 20}
_RESERVE = 0.2  # of the shared lane
_URGENT = 2  # messages a second, on the shared lane
_SHARE, _WINDOW_MS = 0.98, 60_000


def _lane(rate: int, **more: Any) -> Lane:
    return Lane.model_validate({"rate": Rate.parse(f"{rate}/s"), "connections": 20, "reserve": 0} | more)


_LANES = Lanes(
    default=_lane(1),
    lane={name: _lane(rate) for name, rate in _RATES.items()} | {"shared": _lane(20, reserve=_RESERVE)},
)


@pytest.mark.parametrize(
    ("workers", "seconds"),
    [
        (3, 190),
        pytest.param(1, 600, marks=pytest.mark.soak),
        pytest.param(3, 600, marks=pytest.mark.soak),
    ],
)
def test_a_lane_keeps_to_its_rate_and_uses_it_through_a_hand_over_and_a_kill(
    workers: int, seconds: int
) -> None:
    async def story(cluster: Cluster) -> None:
        for _ in range(seconds + 20):  # each lane has something in the first cut already
            for name, rate in _RATES.items():
                cluster.produce(*(cluster.command(name) for _ in range(rate)))
        urgent = asyncio.create_task(_trickle(cluster))
        owned = await _come_and_go(cluster, workers, seconds / 3)
        urgent.cancel()
        assert cluster.backlog().keys() == _RATES.keys(), "each lane had something to send all the time"
        for name, rate in _RATES.items():
            mine = owned[partition_of(name.encode(), _PARTITIONS)]
            times = _arrivals(cluster, name)
            most = _most(times, 10_000)
            assert most <= 1.02 * rate * 10 + rate * 0.1, (name, most)
            of_all = 1.0
            if name == "shared":
                times, of_all = _arrivals(cluster, name, "news"), 1 - _RESERVE
            least = min(_least(times, start + 1000, end) for start, end in mine)
            assert least >= _SHARE * of_all * rate * 60, (name, least)
        assert cluster.off() == []

    virtual_deliver.run(story, _POLICY, _LANES, _PARTITIONS)


async def _trickle(cluster: Cluster) -> None:
    while True:
        cluster.produce(cluster.command("shared", "receipt"))
        await asyncio.sleep(1 / _URGENT)


async def _come_and_go(cluster: Cluster, count: int, third: float) -> list[list[tuple[int, int]]]:
    """Three thirds, between them a hand-over and a kill; from when to when each partition was owned."""
    owned: list[list[tuple[int, int]]] = [[] for _ in range(_PARTITIONS)]
    begun = [0] * _PARTITIONS

    def has(*partitions: int) -> None:
        for partition in partitions:
            begun[partition] = cluster.time.ms

    def had(*partitions: int) -> None:
        for partition in partitions:
            owned[partition].append((begun[partition], cluster.time.ms))

    every = range(_PARTITIONS)
    workers = [await cluster.start(*(p for p in every if p % count == number)) for number in range(count)]
    has(*every)
    await asyncio.sleep(third)
    workers = [*workers[1:], await cluster.start()]  # it is let go, and another comes
    for partition in every:
        former = next(worker for worker in cluster.workers if partition in worker.owned)
        had(partition)
        await former.leave(partition)
        await workers[partition % count].take(partition)
        has(partition)
    await asyncio.sleep(third)
    for worker in workers:
        mine = sorted(worker.owned)
        had(*mine)
        worker.kill()
        await asyncio.sleep(cluster.chance.uniform(0, 3))
        await cluster.start(*mine)
        has(*mine)
    await asyncio.sleep(third)
    had(*every)
    return owned


def _arrivals(cluster: Cluster, lane: str, campaign: str | None = None) -> np.ndarray:
    """When messages of a lane arrived, UTC ms, in order."""
    return np.array(
        [
            at
            for at, which in cluster.server.taken
            if cluster.commands[which]["lane"] == lane
            and campaign in (None, cluster.commands[which]["campaign"])
        ]
    )


def _most(times: np.ndarray, width: int) -> int:
    """The most of them in any stretch of a width."""
    return int((np.searchsorted(times, times + width) - np.arange(len(times))).max())


def _least(times: np.ndarray, start: int, end: int) -> int:
    """The fewest of them in any minute between two moments."""
    begins = np.append(times + 1, start)
    begins = begins[(begins >= start) & (begins + _WINDOW_MS <= end)]
    return int((np.searchsorted(times, begins + _WINDOW_MS) - np.searchsorted(times, begins)).min())
