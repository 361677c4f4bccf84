"""Errors that a user can act on: the command line tells them; any other is a bug, and shows its traceback."""

from infra.embedded import EmbeddedError
from models.sendtime.activity import TooFew
from models.sendtime.model import ModelRefused
from schemas.policy import PolicyError
from schemas.settings import NoConfig
from sinks.clickhouse.client import ClickHouseError
from sinks.key_files import KeyFileRefused
from sinks.registry import RegistryError
from sinks.vault import VaultError
from streams.cluster import NoKafka, PartitionsDiffer
from streams.dead_letters import NoLetter
from streams.engine.kafka import KafkaUnavailable
from streams.engine.sealed import NotReplayable
from streams.event_file import BadEvents
from streams.explain import UnknownRecipient
from streams.lane_room import TrailBehind
from streams.mail import NoRelay, NoSandbox
from streams.model_registry import NothingBefore
from streams.model_trail import NothingLogged
from streams.recording.landing import EverythingRefused
from streams.replay.session import TimeHasPassed
from streams.replay.workers import WorkerDied
from streams.restore import RecorderRuns, WouldLose
from streams.segment_plan import NothingRecorded, NotTheRunning
from streams.web import PortTaken

EXPECTED = (
    EmbeddedError,
    KafkaUnavailable,
    PolicyError,
    PartitionsDiffer,
    NoConfig,
    NoLetter,
    NoRelay,
    TrailBehind,
    NoSandbox,
    VaultError,
    KeyFileRefused,
    ClickHouseError,
    RecorderRuns,
    EverythingRefused,
    WouldLose,
    NotReplayable,
    UnknownRecipient,
    NothingBefore,
    NothingLogged,
    NothingRecorded,
    ModelRefused,
    RegistryError,
    NotTheRunning,
    TimeHasPassed,
    WorkerDied,
    PortTaken,
    BadEvents,
    TooFew,
)


def told(error: Exception) -> str:
    """Text of an expected error, and where to look where Kafka is the reason."""
    if isinstance(error, KafkaUnavailable) and not isinstance(error, NoKafka):
        return f"{error}; `opportune status` shows which Kafka was asked, and whether it answers"
    return str(error)
