"""Worked examples of docs/decisions.md, computed by hand, held against the plain reference."""

import dataclasses
from typing import Any

import pytest

from schemas import codec, ids
from schemas.profile import Consent
from tests.reference import records
from tests.reference.cuts import RefRecord
from tests.reference.rules import RefCut, Reference
from tests.reference.state import Recipient, pack
from tests.reference.world import (
    ATTRIBUTES,
    CLICKS,
    CONSENT,
    DAY,
    DELIVERY,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    PURCHASES,
    World,
    bodies,
    buy,
    click,
    consent,
    delivery,
)


@pytest.fixture
def world() -> World:
    return World()


# Section 1


def raw(key: bytes | None, value: bytes | None, topic: str = CLICKS) -> RefRecord:
    return RefRecord(topic, 0, 1, key, value)


def encoded(topic: str = CLICKS, **fields: Any) -> bytes:
    body: dict[str, Any] = {"recipient_id": "ann", "occurred_at": NOW}
    if topic == CLICKS:
        body["kind"] = "view"
    if topic == PURCHASES:
        body["amount"] = 1
    return codec.encode(topic, body | fields)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (raw(None, b"x" * 65_537), "oversized"),
        (raw(None, b"x" * 65_536), "malformed"),
        (raw(b"ann", None), "malformed"),
        (raw(None, encoded()[:-1]), "malformed"),
        (raw(None, b"\0\0\0\0\x63"), "unknown_schema"),
        (raw(None, encoded(recipient_id="")), "key_mismatch"),
        (raw(b"bob", encoded()), "key_mismatch"),
        (raw(b"", encoded(recipient_id="", occurred_at=0)), "invalid"),
        (raw(("ü" * 64 + "u").encode(), encoded(recipient_id="ü" * 64 + "u")), "invalid"),
        (raw(("ü" * 64).encode(), encoded(recipient_id="ü" * 64)), None),
        (raw(b"ann", encoded(event_id="")), "invalid"),
        (raw(b"ann", encoded(event_id="e" * 65)), "invalid"),
        (raw(b"ann", encoded(event_id="ü" * 64)), None),
        (raw(b"ann", encoded(PURCHASES, amount=-1), PURCHASES), "invalid"),
        (raw(b"ann", encoded(PURCHASES, amount=0), PURCHASES), None),
        (raw(b"ann", encoded(ATTRIBUTES, zone="Mars/Olympus"), ATTRIBUTES), "invalid"),
        (raw(b"ann", encoded(ATTRIBUTES, locale="123456789"), ATTRIBUTES), "invalid"),
        (raw(b"ann", encoded(ATTRIBUTES, place="üüüüü"), ATTRIBUTES), "invalid"),
        (raw(b"ann", encoded(ATTRIBUTES, provider="1234567890123"), ATTRIBUTES), "invalid"),
        (raw(b"ann", encoded(ATTRIBUTES, provider="123456789012", place="üüüü"), ATTRIBUTES), None),
        (raw(b"ann", encoded(occurred_at=NOW - 35 * DAY - 1)), "too_late"),
        (raw(b"ann", encoded(occurred_at=NOW - 35 * DAY)), None),
        (raw(b"ann", encoded(occurred_at=NOW + 5 * MINUTE + 1)), "too_early"),
        (raw(b"ann", encoded(occurred_at=NOW + 5 * MINUTE)), None),
    ],
)
def test_the_first_dead_letter_reason_that_applies_decides(record: RefRecord, reason: str | None) -> None:
    assert records.dead_letter_reason(record, NOW) == reason


def test_dead_letters_are_counted_and_create_no_row(world: World) -> None:
    record = RefRecord(CLICKS, 0, 9, b"bob", b"rubbish")
    result = world.cut(NOW, record)
    assert result.dead == [(CLICKS, 9, "malformed")]
    assert result.fates[CLICKS] == dict.fromkeys(result.fates[CLICKS], 0) | {
        "consumed": 1,
        "dead_lettered": 1,
    }
    assert set(world.reference.rows(0)) == {"ann"}
    assert result.touched == set()


def elsewhere(recipient_id: str, partitions: int) -> int:
    record = RefRecord(CLICKS, 0, 0, recipient_id.encode(), b"")
    return next(
        p
        for p in range(partitions)
        if records.is_elsewhere(dataclasses.replace(record, partition=p), partitions)
    )


