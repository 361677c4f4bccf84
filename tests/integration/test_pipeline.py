"""The decide line on a real Kafka, from events to decisions that can be accounted for."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas import codec, topics
from streams.engine.control import Clock
from streams.engine.partitioner import partition_of
from streams.policy import load_policy
from streams.replay import load as loading
from tests.support import stack as stacks
from tests.support.pipeline import decoded, differences
from tests.support.stack import Stack

pytestmark = pytest.mark.kafka

NOW = 1_700_000_000_000


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with stacks.running(tmp_path) as running:
        yield running


def _produce(producer: Producer, topic: str, who: str, at: int, **fields: Any) -> None:
    record = {"recipient_id": who, "event_id": None, "occurred_at": at, **fields}
    producer.produce(topic, codec.encode(topic, record), who.encode())


def _stand_still(stack: Stack, at: int) -> None:
    """A clock that shows one moment."""
    stacks.set_clock(stack, Clock("scaled", at, 0, 0.0))


def test_a_small_replay_is_accounted_for_and_equals_the_reference(stack: Stack) -> None:
    ends = stacks.load(stack, days=12, households=120)
    stack.start_worker()
    stack.start_worker()
    stacks.await_plan(stack, ends)

    assert differences(stack.client, load_policy(stack.settings), 4) == []
    reconciled = stack.run("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout
    decisions = [a for a in decoded(stack.client, topics.AUDIT.name, 4) if "campaign_version" in a["body"]]
    outcomes = Counter(decision["body"]["outcome"] for decision in decisions)
    assert outcomes["scheduled"] > 20
    assert outcomes["withheld"] > 20

    explained = stack.run("explain", decisions[-1]["recipient_id"], "--json")
    assert explained.returncode == 0, explained.stderr
    assert decisions[-1]["body"]["decision_id"] in explained.stdout
    unknown = stack.run("explain", "nobody")
    assert unknown.returncode == 1
    assert "nobody" in unknown.stderr


def test_reconcile_notices_a_command_that_no_decision_stands_behind(stack: Stack) -> None:
    ends = stacks.load(stack, days=5, households=40)
    stack.start_worker()
    stacks.await_plan(stack, ends)
    commands = decoded(stack.client, topics.COMMANDS.name, 4)
    producer = loading.producer(stack.client)
    value = codec.encode(topics.COMMANDS.name, commands[0])
    producer.produce(topics.COMMANDS.name, value, b"gmail")
    producer.flush()

    reconciled = stack.run("reconcile", "--json")
    assert reconciled.returncode == 1
    assert commands[0]["decision_id"] in json.dumps(json.loads(reconciled.stdout)["discrepancies"])


def test_a_producer_with_default_settings_loses_nothing(stack: Stack) -> None:
    _stand_still(stack, NOW)
    producer = Producer({"bootstrap.servers": stack.client.brokers})
    people = [f"person-{number}" for number in range(60)]
    for who in people:
        for purpose in ("mail", "profiling"):
            _produce(producer, topics.CONSENT.name, who, NOW, purpose=purpose, state="granted", version=1)
        for minute in range(5):
            _produce(producer, topics.CLICKS.name, who, NOW - minute * 60_000, kind="view")
        _produce(producer, topics.PURCHASES.name, who, NOW, amount=25_000)
    producer.flush()
    worker = stack.start_worker()
    stacks.await_quiet(stack)

    totals: Counter[str] = Counter()
    for entry in decoded(stack.client, topics.JOURNAL.name, 4):
        for tally in entry["topics"]:
            totals.update({name: count for name, count in tally.items() if isinstance(count, int)})
    assert totals["rekeyed"] > 60, (
        "the default partitioner is not Java's: most keys stand on a wrong partition"
    )
    assert totals["consumed"] == 60 * 8 + totals["rekeyed"]
    assert totals["no_trigger"] + totals["decided"] == 60 * 8
    assert totals["dead_lettered"] == 0
    decisions = [
        a["recipient_id"]
        for a in decoded(stack.client, topics.AUDIT.name, 4)
        if "campaign_version" in a["body"]
    ]
    assert 'opportune_events_total{fate="decided",topic="behaviour.purchases"} 60.0' in stack.metrics(worker)
    assert Counter(decisions) == Counter(people), "each purchase above the audience's line is one decision"
    assert stack.run("reconcile").returncode == 0
    assert differences(stack.client, load_policy(stack.settings), 4) == []


def test_what_cannot_be_handled_is_kept_whole_and_comes_back_when_driven_again(stack: Stack) -> None:
    _stand_still(stack, NOW)
    who = "somebody"
    home, away = partition_of(who.encode(), 4), (partition_of(who.encode(), 4) + 1) % 4
    producer = Producer({"bootstrap.servers": stack.client.brokers})
    topic = topics.CLICKS.name
    fields = {"recipient_id": who, "event_id": None, "occurred_at": NOW, "kind": "view"}
    good = codec.encode(topic, fields)
    early = codec.encode(topic, fields | {"occurred_at": NOW + 10 * 60_000})
    producer.produce(topic, good[:-2], who.encode(), home)
    producer.produce(topic, b"\x00\x00\x00\x03\xe7" + good[5:], who.encode(), home)
    producer.produce(topic, good, b"somebody-else", home)
    producer.produce(topic, early, who.encode(), home)
    producer.produce(
        topic, codec.encode(topic, fields | {"occurred_at": NOW - 36 * 86_400_000}), who.encode(), home
    )
    producer.produce(topic, b"\x00" * (topics.MAX_RECORD_BYTES + 1), who.encode(), home)
    producer.produce(topic, good, who.encode(), away, headers=[("rekeyed", b"1")])
    producer.produce(topic, good, who.encode(), home)
    producer.flush()
    stack.start_worker()
    stacks.await_quiet(stack)

    letters = decoded(stack.client, topics.DEAD_LETTERS.name, 4)
    assert sorted(letter["reason"] for letter in letters) == sorted(
        [
            "malformed",
            "unknown_schema",
            "key_mismatch",
            "too_early",
            "too_late",
            "oversized",
            "misrouted_twice",
        ]
    )
    assert {letter["value"] for letter in letters if letter["reason"] == "too_early"} == {early}
    listed = stack.run("dead-letters", "list")
    assert listed.returncode == 0
    assert "misrouted_twice" in listed.stdout

    _stand_still(stack, NOW + 3_600_000)
    redriven = stack.run("dead-letters", "redrive", "--reason", "too_early", "--yes")
    assert redriven.returncode == 0, redriven.stderr
    stacks.await_quiet(stack)
    assert len(decoded(stack.client, topics.DEAD_LETTERS.name, 4)) == 7, "this time it was handled"
    again = stack.run("dead-letters", "redrive", "--reason", "too_early", "--yes")
    assert again.returncode == 0, again.stderr
    stacks.await_quiet(stack)
    filtered = sum(
        tally["filtered"] for e in decoded(stack.client, topics.JOURNAL.name, 4) for tally in e["topics"]
    )
    assert filtered == 1, "driven again a second time it is known as a repeat"
    assert stack.run("reconcile").returncode == 0
    assert differences(stack.client, load_policy(stack.settings), 4) == []


def test_records_made_to_break_a_worker_become_dead_letters(stack: Stack) -> None:
    _stand_still(stack, NOW)
    topic, who = topics.CLICKS.name, "somebody"
    good = codec.encode(topic, {"recipient_id": who, "event_id": None, "occurred_at": NOW, "kind": "view"})
    producer = Producer(
        {
            "bootstrap.servers": stack.client.brokers,
            "compression.type": "gzip",
            "message.max.bytes": 20_000_000,
        }
    )
    headers: Any = [("origin-topic", b"x"), ("origin-partition", None), ("rekeyed", None)]
    home = partition_of(who.encode(), 4)
    producer.produce(topic, good, who.encode(), home, headers=headers)
    # The broker limits batches as they are compressed, so this one passes.
    producer.produce(topic, bytes(8 * 1024 * 1024), who.encode(), home)
    producer.produce(topic, codec.header(codec.current_id(topic)) + b"\xff" * 30, who.encode(), home)
    producer.produce(topic, good, who.encode(), home)
    producer.flush()
    worker = stack.start_worker()
    stacks.await_quiet(stack)

    assert worker.poll() is None, stack.log(worker)
    letters = {letter["reason"]: letter for letter in decoded(stack.client, topics.DEAD_LETTERS.name, 4)}
    assert set(letters) == {"oversized", "malformed"}
    assert len(letters["oversized"]["value"]) == topics.MAX_RECORD_BYTES
    assert "sha256" in letters["oversized"]["error"]
    assert stack.run("reconcile").returncode == 0
    assert differences(stack.client, load_policy(stack.settings), 4) == []
    stack.end()
    assert stack.run("verify").returncode == 0


def test_nothing_is_released_while_paused_and_what_is_due_goes_when_resumed(stack: Stack) -> None:
    _stand_still(stack, NOW)
    producer = loading.producer(stack.client)
    people = [f"person-{number}" for number in range(12)]
    for who in people:
        for purpose in ("mail", "profiling"):
            _produce(producer, topics.CONSENT.name, who, NOW, purpose=purpose, state="granted", version=1)
    producer.flush()
    for who in people:
        _produce(producer, topics.PURCHASES.name, who, NOW, amount=25_000)
    producer.flush()
    stack.start_worker()
    stacks.await_quiet(stack)
    decisions = [
        a["body"] for a in decoded(stack.client, topics.AUDIT.name, 4) if "campaign_version" in a["body"]
    ]
    assert [body["reason"] for body in decisions] == ["scheduled"] * 12
    latest = max(body["due_at"] for body in decisions)

    assert stack.run("pause", "--why", "a test").returncode == 0
    _stand_still(stack, latest + 60_000)
    stacks.await_quiet(stack)
    time.sleep(2.5)  # longer than the second that passes between cuts made because something is due
    assert decoded(stack.client, topics.COMMANDS.name, 4) == []

    assert stack.run("resume", "--why", "a test").returncode == 0
    stacks.await_quiet(stack)
    released = {command["decision_id"] for command in decoded(stack.client, topics.COMMANDS.name, 4)}
    withheld = {
        a["body"]["decision_id"]
        for a in decoded(stack.client, topics.AUDIT.name, 4)
        if a["body"].get("outcome") == "withheld" and "dispatch_id" in a["body"]
    }
    assert released
    assert released | withheld == {body["decision_id"] for body in decisions}
    assert differences(stack.client, load_policy(stack.settings), 4) == []


def test_withdrawn_consent_recalls_what_was_released_and_cancels_what_waits(stack: Stack) -> None:
    _stand_still(stack, NOW)
    producer = loading.producer(stack.client)
    for who in ("early", "waiting"):
        for purpose in ("mail", "profiling"):
            _produce(producer, topics.CONSENT.name, who, NOW, purpose=purpose, state="granted", version=1)
    producer.flush()
    _produce(producer, topics.PURCHASES.name, "early", NOW, amount=25_000)
    producer.flush()
    stack.start_worker()
    stacks.await_quiet(stack)
    (decision,) = [
        a["body"] for a in decoded(stack.client, topics.AUDIT.name, 4) if "campaign_version" in a["body"]
    ]
    _stand_still(stack, decision["due_at"] + 1)
    stacks.await_quiet(stack)
    (command,) = decoded(stack.client, topics.COMMANDS.name, 4)
    _produce(producer, topics.PURCHASES.name, "waiting", decision["due_at"], amount=25_000)
    producer.flush()
    stacks.await_quiet(stack)

    for who in ("early", "waiting"):
        _produce(
            producer,
            topics.CONSENT.name,
            who,
            decision["due_at"],
            purpose="mail",
            state="withdrawn",
            version=2,
        )
    producer.flush()
    stacks.await_quiet(stack)
    (recall,) = decoded(stack.client, topics.RECALLS.name, 4)
    assert recall["dispatch_id"] == command["dispatch_id"]
    assert recall["lane"] == command["lane"]
    cancelled = [
        a
        for a in decoded(stack.client, topics.AUDIT.name, 4)
        if a["body"].get("reason") == "withdrawn" and "lane" in a["body"]
    ]
    assert [a["recipient_id"] for a in cancelled] == ["waiting"]
    assert stack.run("reconcile").returncode == 0
    assert differences(stack.client, load_policy(stack.settings), 4) == []
