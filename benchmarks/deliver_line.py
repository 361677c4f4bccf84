"""What the suites about DELIVER share: a worker with all it needs, its commands, and its outcomes."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from confluent_kafka import TopicPartition

import infra
from benchmarks import rig
from benchmarks.decide_events import Record
from benchmarks.rig import Bench, Launch, PeerFailed
from schemas import codec, topics
from schemas.settings import Settings
from sinks.vault import Contact
from sinks.vault.sqlite import SqliteVault
from streams.agents.deliver import APP
from streams.engine.kafka import Client
from streams.engine.partitioner import partition_of

CONNECTIONS: Final = 20
_RECIPIENTS: Final = 5_000
_SPREAD: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835


def prepared(bench: Bench, folder: Path, lanes: str) -> dict[str, str]:
    """Make a state folder with a vault, and the packaged policy with other lanes; the settings for both."""
    settings = Settings(state_dir=folder)
    settings.vault_path.parent.mkdir(parents=True)
    vault = SqliteVault.create(settings.vault_path, settings.vault_key_path)
    vault.put_many(
        Contact(f"recipient-{n}", f"person.{n}@mail.example", {"first_name": "Jane"})
        for n in range(_RECIPIENTS)
    )
    vault.close()
    policy = folder / "policy"
    shutil.copytree(Path(infra.__file__).parent / "policy", policy)
    (policy / "lanes.toml").unlink()
    (policy / "lanes.toml").write_text(lanes)
    return {
        "OPPORTUNE_BROKERS": bench.client.brokers,
        "OPPORTUNE_STATE_DIR": str(folder),
        "OPPORTUNE_PARTITIONS": str(rig.PARTITIONS),
        "OPPORTUNE_POLICY_DIR": str(policy),
    }


def worker(settings: dict[str, str]) -> Launch:
    """A worker of ours as in production."""
    command = [sys.executable, "-m", "streams.cli.main", "run", "deliver"]
    return Launch(command, APP, (topics.DISPATCHES.name,), settings)


def dispatch_id(number: int) -> str:
    """The id of a dispatch with this number; those of all numbers are evenly spread."""
    return str(UUID(int=number * _SPREAD % 2**128))


def command(number: int, lane: str, expires_at: int) -> Record:
    """The command of a dispatch with this number."""
    key, now = lane.encode(), time.time_ns() // 1_000_000
    fields = {
        "dispatch_id": dispatch_id(number),
        "decision_id": dispatch_id(number),
        "recipient_id": f"recipient-{number % _RECIPIENTS}",
        "campaign": "post_purchase",
        "template": "post_purchase",
        "purpose": "mail",
        "channel": "mail",
        "lane": lane,
        "due_at": now,
        "released_at": now,
        "expires_at": expires_at,
        "history": False,
    }
    value = codec.encode(topics.COMMANDS.name, fields)
    return Record(topics.COMMANDS.name, partition_of(key, rig.PARTITIONS), key, value)


class Outcomes:
    """How many outcomes can be read, of the kinds that are expected; any other raises `PeerFailed`."""

    def __init__(self, client: Client, expected: set[str]) -> None:
        self._expected = expected
        self._consumer = client.follower()
        self._consumer.assign([TopicPartition(topics.DELIVERY.name, p, 0) for p in range(rig.PARTITIONS)])
        self.kinds: Counter[tuple[str, str]] = Counter()  # and providers

    @property
    def done(self) -> int:
        """How many there are by now."""
        return self.kinds.total()

    def __call__(self) -> Sequence[int]:
        """Read what has come; the number of all that have."""
        for message in self._consumer.consume(10_000, 0):
            if message.error() is None:
                told = codec.decode(topics.DELIVERY.name, bytes(message.value() or b""))
                if told["kind"] not in self._expected:
                    raise PeerFailed(f"a message was {told['kind']}: {told['detail']}")
                self.kinds[told["kind"], told["provider"]] += 1
        return [self.done]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()
