"""A ClickHouse beside a test's Kafka, recorders on it, and audit records made by hand."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from confluent_kafka import Message

from infra.embedded import ClickHouseServer
from schemas import codec, topics
from sinks.clickhouse.insert import insert
from streams import reading, warehouse
from streams.engine.cut import Out
from streams.recording import progress
from streams.recording.batch import Batch
from streams.recording.rows import rows_of
from streams.warehouse import Warehouse
from tests.support import containers
from tests.support.stack import PATIENCE_S, Stack

AT = 1_486_000_000_000  # 2017-02-02
VIEWS = (
    *("decision", "release", "closure", "delivery", "consent", "segment_transition"),
    *("cut", "dlq", "profile_snapshot", "activity"),
)
_REPLACED = ("profile_snapshot", "activity")  # views whose rows are told again and again


def unnamed(version: int) -> dict[int, str]:
    """Names of no segments: `SegmentNames` where nobody looks at them."""
    return {}


@contextmanager
def clickhouse(stack: Stack) -> Iterator[Warehouse]:
    """A fresh ClickHouse, in the stack's folder or in a container, with its tables, stopped at the end."""
    with ExitStack() as ending:
        if containers.chosen():
            address = ending.enter_context(containers.clickhouse())
            stack.environment["OPPORTUNE_CLICKHOUSE"] = address
            stack.settings = stack.settings.model_copy(update={"clickhouse": address})
        else:
            server = ClickHouseServer(stack.settings.state_dir)
            ending.callback(server.down)
            server.up()
        house = warehouse.connect(stack.settings)
        house.migrate()
        yield house


def await_landed(stack: Stack, recorder: subprocess.Popen[bytes]) -> None:
    """Wait until everything on the topics is committed by the recorder."""
    deadline = time.monotonic() + PATIENCE_S

    def check() -> None:
        assert recorder.poll() is None, stack.log(recorder)[-3000:]
        assert time.monotonic() < deadline, stack.log(recorder)[-3000:]

    while "partitions_assigned" not in stack.log(
        recorder
    ):  # a group that is being made has no coordinator yet
        check()
        time.sleep(0.1)
    progress.await_landed(stack.client, check, lambda: time.sleep(0.2))


def land_profiles(house: Warehouse, profiles: Mapping[bytes, bytes | None], first: int = 0) -> None:
    """Insert rows of recipients as RECORD does; the record of the first of them has the offset `first`."""
    name, written = topics.PROFILES.name, (2, time.time_ns() // 1_000_000)
    messages = [
        Message(topic=name, partition=0, offset=place, key=key, value=value, timestamp=written)
        for place, (key, value) in enumerate(profiles.items(), first)
    ]
    blocks, bad = rows_of(Batch(name, "id", 0, messages), unnamed)
    assert not bad
    client = house.connect()
    for block in blocks:
        insert(client, house.stored, block)
    client.close()


def contents(house: Warehouse) -> dict[str, list[Any]]:
    """Every view's rows without when they came, in an order of their own."""
    client = house.connect()
    found = {}
    for view in VIEWS:
        rows = client.execute(f"SELECT * EXCEPT ingested_at FROM {house.views}.{view}")  # noqa: S608 - our views
        found[view] = sorted(rows, key=repr)
    client.close()
    return found


def stored_twice(house: Warehouse) -> int:
    """Rows that the tables hold beyond those of the views."""
    client = house.connect()
    names = [view for view in VIEWS if view not in _REPLACED]
    extra = sum(
        client.execute(f"SELECT count() FROM {house.stored}.{name}")[0][0]  # noqa: S608 - our tables
        - client.execute(f"SELECT count() FROM {house.views}.{name}")[0][0]  # noqa: S608 - our views
        for name in names
    )
    client.close()
    return int(extra)


def delivery(number: int, recipient: str, **changed: Any) -> dict[str, Any]:
    """An audit record of DELIVER."""
    dispatch = uuid.uuid5(uuid.NAMESPACE_DNS, f"dispatch {number}")
    body = {
        "delivery_event_id": str(uuid.uuid5(dispatch, "event")),
        "dispatch_id": str(dispatch),
        "decision_id": str(uuid.uuid5(dispatch, "decision")),
        "campaign": "win_back",
        "lane": "gmail",
        "kind": ("delivered", "bounced", "deferred")[number % 3],
        "attempt": 1,
        "occurred_at": AT + number,
        "code": (250, 550, None)[number % 3],
        "detail": ("2.0.0 OK", "5.1.1 no such user \u2713", None)[number % 3],
        "permanent": number % 3 == 1,
        "template": None if number % 2 else "win_back@abc",
    }
    return {
        "recipient_id": recipient,
        "partition": 0,
        "cut": number,
        "at": AT + number,
        "control_version": 0,
        "line": "deliver",
        "body": ("opportune.Delivery", body | changed),
    }


def closure(number: int, recipient: str) -> dict[str, Any]:
    """An audit record of DECIDE that closes the same dispatch."""
    fields = delivery(number, recipient)
    kept = {key: fields["body"][1][key] for key in ("dispatch_id", "decision_id", "campaign")}
    return fields | {"line": "decide", "body": ("opportune.Closure", kept | {"reason": "confirmed"})}


def write_audit(stack: Stack, records: Sequence[dict[str, Any]]) -> list[int]:
    """Put audit records on their topic; returns their offsets."""
    name = topics.AUDIT.name
    outs = [Out(name, r["recipient_id"].encode(), codec.encode(name, r)) for r in records]
    return reading.produce(stack.client, outs)
