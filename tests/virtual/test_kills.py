"""DELIVER killed under load, at its failpoints and at any moment: never twice, and nothing without an end."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from models.deliver import Result
from schemas.lanes import Lane, Lanes
from schemas.units import Rate
from sinks.transports import Outcome
from streams import sender
from streams.engine.control import Control
from streams.engine.failpoint import POINTS, SENDER_POINTS
from streams.reconciling.deliveries import ENDS
from tests.support import faults, virtual_deliver
from tests.support.virtual_deliver import Cluster, campaign, policy
from tests.support.virtual_worker import arm, disarm

_POLICY = policy(
    campaign(0, "news"),
    campaign(1, "again", guarantee="at_least_once"),
    campaign(2, "receipt", purpose="transactional"),
)
_LANES = Lanes(default=Lane(rate=Rate.parse("10/s"), connections=8, deferred_above=0.3))
_NAMES = ("a", "b", "c")
_PARTITIONS = 4
_TAKE_OVER = ("after_fence", "after_recover", "after_seek")
_EFFECTIVE_MS = 2000
_LOST = "the worker ended before it learnt the outcome"


@pytest.mark.parametrize(
    ("kills", "seed"),
    [
        (40, 0),
        *(pytest.param(200, seed.values[0], marks=pytest.mark.soak) for seed in faults.seeds(3)),
    ],
)
def test_whenever_it_is_killed_each_message_goes_once_and_each_lost_claim_is_told(
    kills: int, seed: int
) -> None:
    _story(kills, seed)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("streams.sender._KINDS", {**sender._KINDS, "unknown": "deferred"}),
        ("models.deliver.lost", lambda which, now: Result(which, "returned", now)),
    ],
)
def test_it_shows_where_a_message_goes_again_or_a_lost_claim_is_not_told(
    monkeypatch: pytest.MonkeyPatch, where: str, what: object
) -> None:
    monkeypatch.setattr(where, what)
    with pytest.raises(AssertionError):
        _story(10, 0)


def _story(kills: int, seed: int) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.server.answer = _answer
        load = asyncio.create_task(_load(cluster))
        await cluster.start(0, 1)
        await cluster.start(2, 3)
        points = [*POINTS, *SENDER_POINTS]
        while cluster.deaths < kills:
            await _kill_one(cluster, points[cluster.deaths % len(points)])
            await _heal(cluster)
        load.cancel()
        cluster.switch(paused=False, held=frozenset())
        assert await cluster.until(cluster.ended, 2 * 3600)
        _check(cluster)

    virtual_deliver.run(story, _POLICY, _LANES, _PARTITIONS, seed)


def _answer(which: str, attempt: int) -> Outcome:
    """A few are put off the first time, a few refused, and of a few the reply is lost."""
    share = int(which[:8], 16) / (1 << 32)
    if share < 0.06 and attempt == 1:
        return Outcome("deferred", 451, "try again later")
    if 0.06 <= share < 0.08:
        return Outcome("bounced", 550, "5.1.1 no such user", permanent=True)
    if 0.08 <= share < 0.12 and attempt == 1:
        return Outcome("unknown", detail="the connection was lost")
    return Outcome("accepted", 250)


async def _load(cluster: Cluster) -> None:
    """Somewhat more commands than the lanes allow; repeats, short lives, recalls and pauses among them."""
    chance = cluster.chance
    late: list[dict[str, object]] = []
    for _ in range(100):
        for name in _NAMES:
            cluster.produce(cluster.command(name, chance.choice(["news", "again"])))
    while True:
        for name in _NAMES:
            for _ in range(5):
                kind = chance.choices(["news", "again", "receipt"], [5, 5, 1])[0]
                lasts = chance.choices([3_000, 30_000, 16 * virtual_deliver.HOUR], [1, 1, 20])[0]
                command = cluster.command(name, kind, lasts)
                if chance.random() < 0.02:  # its recall comes first
                    cluster.recall(command)
                    late.append(command)
                else:
                    cluster.produce(*[command] * chance.choices([1, 2], [50, 1])[0])
        if chance.random() < 0.5:
            cluster.recall(*chance.sample([*cluster.commands.values()][-300:], 2))
        if chance.random() < 0.03:
            cluster.switch(
                paused=chance.random() < 0.3,
                held=frozenset(("lane", name) for name in chance.sample(_NAMES, chance.randint(0, 2))),
            )
        elif chance.random() < 0.2:
            cluster.switch(paused=False, held=frozenset())
        try:
            await asyncio.sleep(0.5)
        finally:  # also where it ends here: what was recalled comes
            cluster.produce(*late)
            late.clear()


async def _kill_one(cluster: Cluster, point: str) -> None:
    """Let a worker die at a failpoint, or at any moment where nobody comes to it."""
    chance, deaths = cluster.chance, cluster.deaths
    if chance.random() < 0.25:
        await asyncio.sleep(chance.uniform(0, 2))
        chance.choice(cluster.workers).kill()
        return
    if point in ("on_revoke", *_TAKE_OVER):
        arm(point, 1)
        former = chance.choice([worker for worker in cluster.workers if worker.owned])
        [heir] = [worker for worker in cluster.workers if worker is not former]
        partition = chance.choice(sorted(former.owned))
        await former.leave(partition)
        if not former.dead:
            await heir.take(partition)
    else:
        arm(point, chance.randint(1, 12))
    if not await cluster.until(lambda: cluster.deaths > deaths, 10):
        chance.choice(cluster.workers).kill()
    disarm()


async def _heal(cluster: Cluster) -> None:
    """Two workers again, who own everything between them."""
    await asyncio.sleep(cluster.chance.uniform(0.1, 1.5))
    owned = {partition for worker in cluster.workers for partition in worker.owned}
    free = sorted(set(range(_PARTITIONS)) - owned)
    while len(cluster.workers) < 2:
        await cluster.start(*free)
        free = []


def _controls(cluster: Cluster) -> list[tuple[int, int, Control]]:
    """Every state of control, with the moments from which and until which it was in force."""
    ends = [since for since, _ in cluster.controls[1:]] + [cluster.time.ms]
    return [(since, until, control) for (since, control), until in zip(cluster.controls, ends, strict=True)]


def _check(cluster: Cluster) -> None:
    trail, guarantee = cluster.trail(), {each.name: each.guarantee for each in _POLICY.campaigns}
    ends = Counter(each["dispatch_id"] for each in trail if each["kind"] in ENDS)
    assert ends == dict.fromkeys(cluster.commands, 1), "every command has one end"
    assert {each["kind"] for each in trail} >= {*ENDS, "deferred", "duplicate"}, "there was all of it"
    lost = {
        (each["dispatch_id"], each["attempt"] - 1)
        for each in trail
        if each["kind"] in ("unknown", "deferred") and _LOST in (each["detail"] or "")
    }
    assert lost == cluster.orphans, "what died with its worker is told, and nothing else"
    came = Counter(which for _, which in cluster.server.taken)
    left = Counter(which for which, _ in cluster.orphans) + cluster.server.lost
    for which, times in came.items():
        once = guarantee[cluster.commands[which]["campaign"]] == "at_most_once"
        assert times <= 1 + (0 if once else left[which]), "it is repeated only where its outcome was lost"
    assert any(times > 1 for times in came.values()), "some had to be"
    states = _controls(cluster)
    for at, which in cluster.server.taken:
        assert at < cluster.recalled.get(which, at) + _EFFECTIVE_MS, "a recall stops it"
        in_force = [each for since, until, each in states if since <= at and at - _EFFECTIVE_MS < until]
        lane = "lane", cluster.commands[which]["lane"]
        assert not all(each.paused or lane in each.held for each in in_force), "a pause stops it"
    assert cluster.off() == []
