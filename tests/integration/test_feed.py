"""The feed on a real broker: what is read, from where, and what is held."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from streams.engine import feed as feeds
from streams.engine.feed import Arrived, Feed
from streams.engine.kafka import Client, KafkaUnavailable
from tests.support import stack as stacks

pytestmark = pytest.mark.kafka
PATIENCE_S = 30


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with stacks.running(tmp_path_factory.mktemp("feed"), partitions=2) as stack:
        yield stack.client


@pytest.fixture
def topic(client: Client, request: pytest.FixtureRequest) -> str:
    name = f"of-{abs(hash(request.node.name))}"
    admin = AdminClient(client.config())
    for future in admin.create_topics([NewTopic(name, 2, 1)]).values():
        future.result()
    return name


@pytest.fixture
def feed(client: Client) -> Iterator[Feed]:
    made = Feed(client, lambda: None)
    made.start()
    yield made
    made.close()


def write(client: Client, topic: str, partition: int, values: list[bytes]) -> None:
    producer = Producer(client.config())
    for value in values:
        producer.produce(topic, value, b"key", partition)
    assert producer.flush(PATIENCE_S) == 0


def until(feed: Feed, enough: Callable[[list[Arrived]], bool]) -> list[Arrived]:
    found: list[Arrived] = []
    deadline = time.monotonic() + PATIENCE_S
    while not enough(found):
        assert time.monotonic() < deadline, found
        found += feed.take()
        time.sleep(0.01)
    return found


def values(arrived: list[Arrived], partition: int | None = None) -> list[bytes | None]:
    return [v for a in arrived if partition in (None, a.partition) for v in a.batch.values]


def ended(partition: int) -> Callable[[list[Arrived]], bool]:
    return lambda found: any(a.partition == partition and a.end is not None for a in found)


def test_a_partition_is_read_from_its_offset_to_its_end_and_on(
    client: Client, topic: str, feed: Feed
) -> None:
    write(client, topic, 0, [b"a", b"b", b"c"])
    reading = feed.begin(0, {topic: 1})
    found = until(feed, ended(0))
    assert values(found) == [b"b", b"c"]
    assert {a.reading for a in found} == {reading}
    assert [a.end for a in found if a.end is not None] == [3]
    write(client, topic, 0, [b"d"])
    assert values(until(feed, lambda some: bool(values(some)))) == [b"d"]


def test_a_partition_that_is_read_anew_belongs_to_another_reading(
    client: Client, topic: str, feed: Feed
) -> None:
    write(client, topic, 0, [b"a", b"b"])
    former = feed.begin(0, {topic: 0})
    until(feed, ended(0))
    feed.end([0])
    reading = feed.begin(0, {topic: 0})
    found = [a for a in until(feed, ended(0)) if a.reading == reading]
    assert reading != former
    assert values(found) == [b"a", b"b"]


def test_what_is_held_waits_while_others_go_on_and_comes_whole_later(
    client: Client, topic: str, feed: Feed
) -> None:
    for partition in (0, 1):
        feed.begin(partition, {topic: 0})
    until(feed, lambda found: ended(0)(found) and ended(1)(found))
    feed.hold([(topic, 0)])
    write(client, topic, 1, [b"so that the hold is in force"])
    until(feed, lambda some: bool(values(some, 1)))
    write(client, topic, 0, [b"held"])
    write(client, topic, 1, [b"free"])
    found = until(feed, lambda some: bool(values(some, 1)))
    assert values(found, 0) == []
    feed.go_on([(topic, 0)])
    assert values(until(feed, lambda some: bool(values(some, 0))), 0) == [b"held"]


def test_a_partition_that_was_held_when_its_reading_ended_is_read_again(
    client: Client, topic: str, feed: Feed
) -> None:
    write(client, topic, 0, [b"a"])
    feed.begin(0, {topic: 0})
    until(feed, ended(0))
    feed.hold([(topic, 0)])
    feed.end([0])
    reading = feed.begin(0, {topic: 0})
    found = until(feed, lambda some: any(a.reading == reading and len(a.batch) for a in some))
    assert values([a for a in found if a.reading == reading]) == [b"a"]


def test_aborted_records_are_not_read_and_their_offsets_are_passed(
    client: Client, topic: str, feed: Feed
) -> None:
    producer = Producer(client.config(transactional_id=topic))
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    producer.produce(topic, b"aborted", b"key", 0)
    producer.flush(PATIENCE_S)
    producer.abort_transaction(PATIENCE_S)
    feed.begin(0, {topic: 0})
    found = until(feed, ended(0))
    assert values(found) == []
    assert [a.end for a in found if a.end is not None] == [2], "behind the record and its marker"


def test_an_offset_that_is_not_there_is_an_error(client: Client, topic: str, feed: Feed) -> None:
    feed.begin(0, {topic: 7})
    with pytest.raises(KafkaUnavailable, match="reading the sources"):
        until(feed, lambda _: False)


def test_what_nobody_takes_is_not_read_without_end(
    client: Client, topic: str, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_MOST_UNTAKEN", 1000)
    monkeypatch.setattr(feeds, "_AT_ONCE", 10)
    written = [b"%03d" % n + bytes(97) for n in range(200)]
    write(client, topic, 0, written)
    feed.begin(0, {topic: 0})
    deadline = time.monotonic() + PATIENCE_S
    while feed.untaken < 1000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(20):
        assert feed.untaken <= 1000 + 11 * 103
        time.sleep(0.01)
    assert values(until(feed, ended(0))) == written
