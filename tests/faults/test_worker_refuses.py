"""What a worker must not go on with: it ends, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from schemas import topics
from schemas.profile import ROW_VERSION, empty
from streams.engine.partitioner import partition_of
from streams.replay import load as loading
from tests.support import stack as stacks
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

EX_SOFTWARE = 70


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with stacks.running(tmp_path, partitions=2) as running:
        yield running


def _write_row(stack: Stack, value: bytes) -> None:
    producer = loading.producer(stack.client)
    producer.produce(topics.PROFILES.name, value, b"ann", partition_of(b"ann", 2))
    producer.flush()


def test_a_row_of_a_newer_version_ends_the_worker(stack: Stack) -> None:
    row = empty(1)
    row["version"] = ROW_VERSION + 1
    _write_row(stack, row.tobytes())
    worker = stack.start_worker()
    assert worker.wait(stacks.PATIENCE_S) == EX_SOFTWARE
    assert "deploy the newer program" in stack.log(worker)


def test_a_changelog_record_that_is_no_row_ends_the_worker(stack: Stack) -> None:
    _write_row(stack, np.zeros(3, np.uint8).tobytes())
    worker = stack.start_worker()
    assert worker.wait(stacks.PATIENCE_S) == EX_SOFTWARE
    assert "ChangelogDamaged" in stack.log(worker)


def test_records_lost_to_retention_end_the_worker_and_are_never_skipped(stack: Stack) -> None:
    ends = stacks.load(stack, days=3, households=30)
    first = stack.start_worker()
    stacks.await_plan(stack, ends)
    first.kill()
    first.wait()
    more = loading.producer(stack.client)
    for _ in range(10):
        more.produce(topics.CLICKS.name, b"late", b"ann", 0)
    more.flush()
    admin = AdminClient(stack.client.config())
    for future in admin.delete_records([TopicPartition(topics.CLICKS.name, 0, -1)]).values():
        future.result()

    second = stack.start_worker()
    assert second.wait(stacks.PATIENCE_S) == EX_SOFTWARE
    assert "records were lost" in stack.log(second)
