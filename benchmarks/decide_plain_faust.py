"""The reference in plain Faust: an agent, and a table in memory that holds pickled states."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import faust

from benchmarks.decide_reference import TOPICS, Job


def main(group: str, commit_s: float, partitions: int, datadir: Path) -> None:
    """Run until told to stop."""
    app = faust.App(
        group,
        broker=f"kafka://{os.environ['BENCH_BROKERS']}",
        store="memory://",
        topic_partitions=partitions,
        topic_replication_factor=1,
        broker_commit_interval=commit_s,
        web_enabled=False,
        datadir=datadir,
    )
    types: Any = {"key_type": bytes, "value_type": bytes}  # whose serializer is "raw"
    raw: Any = types | {"key_serializer": "raw", "value_serializer": "raw"}
    source = app.topic(*TOPICS, **raw)
    table: Any = app.Table("profiles", partitions=partitions, **types)
    targets: dict[str, Any] = {}
    job = Job(partitions)

    @app.agent(source)
    async def decide(events: Any) -> None:
        async for event in events.events():
            message = event.message
            stored = table.get(event.key)
            state, outputs = job.decide(
                None if stored is None else pickle.loads(stored),  # noqa: S301 - written below
                message.topic,
                message.partition,
                message.offset,
                event.key,
                event.value,
            )
            table[event.key] = pickle.dumps(state, pickle.HIGHEST_PROTOCOL)
            for topic, key, value in outputs:
                target = targets.get(topic) or targets.setdefault(topic, app.topic(topic, **raw))
                await target.send(key=key, value=value)

    worker: Any = app.Worker(loglevel="warning", redirect_stdouts=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
