"""Quix Streams as its documentation shows it: a stateful function on a streaming dataframe.

Runs in a virtual environment of its own, since its confluent-kafka is an older one.
"""

import os
import sys
from pathlib import Path
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]  # in its own environment

from benchmarks.peers import job


def main(group: str, commit_s: float, state: Path) -> None:
    """Run until told to stop."""
    app = Application(
        broker_address=os.environ["BENCH_BROKERS"],
        consumer_group=group,
        auto_offset_reset="earliest",
        commit_interval=commit_s,
        state_dir=str(state),
        loglevel="WARNING",
        producer_extra_config={"compression.type": "lz4"},
    )
    topic = app.topic(job.TOPIC, key_deserializer="bytes", value_deserializer="bytes")

    def count(value: bytes, state: Any) -> None:
        state.set_bytes("state", job.updated(state.get_bytes("state"), value))

    app.dataframe(topic).update(count, stateful=True)
    app.run()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
