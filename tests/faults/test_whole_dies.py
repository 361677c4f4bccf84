"""Every process killed at random moments under load: what is left is what the topics and the journal say."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from infra.embedded import ClickHouseServer, SandboxServer, Server
from infra.embedded.process import find, read_child
from schemas import policy_files, topics
from schemas.dispatch import State
from streams.recording import progress
from streams.recording.recorder import GROUP
from streams.replay import completejourney, session
from tests.support import mail, record, whole
from tests.support import stack as stacks
from tests.support.pipeline import decoded, differences
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse, pytest.mark.faults]

ROLES = ("decide", "deliver", "record")
SERVERS: dict[str, type[Server[Any]]] = {"clickhouse": ClickHouseServer, "sandbox": SandboxServer}
SPEED = 1200.0
START = whole.BEGIN + timedelta(hours=12)


def _kill(stack: Stack, what: str, workers: dict[str, int]) -> None:
    """Kill a role's worker or a server, and start it again."""
    if what in ROLES:
        child = stack.children[workers[what]]
        child.kill()
        child.wait()
        stack.start_worker(what)
        workers[what] = len(stack.children) - 1
        return
    recorded = read_child(stack.settings.state_dir / what / "server.json")
    process = find(recorded) if recorded else None
    assert process is not None, what
    process.kill()
    process.wait()
    SERVERS[what](stack.settings.state_dir).up()


def _start_the_ended(stack: Stack, workers: dict[str, int]) -> None:
    """Start a recorder again that found no ClickHouse when it started, as a supervisor does."""
    recorder = stack.children[workers["record"]]
    if recorder.poll() is not None:
        assert "ClickHouse" in stack.log(recorder)
        stack.start_worker("record")
        workers["record"] = len(stack.children) - 1


def _started(stack: Stack, worker: subprocess.Popen[bytes]) -> Callable[[], bool]:
    """Whether a worker drains when it is told to end; before it has partitions there is nothing to drain."""
    return lambda: "line_taken_over" in stack.log(worker)


def _assert_kills_lose_nothing(folder: Path, each: int, apart: float, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - moments of a test, not secrets
    place = whole.eager_policy(folder, "30/hr")
    kills = [*ROLES, *SERVERS] * each
    chance.shuffle(kills)
    hours = round((len(kills) * apart + 8) * SPEED / 3600)
    with whole.running(folder, 2469, 1 + hours // 24) as (stack, house):
        stack.environment["OPPORTUNE_POLICY_DIR"] = str(place)
        end = START + timedelta(hours=hours)
        events = completejourney.people(START, end, None) + completejourney.events(START, end, None)
        workers: dict[str, int] = {}
        for role in ROLES:
            stack.start_worker(role)
            workers[role] = len(stack.children) - 1
        living = Thread(
            target=session.live, args=(stack.client, events, START, end, SPEED, lambda _: None), daemon=True
        )
        living.start()
        mail.await_mail(stack, 3)
        for what in kills:
            time.sleep(apart * (0.5 + chance.random()))
            _kill(stack, what, workers)
        living.join(stacks.PATIENCE_S)
        assert not living.is_alive()
        _start_the_ended(stack, workers)
        stacks.await_quiet(stack)
        mail.await_until("the last outcome", lambda: State.CLAIMED not in mail.states(stack).values())
        recorder = stack.children[workers["record"]]
        for role in ("deliver", "decide"):
            worker = stack.children[workers[role]]
            mail.await_until(role, _started(stack, worker))
            worker.terminate()
            assert worker.wait(60) == 0
        record.await_landed(stack, recorder)

        rules = policy_files.load(place)
        assert differences(stack.client, rules, whole.PARTITIONS) == []
        audit = decoded(stack.client, topics.AUDIT.name, whole.PARTITIONS)
        decided = [a["body"]["decision_id"] for a in audit if "campaign_version" in a["body"]]
        assert [d for d, count in Counter(decided).items() if count > 1] == []
        assert progress.behind(stack.client) == 0
        assert len(mail.mails(stack)) > 3 * len(kills), "there was mail all the time"
        assert max(mail.mails(stack).values()) == 1
        reconciled = stack.run("reconcile")
        assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr
        client = house.connect()
        for table in ("decision", "delivery", "cut"):
            ask = f"SELECT count(), uniqExact(topic, partition, offset) FROM opportune.{table}"  # noqa: S608 - ours
            counts = client.execute(ask)
            assert counts[0][0] == counts[0][1] > 0
        client.close()


@pytest.mark.timeout(400)
def test_one_kill_of_each_process_loses_and_repeats_nothing(tmp_path: Path) -> None:
    _assert_kills_lose_nothing(tmp_path, each=1, apart=3.0, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_five_kills_of_each_process_lose_and_repeat_nothing(tmp_path: Path) -> None:
    _assert_kills_lose_nothing(tmp_path, each=5, apart=3.0, seed=2)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_clickhouse_away_for_three_minutes_under_load_holds_nobody_up(tmp_path: Path) -> None:
    place = whole.eager_policy(tmp_path, "30/hr")
    with whole.running(tmp_path, 2469, 4) as (stack, _):
        stack.environment["OPPORTUNE_POLICY_DIR"] = str(place)
        end = START + timedelta(hours=72)
        events = completejourney.people(START, end, None) + completejourney.events(START, end, None)
        deliver, decide, recorder = (stack.start_worker(role) for role in ("deliver", "decide", "record"))
        living = Thread(
            target=session.live, args=(stack.client, events, START, end, SPEED, lambda _: None), daemon=True
        )
        living.start()
        mail.await_mail(stack, 10)
        server = ClickHouseServer(stack.settings.state_dir)
        server.down()
        away_from, most = time.monotonic(), 0
        while time.monotonic() < away_from + 180:
            assert recorder.poll() is None, "the recorder goes on waiting"
            most = max(most, psutil.Process(recorder.pid).memory_info().rss)
            time.sleep(1)
        assert most < 600 << 20, f"{most >> 20} MiB"
        admin = AdminClient(stack.client.config())  # named: what it promises is never kept once it is gone
        group = admin.describe_consumer_groups([GROUP])[GROUP].result()
        assert len(group.members) == 1, "it has stayed in its group"
        behind = progress.behind(stack.client)
        assert behind > 1000, "there was load"
        server.up()
        living.join(stacks.PATIENCE_S)
        assert not living.is_alive()
        for worker in (deliver, decide):
            worker.terminate()
            assert worker.wait(60) == 0
        record.await_landed(stack, recorder)
        reconciled = stack.run("reconcile")
        assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr
