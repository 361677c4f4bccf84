"""Servers that run from PyPI packages alone: no Docker, no system Java, no root.

EmbeddedError
+-- ServerDied        ended before it answered: read the log tail, remove the cause, `up` again
|   +-- BrokerDied    Kafka did
+-- ServerNotReady    runs, does not answer: `up` waits again, `down` ends it
|   +-- BrokerNotReady
+-- JarRefused        not the pinned jar: delete the file that is named
+-- JarUnavailable    cannot be fetched: network, proxy or mirror; what was fetched is kept
"""

from infra.embedded.clickhouse import ClickHouseEndpoint, ClickHouseServer
from infra.embedded.jars import JarRefused, JarUnavailable, default_cache
from infra.embedded.kafka import BrokerDied, BrokerNotReady, KafkaServer
from infra.embedded.process import EmbeddedError, Progress
from infra.embedded.sandbox import SandboxServer
from infra.embedded.server import Endpoint, Health, Server, ServerDied, ServerNotReady, Status

__all__ = [
    "BrokerDied",
    "BrokerNotReady",
    "ClickHouseEndpoint",
    "ClickHouseServer",
    "EmbeddedError",
    "Endpoint",
    "Health",
    "JarRefused",
    "JarUnavailable",
    "KafkaServer",
    "Progress",
    "SandboxServer",
    "Server",
    "ServerDied",
    "ServerNotReady",
    "Status",
    "default_cache",
]
