"""Up to where a snapshot has read, on a real broker, while a transaction has ended in one partition only."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas import topics
from schemas.profile import LAYOUTS
from streams.engine.journal import Entry
from streams.engine.kafka import Client
from streams.engine.snapshots import FileSnapshots, Place
from tests.support import stack as stacks

pytestmark = pytest.mark.kafka
PATIENCE_S = 30
NOW = 1_700_000_000_000
CHANGELOG = topics.PROFILES.name
JOURNAL = topics.JOURNAL.name
FIGURES = dict.fromkeys(("decided", "withheld", "released", "dropped", "pending"), 0)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with stacks.running(tmp_path_factory.mktemp("bound"), partitions=1) as stack:
        yield stack.client


def writer(client: Client, name: str) -> Producer:
    producer = Producer(client.config(transactional_id=name))
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    return producer


def write_entry(producer: Producer, number: int) -> None:
    entry = Entry(0, number, NOW, 1, "policy", figures=FIGURES)
    producer.produce(JOURNAL, entry.encode(JOURNAL), partition=0)
    producer.flush(PATIENCE_S)


def test_a_cut_whose_rows_are_stable_and_its_journal_entry_is_not_yet_is_waited_for(
    client: Client, tmp_path: Path
) -> None:
    first = writer(client, "first")
    write_entry(first, 1)
    first.commit_transaction()
    # One transaction is written to each partition's log at its own time: here, by two producers.
    rows, entry = writer(client, "rows"), writer(client, "entry")
    rows.produce(CHANGELOG, b"row", b"key", 0)
    write_entry(entry, 2)
    rows.commit_transaction()
    place = Place(client, "app", CHANGELOG, JOURNAL, LAYOUTS, tmp_path, 1_000, 1, 1_000)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(FileSnapshots(place)._bound, 0)
        assert not wait([asked], timeout=2).done
        entry.commit_transaction()
        offset, number = asked.result(PATIENCE_S)
    assert (offset, number) == (2, 2)
