"""Events that come twice, late, in disorder, spoilt, or all for one recipient."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from schemas import codec, topics
from schemas.reasons import DeadLetterReason
from streams import reading
from streams.dead_letters import Choice, DeadLetters
from streams.engine.cut import Out
from streams.engine.journal import Entry
from streams.engine.kafka import read_all
from streams.engine.partitioner import partition_of
from streams.replay.completejourney import Produced
from tests.support import faults, oracle
from tests.support import stack as stacks
from tests.support.faults import PARTITIONS, Case, Traffic
from tests.support.pipeline import decoded

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

_HOUR_MS = 3_600_000
_LATE_MS = 48 * _HOUR_MS


def _disorder(events: Sequence[Produced], chance: random.Random) -> list[Produced]:
    """Each shuffled within an hour, every twentieth two days late, every tenth twice.

    A repeat comes among the next three of its recipient: eight are remembered, for producers that retry.
    """
    came = []
    for event in events:
        after = _LATE_MS if chance.random() < 0.05 else chance.randrange(_HOUR_MS)
        came.append(replace(event, at=event.at + after))
    out: list[Produced] = []
    repeats: dict[str, list[tuple[int, Produced]]] = defaultdict(list)
    for event in sorted(came, key=lambda event: event.at):
        out.append(event)
        due = [(more - 1, again) for more, again in repeats[event.key]]
        out += [replace(again, at=event.at) for more, again in due if more == 0]
        repeats[event.key] = [(more, again) for more, again in due if more > 0]
        if chance.random() < 0.1:
            repeats[event.key].append((chance.randint(1, 3), event))
    return out


@pytest.mark.parametrize("seed", faults.seeds(5, short=True))
def test_events_that_come_twice_in_disorder_and_late_are_decided_once(case: Case, seed: int) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    start, people, events = faults.shopping(seed)
    # The first two days have passed when traffic begins, so that the late come at once.
    later = start + timedelta(milliseconds=_LATE_MS)
    came = [event for event in _disorder(events, chance) if event.at >= round(later.timestamp() * 1000)]
    known = [replace(person, at=round(later.timestamp() * 1000)) for person in people]
    with Traffic(stack, later, known, came) as traffic:
        worker = stack.start_worker()
        traffic.await_more(len(people) + 900)
    stacks.await_quiet(stack)
    faults.terminate(stack, worker)
    sent = came[: traffic.sent - len(people)]
    twice = len(sent) - len({(event.topic, event.key, event.fields["event_id"]) for event in sent})
    tallies = [t for entry in decoded(stack.client, topics.JOURNAL.name, PARTITIONS) for t in entry["topics"]]
    assert twice > 20
    # A cut may reach further in one topic than in the other: then more than eight may come between the two.
    unrecognised = twice - sum(tally["filtered"] for tally in tallies)
    assert 0 <= unrecognised < 0.1 * twice
    assert sum(tally["late"] for tally in tallies) > 20
    oracle.assert_decided(stack, case.rules, unrecognised=unrecognised)


def _spoilt(value: bytes, number: int) -> tuple[bytes, DeadLetterReason]:
    """A record's bytes, damaged in one of three ways."""
    return (
        (value[: 5 + len(value) // 2], DeadLetterReason.MALFORMED),
        (b"\x01" + value[1:], DeadLetterReason.MALFORMED),
        (b"\x00" + (9_000_000).to_bytes(4, "big") + value[5:], DeadLetterReason.UNKNOWN_SCHEMA),
    )[number % 3]


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("seed", faults.seeds(1, short=True))
def test_spoilt_records_in_a_row_are_dead_letters_and_the_good_ones_are_decided(
    case: Case, seed: int, count: int
) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    start, people, events = faults.shopping(seed)
    patterns = [event for event in events if event.topic == topics.CLICKS.name][:count]
    wanted = []
    with Traffic(stack, start, people, events) as traffic:
        worker = stack.start_worker()
        traffic.await_more(len(people) + 200)
        spoilt = []
        for number in range(count):
            event = patterns[number % len(patterns)]
            value, reason = _spoilt(codec.encode(event.topic, event.fields), number)
            key = f"{event.key}".encode()
            spoilt.append(Out(event.topic, key, value, chance.choice((0, partition_of(key, PARTITIONS)))))
            wanted.append(reason)
        offsets = reading.produce(stack.client, spoilt)
        traffic.await_more(300 if count < 1000 else 1200)  # some weeks have few decisions
    stacks.await_quiet(stack)
    faults.terminate(stack, worker)
    oracle.assert_decided(stack, case.rules)
    places = {(out.partition, offset): i for i, (out, offset) in enumerate(zip(spoilt, offsets, strict=True))}
    letters = {(each.partition, each.offset): each for each in DeadLetters(stack.client).chosen(Choice())}
    assert letters.keys() == places.keys()
    for place, letter in letters.items():
        number = places[place]
        assert (letter.topic, letter.key, letter.value, letter.reason) == (
            topics.CLICKS.name,
            spoilt[number].key,
            spoilt[number].value,
            wanted[number].value,
        )


_SOON = 10  # cuts of the busiest partition


@pytest.mark.parametrize("seed", faults.seeds(1))
def test_half_of_all_events_for_one_recipient_hold_no_other_partition_up(case: Case, seed: int) -> None:
    stack, chance = case.stack, faults.chance_of(seed)
    start, people, events = faults.shopping(seed)
    hot = chance.choice(people).key
    mixed = [
        event if number % 2 else faults.changed(event, recipient_id=hot)
        for number, event in enumerate(events)
    ]
    with Traffic(stack, start, people, mixed) as traffic:
        worker = stack.start_worker()
        traffic.await_more(len(people) + 2500)
    stacks.await_quiet(stack)
    faults.terminate(stack, worker)
    oracle.assert_decided(stack, case.rules)
    consumer = stack.client.reader()
    places = range(PARTITIONS)
    made = {p: [*read_all(consumer, topics.JOURNAL.name, p)] for p in places}
    kinds = (topics.CLICKS.name, topics.PURCHASES.name)
    arrived = {(topic, p): [*read_all(consumer, topic, p)] for topic in kinds for p in places}
    consumer.close()
    busy = [record.timestamp for record in made[partition_of(hot.encode(), PARTITIONS)]]
    all_at_work = max(records[0].timestamp for records in made.values())
    looked = 0
    for since, until in zip(busy, busy[_SOON:], strict=False):
        for partition in places if since >= all_at_work else ():
            last = [record for record in made[partition] if record.timestamp <= until][-1]
            reached = Entry.decode(topics.JOURNAL.name, last.value or b"").next_offsets()
            for topic in kinds:
                there = [record.offset for record in arrived[topic, partition] if record.timestamp <= since]
                assert not there or reached[topic] > there[-1], f"{topic} {partition}: {len(there)} wait"
                looked += bool(there)
    assert looked > 100
