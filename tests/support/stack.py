"""A Kafka of a test's own, and workers as child processes that can be killed and frozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.embedded import KafkaServer
from schemas.settings import Settings
from streams import cluster, control
from streams.engine.control import Clock
from streams.engine.kafka import Client
from streams.replay import completejourney, session
from streams.replay.completejourney import Produced
from tests.support import containers

SESSION_TIMEOUT_S = 6.0
PATIENCE_S = 120.0


@dataclass
class Stack:
    """A broker with its topics, and the workers that run on it."""

    settings: Settings
    client: Client
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)  # of workers, besides the settings

    def start_worker(self, role: str = "decide", **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker; its log is `worker-N.log` in the state folder."""
        log = self.settings.state_dir / f"worker-{len(self.children)}.log"
        with log.open("wb") as out:
            child = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "streams.cli.main", "run", role],
                env=os.environ
                | {
                    "OPPORTUNE_STATE_DIR": str(self.settings.state_dir),
                    "OPPORTUNE_PARTITIONS": str(self.settings.partitions),
                    "OPPORTUNE_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
                }
                | self.environment
                | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.children.append(child)
        return child

    def log(self, child: subprocess.Popen[bytes]) -> str:
        """What a worker has logged."""
        return (self.settings.state_dir / f"worker-{self.children.index(child)}.log").read_text()

    def metrics(self, child: subprocess.Popen[bytes]) -> str:
        """What a worker's metrics page says."""
        started = next(line for line in self.log(child).splitlines() if "worker_started" in line)
        port = json.loads(started[started.index("{") :])["web_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            return str(page.read().decode())

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `opportune COMMAND` on this stack."""
        return subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", "streams.cli.main", *command],
            env=os.environ
            | {
                "OPPORTUNE_STATE_DIR": str(self.settings.state_dir),
                "OPPORTUNE_PARTITIONS": str(self.settings.partitions),
                "COLUMNS": "200",
            }
            | self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def end(self) -> None:
        """Stop all workers: drained if they can, else killed."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def running(folder: Path, partitions: int = 4) -> Iterator[Stack]:
    """A fresh broker, under `folder` or in a container, stopped at the end with everything on it."""
    settings = Settings(state_dir=folder, partitions=partitions)
    environment = {}
    with ExitStack() as ending:
        if containers.chosen():
            brokers = environment["OPPORTUNE_BROKERS"] = ending.enter_context(containers.kafka())
            settings = settings.model_copy(update={"brokers": brokers})
            folder.mkdir(parents=True, exist_ok=True)
        else:
            kafka = KafkaServer(settings.state_dir, settings.cache_dir / "jars")
            ending.callback(kafka.down)
            kafka.up()
        client = cluster.connect(settings)
        cluster.create_topics(client, settings)
        stack = Stack(settings, client, environment=environment)
        ending.callback(stack.end)
        yield stack


def shopping(days: int, households: int) -> tuple[list[Produced], datetime, datetime]:
    """People and behaviour of the first days of 2017."""
    start = datetime(2017, 1, 1, tzinfo=UTC)
    end = start + timedelta(days=days)
    events = completejourney.people(start, end, households) + completejourney.events(start, end, households)
    return events, start, end


def load(stack: Stack, days: int, households: int) -> list[int]:
    """Load history and its plan; returns the plan's end per partition."""
    events, start, end = shopping(days, households)
    _, ends = session.load_history(
        stack.client, stack.settings.partitions, events, start, end, lambda _: None
    )
    return ends


def await_plan(stack: Stack, ends: Sequence[int], check: Callable[[], None] = lambda: None) -> None:
    """Wait until DECIDE has followed a plan to its end."""
    deadline = time.monotonic() + PATIENCE_S

    def watch() -> None:
        check()
        assert time.monotonic() < deadline, "the plan was not followed to its end in time"

    session.follow(stack.client, ends, 0, watch, lambda _: None)


def await_quiet(stack: Stack) -> None:
    """Wait until every record of the sources is in some cut, and the last control change too."""
    from schemas import topics
    from streams.engine import journal
    from streams.engine.kafka import bounds, read_all

    deadline = time.monotonic() + PATIENCE_S
    consumer = stack.client.reader()
    version = bounds(consumer, topics.CONTROL.name, 0)[1]
    waiting = set(range(stack.settings.partitions))
    while waiting:
        assert time.monotonic() < deadline, f"partitions {waiting} did not catch up in time"
        for partition in sorted(waiting):
            last = journal.last_entry(consumer, topics.JOURNAL.name, partition)
            nexts = last[0].next_offsets() if last else {}
            behind = last is None or last[0].control_version < version
            for topic in topics.SOURCES:
                behind |= any(
                    True for _ in read_all(consumer, topic.name, partition, nexts.get(topic.name, 0))
                )
            if not behind:
                waiting.discard(partition)
        time.sleep(0.1)
    consumer.close()


def set_clock(stack: Stack, clock: Clock) -> int:
    """Set the clock of the stack."""
    return control.set_clock(stack.client, clock, "test", "a test")