def test_an_unknown_recipient_of_another_partition_is_rekeyed_once_and_a_known_one_stays() -> None:
    reference = Reference(POLICY, 2)
    partition = elsewhere("bob", 2)
    record = RefRecord(CLICKS, partition, 5, b"bob", encoded(recipient_id="bob"))
    origin = {
        "origin-topic": CLICKS.encode(),
        "origin-partition": b"1",
        "origin-offset": b"7",
        "rekeyed": b"1",
    }
    again = dataclasses.replace(record, offset=6, headers=origin)
    first = reference.handle(RefCut(partition, 1, NOW, NOW, 0, False, False, [record, again]))
    assert first.rekeyed == [(CLICKS, 5)]
    assert first.dead == [(CLICKS, 6, "misrouted_twice")]
    assert reference.rows(partition) == {}

    reference.load(partition, {"bob": pack(Recipient(hour=NOW // HOUR))})
    second = reference.handle(RefCut(partition, 2, NOW, NOW, 0, False, False, [record]))
    assert second.fates[CLICKS]["no_trigger"] == 1


def test_the_partition_is_kafkas_murmur2_of_the_key() -> None:
    # murmur2("abc") of Kafka's Java client is 479470107, which is odd.
    record = RefRecord(CLICKS, 1, 0, b"abc", b"")
    assert not records.is_elsewhere(record, 2)
    assert records.is_elsewhere(dataclasses.replace(record, partition=0), 2)


def test_a_rekeyed_record_keeps_the_event_id_of_its_origin() -> None:
    origin = {
        "origin-topic": CLICKS.encode(),
        "origin-partition": b"1",
        "origin-offset": b"7",
        "rekeyed": b"1",
    }
    event = records.read(RefRecord(CLICKS, 0, 3, b"ann", encoded(), origin))
    assert event.event_id == ids.event_id(CLICKS, 1, 7)
    assert event.hash == records.event_hash(ids.event_id(CLICKS, 1, 7))
    assert (event.cause.body["partition"], event.cause.body["offset"]) == (0, 3)
    plain = records.read(RefRecord(CLICKS, 0, 3, b"ann", encoded()))
    assert plain.event_id == ids.event_id(CLICKS, 0, 3)
    assert plain.hash is None


def test_a_repeated_event_is_filtered_until_eight_others_have_come(world: World) -> None:
    result = world.cut(NOW, click("open", event_id="e"), click("open", event_id="e"), buy(event_id="e"))
    assert (result.fates[CLICKS]["no_trigger"], result.fates[CLICKS]["filtered"]) == (1, 1)
    assert result.fates[PURCHASES]["filtered"] == 1
    world.cut(NOW, *[click("open", event_id=f"other {n}") for n in range(7)])
    assert world.cut(NOW, click("open", event_id="e")).fates[CLICKS]["filtered"] == 1
    world.cut(NOW, click("open"), click("open", event_id="the eighth"))
    assert world.cut(NOW, click("open", event_id="e")).fates[CLICKS]["no_trigger"] == 1


def test_events_without_an_id_are_never_duplicates(world: World) -> None:
    assert world.cut(NOW, click("open"), click("open")).fates[CLICKS]["no_trigger"] == 2
    assert world.ann.recent == []


def test_a_hash_is_xxh3_and_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert records.event_hash("a") == 16629034431890738719
    monkeypatch.setattr("xxhash.xxh3_64_intdigest", lambda _: 0)
    assert records.event_hash("a") == 1


def test_a_consent_that_is_not_newer_is_stale(world: World) -> None:
    result = world.cut(NOW, consent("withdrawn", 2), consent("granted", 2), consent("granted", 1, "tracking"))
    assert (result.fates[CONSENT]["no_trigger"], result.fates[CONSENT]["filtered"]) == (2, 1)
    assert world.ann.consent == {"mail": Consent.WITHDRAWN, "tracking": Consent.GRANTED}
    assert [body["state"] for body in bodies(result, "consent")] == ["withdrawn", "granted"]


def test_a_filtered_record_creates_a_row(world: World) -> None:
    topic, body, headers = delivery("sent", "nowhere")
    result = world.cut(NOW, (topic, body | {"recipient_id": "bob"}, headers))
    assert result.fates[DELIVERY]["filtered"] == 1
    assert world.reference.rows(0)["bob"] == pack(Recipient(hour=NOW // HOUR))
    assert result.touched == {"bob"}


def test_a_record_is_late_when_it_is_more_than_an_hour_old_and_took_effect(world: World) -> None:
    events = [
        click("open", NOW - HOUR, event_id="on time"),
        click("open", NOW - HOUR - 1, event_id="late"),
        click("open", NOW - HOUR - 1, event_id="late"),
    ]
    assert world.cut(NOW, *events).fates[CLICKS]["late"] == 1
