"""DELIVER by itself: commands as DECIDE writes them, the sandbox's record, and how it all must balance."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import infra
from infra.embedded import SandboxServer
from infra.embedded.process import find, read_child
from schemas import codec, topics
from schemas.dispatch import DISPATCH, State
from sinks.vault import Contact
from sinks.vault.sqlite import SqliteVault
from streams import reading
from streams.engine.cut import Out
from streams.engine.kafka import read_all
from tests.support import stack as stacks
from tests.support.pipeline import decoded
from tests.support.stack import PATIENCE_S, Stack

HOUR = 3_600_000
PARTITIONS = 4


@contextmanager
def running(folder: Path, recipients: int, *, lanes: str = "", policy: Path | None = None) -> Iterator[Stack]:
    """A broker, a sandbox, and a vault in which recipients `r0`, `r1`, … have addresses.

    With lanes of its own, or a policy of its own.
    """
    if policy is None:
        policy = folder / "policy"
        shutil.copytree(Path(infra.__file__).parent / "policy", policy)
        (policy / "lanes.toml").write_text(lanes)
    with stacks.running(folder, PARTITIONS) as stack:
        sandbox = SandboxServer(folder)
        sandbox.up()
        vault = SqliteVault.create(stack.settings.vault_path, stack.settings.vault_key_path)
        vault.put_many(Contact(f"r{i}", f"person{i}@mail.example", {}) for i in range(recipients))
        vault.close()
        stack.environment["OPPORTUNE_POLICY_DIR"] = str(policy)
        try:
            yield stack
        finally:
            stack.end()
            sandbox.down()


def command(lane: str, recipient: int, **more: Any) -> dict[str, Any]:
    """A command released now for one recipient."""
    now = time.time_ns() // 1_000_000
    decision = str(uuid.uuid4())
    return {
        "dispatch_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, decision)),
        "decision_id": decision,
        "recipient_id": f"r{recipient}",
        "campaign": "win_back",
        "template": "win_back",
        "purpose": "mail",
        "channel": "mail",
        "lane": lane,
        "due_at": now,
        "released_at": now,
        "expires_at": now + HOUR,
        "history": False,
    } | more


def recall(of: Mapping[str, Any]) -> dict[str, Any]:
    """The recall of a command."""
    now = time.time_ns() // 1_000_000
    same = {name: of[name] for name in ("dispatch_id", "recipient_id", "lane", "expires_at")}
    return same | {"reason": "withdrawn", "recalled_at": now}


def produce(stack: Stack, topic: str, records: list[dict[str, Any]]) -> None:
    """Write commands or recalls as DECIDE does."""
    reading.produce(
        stack.client, [Out(topic, each["lane"].encode(), codec.encode(topic, each)) for each in records]
    )


def received(stack: Stack) -> list[dict[str, Any]]:
    """What the sandbox says that it was given."""
    path = stack.settings.state_dir / "sandbox" / "received.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def mails(stack: Stack) -> Counter[str]:
    """How many `.eml` there are of each dispatch."""
    return mails_in(SandboxServer(stack.settings.state_dir).folder)


def mails_in(folder: Path) -> Counter[str]:
    """How many `.eml` a sandbox has of each dispatch."""
    return Counter(path.name.split(".")[0] for path in (folder / "mail").rglob("*.eml"))


def kill_sandbox(sandbox: SandboxServer) -> None:
    """End a sandbox as kill -9 does."""
    child = read_child(sandbox.folder / "server.json")
    process = find(child) if child else None
    assert process is not None
    process.kill()
    process.wait()


def states(stack: Stack) -> dict[str, State]:
    """Where each dispatch stands, by the changelog of DELIVER's table."""
    consumer = stack.client.reader()
    found: dict[str, State] = {}
    for partition in range(stack.settings.partitions):
        for record in read_all(consumer, topics.DISPATCHES.name, partition):
            row = np.frombuffer(record.value or bytes(DISPATCH.itemsize), DISPATCH)[0]
            found[(record.key or b"").decode()] = State(int(row["state"]))
    consumer.close()
    return found


def outcomes(stack: Stack) -> list[dict[str, Any]]:
    """Every audit record of DELIVER."""
    audit = decoded(stack.client, topics.AUDIT.name, stack.settings.partitions)
    return [record["body"] | {"at": record["at"]} for record in audit if record["line"] == "deliver"]


def await_until(what: str, done: Callable[[], bool], patience: float = PATIENCE_S) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + patience
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come in time"
        time.sleep(0.2)


def await_mail(stack: Stack, more_than: int) -> None:
    """Wait until the sandbox was given more than so many messages."""
    await_until("mail", lambda: len(received(stack)) > more_than)


def put_off(stack: Stack) -> set[str]:
    """Dispatches that a server could not take just then: they are tried again in minutes."""
    deferred = {each["dispatch_id"] for each in outcomes(stack) if each["kind"] == "deferred"}
    return {dispatch for dispatch, state in states(stack).items() if state == State.WAITING} & deferred


def await_ended(stack: Stack, dispatches: set[str], patience: float = PATIENCE_S) -> None:
    """Wait until all of these dispatches have ended."""
    open_states = (State.AWAITED, State.WAITING, State.CLAIMED)

    def ended() -> bool:
        found = states(stack)
        return all(dispatch in found and found[dispatch] not in open_states for dispatch in dispatches)

    await_until("the end of every dispatch", ended, patience)


def most_within(times: list[int], width_ms: int) -> int:
    """The most of these times that lie in any stretch of a width."""
    ordered = sorted(times)
    return max((bisect_right(ordered, at + width_ms - 1) - i for i, at in enumerate(ordered)), default=0)
