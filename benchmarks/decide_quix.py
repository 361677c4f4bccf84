"""The reference in Quix Streams: a stateful function on a streaming dataframe, states pickled in RocksDB.

Runs in the environment of `benchmarks.peers.installed`, since its confluent-kafka is an older one; what that
lacks is found in ours, whose packages stand behind.
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

sys.path.append(os.environ["BENCH_PACKAGES"])

from quixstreams import Application, message_context  # type: ignore[import-not-found]  # noqa: E402

from benchmarks.decide_reference import TOPICS, Job  # noqa: E402
from schemas.topics import AUDIT  # noqa: E402


def main(group: str, commit_s: float, partitions: int, folder: Path) -> None:
    """Run until told to stop."""
    app = Application(
        broker_address=os.environ["BENCH_BROKERS"],
        consumer_group=group,
        auto_offset_reset="earliest",
        commit_interval=commit_s,
        state_dir=str(folder),
        loglevel="WARNING",
        producer_extra_config={"compression.type": "lz4"},
    )
    raw = {"key_deserializer": "bytes", "value_deserializer": "bytes"}
    job = Job(partitions)

    def decide(value: bytes, key: bytes, timestamp: int, headers: Any, state: Any) -> list[bytes]:
        context = message_context()
        stored = state.get_bytes("state")
        # The bytes are our own, written by this program into its own state.
        known = None if stored is None else pickle.loads(stored)  # noqa: S301
        new, outputs = job.decide(known, context.topic, context.partition, context.offset, key, value)
        state.set_bytes("state", pickle.dumps(new, pickle.HIGHEST_PROTOCOL))
        return [value for topic, _, value in outputs if topic == AUDIT.name]

    audit = app.topic(AUDIT.name, value_serializer="bytes", key_serializer="bytes")
    streams = [app.dataframe(app.topic(name, **raw)) for name in TOPICS]
    joined = streams[0].concat(streams[1])
    joined.apply(decide, stateful=True, metadata=True, expand=True).to_topic(audit)
    app.run()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
