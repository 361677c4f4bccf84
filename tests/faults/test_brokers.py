"""Brokers restarted, lost, frozen, behind a bad network: deciders wait or end, nothing is lost or twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer

from schemas import codec, policy_files, topics
from schemas.policy import Policy
from streams.replay.completejourney import Produced
from tests.support import cluster, faults, oracle, proxy, whole
from tests.support import stack as stacks
from tests.support.cluster import Node
from tests.support.faults import PARTITIONS, Keeper, Traffic
from tests.support.stack import SESSION_TIMEOUT_S, Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.soak, pytest.mark.timeout(600)]

_FROZEN_S = 60.0
_BATCH = 200


@contextmanager
def _three(folder: Path) -> Iterator[tuple[Stack, list[Node], Policy]]:
    with cluster.running(folder, 3) as (stack, nodes):
        place = whole.eager_policy(folder, "60/s")
        stack.environment["OPPORTUNE_POLICY_DIR"] = str(place)
        yield stack, nodes, policy_files.load(place)


def _assert_right(stack: Stack, rules: Policy, *keepers: Keeper) -> None:
    stacks.await_quiet(stack)
    for keeper in keepers:
        assert len(keeper.ended) <= 3, f"few restarts: {keeper.ended}"
    faults.terminate(stack, *(keeper.worker for keeper in keepers))
    oracle.assert_decided(stack, rules)


def _refused(stack: Stack, event: Produced) -> bool:
    """Whether Kafka does not take an event."""
    found: list[KafkaError | None] = []
    producer = Producer(
        stack.client.config(acks="all", message_timeout_ms=3000, partitioner="murmur2_random")
    )
    value = codec.encode(event.topic, event.fields)
    producer.produce(event.topic, value, event.key.encode(), on_delivery=lambda error, _: found.append(error))
    producer.flush()
    return all(error is not None for error in found)  # `==` with None is more than a KafkaError can bear


@pytest.mark.parametrize("seed", faults.seeds(1))
def test_brokers_restarted_one_after_the_other_are_noticed_by_nobody(tmp_path: Path, seed: int) -> None:
    with _three(tmp_path) as (stack, nodes, rules):
        with Keeper(stack) as keeper, Traffic.of(stack, seed) as traffic:
            traffic.await_more(len(traffic.people) + _BATCH)
            faults.await_cuts(stack)
            for node in nodes:
                node.down()
                traffic.await_more(_BATCH)
                faults.await_cuts(stack)
                node.up()
                cluster.await_in_sync(stack, 3)
        _assert_right(stack, rules, keeper)


@pytest.mark.parametrize("seed", faults.seeds(1))
def test_of_three_brokers_one_may_be_lost_for_ever_and_without_two_nothing_is_written(
    tmp_path: Path, seed: int
) -> None:
    chance = faults.chance_of(seed)
    with _three(tmp_path) as (stack, nodes, rules):
        with Keeper(stack) as keeper, Traffic.of(stack, seed) as traffic:
            traffic.await_more(len(traffic.people) + _BATCH)
            faults.await_cuts(stack)
            lost = chance.choice(nodes)
            lost.kill()
            traffic.await_more(_BATCH)
            faults.await_cuts(stack, 2)  # writes go on
            lost.wipe()
            lost.up()
            cluster.await_in_sync(stack, 3)
            faults.await_cuts(stack)
            two = chance.sample(nodes, 2)
            for node in two:
                node.kill()
            assert _refused(stack, traffic.people[0])
            traffic.await_more(_BATCH)  # and these wait in their producer
            cluster.up(two)
            cluster.await_in_sync(stack, 3)
            faults.await_cuts(stack, 2)
        _assert_right(stack, rules, keeper)


@pytest.mark.parametrize("seed", faults.seeds(1))
def test_a_broker_frozen_for_a_minute_and_then_the_decider_killed(tmp_path: Path, seed: int) -> None:
    chance = faults.chance_of(seed)
    with _three(tmp_path) as (stack, nodes, rules):
        with Keeper(stack) as keeper, Traffic.of(stack, seed) as traffic:
            traffic.await_more(len(traffic.people) + _BATCH)
            faults.await_cuts(stack)
            leader = cluster.leader_of(stack, topics.JOURNAL.name, chance.randrange(PARTITIONS))
            with nodes[leader - 1].frozen():
                time.sleep(_FROZEN_S)
                keeper.worker.kill()
                keeper.worker.wait()
            faults.await_cuts(stack, 2)
        _assert_right(stack, rules, keeper)


@pytest.mark.parametrize("seed", faults.seeds(1))
def test_a_decider_behind_a_slow_a_silent_and_a_cut_network(tmp_path: Path, seed: int) -> None:
    chance = faults.chance_of(seed)
    with cluster.running(tmp_path, 1) as (stack, (node,)):
        place = whole.eager_policy(tmp_path, "60/s")
        stack.environment["OPPORTUNE_POLICY_DIR"] = str(place)
        far = {"OPPORTUNE_BROKERS": f"127.0.0.1:{node.port('proxy')}"}
        with proxy.standing(node.port("proxy"), node.port("proxied")) as network:
            with (
                Keeper(stack, environment=far) as remote,
                Keeper(stack) as near,
                Traffic.of(stack, seed) as traffic,
            ):
                for keeper in (remote, near):
                    faults.await_said(stack, keeper.worker, "line_taken_over")
                network.delay, network.rate = 0.1 * chance.random(), 200_000.0
                faults.await_cuts(stack, 2)
                for disturb in chance.sample((network.stall, network.cut), 2):
                    disturb()
                    time.sleep(SESSION_TIMEOUT_S + 4 * chance.random())
                    faults.await_cuts(stack, 2)  # the near one has its partitions by now
                    network.heal()
                    traffic.await_more(_BATCH)
                    faults.await_cuts(stack, 2)
            stacks.await_quiet(stack)
            faults.terminate(stack, remote.worker, near.worker)
        oracle.assert_decided(stack, policy_files.load(place))
