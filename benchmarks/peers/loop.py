"""A loop written by hand over confluent-kafka: a batch, a dict, a changelog, a flush, a commit.

What it saves: no recovery, no rebalancing, nothing due.
"""

import os
import sys
from typing import Final

from confluent_kafka import Consumer, KafkaException, Producer

from benchmarks.peers import job

_BATCH: Final = 10_000


def main(group: str, changelog: str, *options: str) -> None:
    """Run until told to stop; options are `name=value` of librdkafka's consumer."""
    brokers = {"bootstrap.servers": os.environ["BENCH_BROKERS"], "log_level": 2}
    consumer = Consumer(
        {
            **brokers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            **dict(option.split("=", 1) for option in options),
        }
    )
    producer = Producer({**brokers, "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000})
    consumer.subscribe([job.TOPIC])
    states: dict[bytes, bytes] = {}
    while True:
        changed: dict[bytes, int] = {}
        for message in consumer.consume(_BATCH, 0.1):
            if message.error() is not None:
                raise KafkaException(message.error())
            key, value = bytes(message.key() or b""), bytes(message.value() or b"")
            states[key] = job.updated(states.get(key), value)
            changed[key] = message.partition() or 0
        for key, partition in changed.items():
            producer.produce(changelog, states[key], key, partition)
        if changed:
            producer.flush()
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
