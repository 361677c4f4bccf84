"""Servers that run from PyPI packages alone: no Docker, no system Java, no root.

EmbeddedError
+-- BrokerDied        ended before it answered: read the log tail, remove the cause, `up` again
+-- BrokerNotReady    runs, does not answer: `up` waits again, `down` ends it
+-- JarRefused        not the pinned jar: delete the file that is named
+-- JarUnavailable    cannot be fetched: network, proxy or mirror; what was fetched is kept
"""

from infra.embedded.jars import JarRefused, JarUnavailable, default_cache
from infra.embedded.kafka import BrokerDied, BrokerNotReady, Endpoint, Health, KafkaServer, Status
from infra.embedded.process import EmbeddedError, Progress

__all__ = [
    "BrokerDied",
    "BrokerNotReady",
    "EmbeddedError",
    "Endpoint",
    "Health",
    "JarRefused",
    "JarUnavailable",
    "KafkaServer",
    "Progress",
    "Status",
    "default_cache",
]
