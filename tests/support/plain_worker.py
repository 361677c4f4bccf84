"""A worker as Faust's guide teaches it: an agent, a table in memory with its changelog, an output topic.

Run as `python -m tests.support.plain_worker` with the environment of `tests.support.counting.Setup`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import faust

from tests.support.counting import TROUBLED, Answer, Setup, Troubled, refuse_first_commit

BATCH = 10


def main() -> None:
    setup = Setup()
    if setup.fault == "commit_refused":
        refuse_first_commit()
    app = _app(setup)
    raw: Any = faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    source: Any = app.topic(setup.source, schema=raw)
    outputs: Any = app.topic(setup.outputs, schema=raw)
    _AGENTS[setup.way](app, setup, source, outputs)
    worker: Any = app.Worker(loglevel="info", quiet=True, redirect_stdouts=False)
    worker.execute_from_commandline()


def _app(setup: Setup) -> faust.App:
    return faust.App(
        setup.app,
        broker=f"kafka://{setup.brokers}",
        store="memory://",
        datadir=setup.folder,
        web_enabled=False,
        topic_partitions=setup.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=setup.instance,
        broker_commit_interval=setup.commit_s,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_request_timeout=60.0,
        stream_recovery_delay=0.0,
        stream_wait_empty=False,
    )


def _counts(app: faust.App, setup: Setup) -> Any:
    # By types, not by a schema: a table sets the serializers of its schema to JSON where it is told no type.
    return app.Table("counts", default=int, partitions=setup.partitions, key_type=bytes, value_type=int)


async def _meet_trouble(setup: Setup, kind: bytes) -> None:
    if kind == TROUBLED and setup.fault == "raise":
        raise Troubled
    if kind == TROUBLED and setup.fault == "hang":
        await asyncio.Event().wait()


def _each(app: faust.App, setup: Setup, source: Any, outputs: Any) -> None:
    """One record at a time."""
    counts = _counts(app, setup)

    @app.agent(source)
    async def count(records: Any) -> None:
        async for event in records.events():
            await _meet_trouble(setup, event.value)
            counts[event.key] += 1
            answer = Answer(event.message.partition, event.message.offset, counts[event.key])
            await outputs.send(key=event.key, value=answer.encode(event.value))


def _soon(app: faust.App, setup: Setup, source: Any, outputs: Any) -> None:
    """One record at a time, its output put into the producer's buffer, as the table's changelog always is."""
    counts = _counts(app, setup)

    @app.agent(source)
    async def count(records: Any) -> None:
        async for event in records.events():
            counts[event.key] += 1
            answer = Answer(event.message.partition, event.message.offset, counts[event.key])
            outputs.send_soon(key=event.key, value=answer.encode(event.value))


def _batches(app: faust.App, setup: Setup, source: Any, outputs: Any) -> None:
    """Batches; without a table, which cannot be written in them."""

    @app.agent(source)
    async def count(records: Any) -> None:
        async for events in records.take_events(BATCH, within=0.2):
            for event in events:
                await _meet_trouble(setup, event.value)
            for event in events:
                answer = Answer(event.message.partition, event.message.offset, 0)
                await outputs.send(key=event.key, value=answer.encode(event.value))


def _two_at_once(app: faust.App, setup: Setup, source: Any, outputs: Any) -> None:
    """Two records at once; without a table, which one of the two would write out of order."""

    @app.agent(source, concurrency=2)
    async def count(records: Any) -> None:
        async for event in records.events():
            await _meet_trouble(setup, event.value)
            answer = Answer(event.message.partition, event.message.offset, 0)
            await outputs.send(key=event.key, value=answer.encode(event.value))


_AGENTS = {"each": _each, "soon": _soon, "batches": _batches, "two_at_once": _two_at_once}

if __name__ == "__main__":
    main()
