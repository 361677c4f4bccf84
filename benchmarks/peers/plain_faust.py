"""Faust as its documentation shows it: an agent, a table in memory, one assignment an event."""

import os
import sys
from pathlib import Path
from typing import Any

import faust

from benchmarks.peers import job


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
    raw: Any = {"key_type": bytes, "value_type": bytes}  # whose serializer is "raw"
    topic = app.topic(job.TOPIC, key_serializer="raw", value_serializer="raw", **raw)
    table: Any = app.Table("state", partitions=partitions, **raw)

    @app.agent(topic)
    async def count(clicks: Any) -> None:
        async for key, value in clicks.items():
            table[key] = job.updated(table.get(key), value)

    worker: Any = app.Worker(loglevel="warning", redirect_stdouts=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
