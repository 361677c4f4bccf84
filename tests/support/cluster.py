"""Several Kafka nodes on this machine, each broker and controller: one may be lost, frozen or emptied."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
from confluent_kafka.admin import AdminClient

from infra.embedded import KafkaServer
from infra.embedded.kafka import cluster_id
from infra.embedded.process import choose_ports, find, read_child, read_record, write_record
from infra.embedded.server import HOST
from schemas.settings import Settings
from streams import cluster as clusters
from streams.engine.kafka import Client
from tests.support.faults import PARTITIONS, await_until
from tests.support.stack import Stack

_STATE_TOPICS = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
_LISTENERS = ("client", "controller", "proxied")


class Node(KafkaServer):
    """One of several nodes; `voters` are all of them, as Kafka's setting of that name wants it."""

    # What comes in at `proxied` is told to come to `proxy` from then on.
    port_names = ("client", "controller", "proxied", "proxy")
    heap = "256m"

    def __init__(self, folder: Path, cache: Path, number: int, of: int, identity: str) -> None:
        super().__init__(folder / f"node-{number}", cache)
        self.number, self._of, self._identity = number, of, identity
        self.voters = ""

    def reserve(self) -> Mapping[str, int]:
        """Choose ports before the start: the nodes must know each other's."""
        ports = choose_ports(dict.fromkeys(self.port_names), HOST)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_record(self._ports, ports)
        return ports

    def port(self, name: str) -> int:
        """One of its ports."""
        record = read_record(self._ports)
        assert record is not None
        return int(record[name])

    @property
    def process(self) -> psutil.Process:
        """The node's process, which must run."""
        child = read_child(self._record)
        process = find(child) if child else None
        assert process is not None, f"node {self.number} does not run"
        return process

    def kill(self) -> None:
        """Kill it -9."""
        process = self.process
        process.kill()
        process.wait()

    def wipe(self) -> None:
        """Delete everything that it has stored; it must not run."""
        shutil.rmtree(self.data)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still meanwhile."""
        process = self.process
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process.pid, signal.SIGCONT)

    def _settings(self, ports: Mapping[str, int]) -> dict[str, str]:
        settings = super()._settings(ports)
        del settings["controller.quorum.bootstrap.servers"]
        replicas, in_sync = str(self._of), str(self._of // 2 + 1)
        at = {name: f"{name.upper()}://{HOST}:{ports[name]}" for name in _LISTENERS}
        told = at | {"proxied": f"PROXIED://{HOST}:{ports['proxy']}"}
        return (
            settings
            | {
                "node.id": str(self.number),
                "controller.quorum.voters": self.voters,
                "listeners": ",".join(at.values()),
                "advertised.listeners": ",".join(told.values()),
                "listener.security.protocol.map": ",".join(f"{n.upper()}:PLAINTEXT" for n in _LISTENERS),
                "min.insync.replicas": in_sync,
                # A follower that stands still holds every commit back until it is out of the set in sync.
                "replica.lag.time.max.ms": "3000",
            }
            | {f"{topic}.replication.factor": replicas for topic in _STATE_TOPICS}
            | {f"{topic}.min.isr": in_sync for topic in _STATE_TOPICS[1:]}
        )

    def _formatting(self) -> Sequence[str]:
        return (f"--cluster-id={self._identity}",)


@contextmanager
def running(folder: Path, count: int) -> Iterator[tuple[Stack, list[Node]]]:
    """So many nodes with the topics on them, and a stack of workers."""
    cache = Settings().cache_dir / "jars"
    identity = cluster_id()
    nodes = [Node(folder, cache, number, count, identity) for number in range(1, count + 1)]
    ports = [node.reserve() for node in nodes]
    voters = [f"{n.number}@{HOST}:{p['controller']}" for n, p in zip(nodes, ports, strict=True)]
    for node in nodes:
        node.voters = ",".join(voters)
    address = ",".join(f"{HOST}:{p['client']}" for p in ports)
    settings = Settings(state_dir=folder, partitions=PARTITIONS, brokers=address, replication=count)
    environment = {"OPPORTUNE_BROKERS": address, "OPPORTUNE_REPLICATION": str(count)}
    stack = Stack(settings, Client.of(settings, address), environment=environment)
    try:
        up(nodes)
        clusters.create_topics(stack.client, settings)
        yield stack, nodes
    finally:
        stack.end()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(Node.discard, nodes))


def up(nodes: Sequence[Node]) -> None:
    """Start nodes at once: none answers before more than half of all are there."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(Node.up, nodes))


def await_in_sync(stack: Stack, count: int) -> None:
    """Wait until every partition of every topic has so many replicas in sync, and a leader."""
    admin = AdminClient(stack.client.config())

    def in_sync() -> bool:
        found = admin.list_topics(timeout=30).topics.values()
        return all(
            len(p.isrs) >= count and p.leader >= 0 for topic in found for p in topic.partitions.values()
        )

    await_until(f"{count} replicas in sync", in_sync)


def leader_of(stack: Stack, topic: str, partition: int) -> int:
    """Number of the node that leads a partition."""
    admin = AdminClient(stack.client.config())
    return int(admin.list_topics(topic, timeout=30).topics[topic].partitions[partition].leader)
