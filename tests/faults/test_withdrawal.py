"""Consent withdrawn while messages are pending, released and queued: nothing goes later."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from schemas import codec, topics
from schemas.dispatch import State
from streams import reading
from streams.engine.control import Clock
from streams.engine.cut import Out
from tests.support import mail, whole
from tests.support import stack as stacks
from tests.support.pipeline import decoded
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

SPEED = 1200.0
START_MS = round(whole.BEGIN.timestamp() * 1000) + 18 * 3_600_000
NOT_LATER_MS = 2000


def _produce(stack: Stack, topic: str, who: range, **fields: Any) -> None:
    """One record for each recipient; returns when Kafka has acknowledged all."""
    records = [
        Out(
            topic, f"r{i}".encode(), codec.encode(topic, {"recipient_id": f"r{i}", "event_id": None} | fields)
        )
        for i in who
    ]
    reading.produce(stack.client, records)


def _withdrawn_under_load(folder: Path, people: int, withdrawing: int) -> None:
    place = whole.eager_policy(folder, "90/hr")
    with mail.running(folder, people, policy=place) as stack:
        wall = time.time_ns() // 1_000_000
        stacks.set_clock(stack, Clock("scaled", START_MS, wall, SPEED))
        everybody, some = range(people), range(withdrawing)
        consent = {"purpose": "mail", "source": "test"}
        _produce(
            stack, topics.CONSENT.name, everybody, occurred_at=START_MS, state="granted", version=1, **consent
        )
        stack.start_worker("decide")
        stack.start_worker("deliver")
        purchase = {"occurred_at": START_MS, "amount": 100, "currency": "USD", "items": 1}
        nothing = dict.fromkeys(("order_id", "place", "campaign", "dispatch_id"))
        _produce(stack, topics.PURCHASES.name, everybody, **purchase, **nothing)
        mail.await_mail(stack, 30)
        for_all = [a["body"] for a in decoded(stack.client, topics.AUDIT.name, whole.PARTITIONS)]
        scheduled = [body for body in for_all if body.get("outcome") == "scheduled"]
        assert len(scheduled) == people

        moment = START_MS + round((time.time_ns() // 1_000_000 - wall) * SPEED)
        _produce(
            stack, topics.CONSENT.name, some, occurred_at=moment, state="withdrawn", version=2, **consent
        )
        acknowledged = time.time_ns() // 1_000_000
        stacks.await_quiet(stack)
        commands = decoded(stack.client, topics.COMMANDS.name, whole.PARTITIONS)
        mail.await_until(
            "all mail",
            lambda: (
                mail.states(stack).keys() >= {c["dispatch_id"] for c in commands}
                and State.CLAIMED not in mail.states(stack).values()
            ),
        )

        gone = {f"r{i}" for i in some}
        whose = {c["dispatch_id"]: c["recipient_id"] for c in decoded(stack.client, topics.COMMANDS.name, 4)}
        late = [
            each
            for each in mail.received(stack)
            if whose[each["dispatch_id"]] in gone and each["at"] > acknowledged + NOT_LATER_MS
        ]
        assert late == []
        audit = decoded(stack.client, topics.AUDIT.name, whole.PARTITIONS)
        ends = Counter[str]()
        for record in audit:
            body = record["body"]
            if record["recipient_id"] in gone:
                if record["line"] == "deliver" and body["kind"] != "deferred":
                    ends[body["kind"]] += 1
                elif body.get("outcome") == "withheld" and body["reason"] == "withdrawn":
                    ends["withdrawn"] += 1
        assert sum(ends.values()) == withdrawing, ends
        assert ends.keys() <= {"recalled", "withdrawn", "delivered"}, ends
        assert ends["recalled"] > 0, ends
        assert ends["withdrawn"] > 0, ends


def test_nothing_is_sent_to_who_has_withdrawn(tmp_path: Path) -> None:
    _withdrawn_under_load(tmp_path, people=400, withdrawing=300)


@pytest.mark.soak
def test_nothing_is_sent_to_a_thousand_who_have_withdrawn(tmp_path: Path) -> None:
    _withdrawn_under_load(tmp_path, people=1500, withdrawing=1000)
