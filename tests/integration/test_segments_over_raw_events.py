"""Segments of the grocery's year equal those that ClickHouse finds in the raw events, by the rule of buckets.

Beside it stands how far buckets are from exact windows: printed, since it is a property of the rule.
"""

# ruff: noqa: S608 - questions made of this test's own names and numbers

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from infra.embedded.clickhouse import ClickHouseServer
from models import features, profile
from models.features import Feature
from models.segments import Segments
from schemas import codec, topics
from schemas.profile import COUNTER_MAX, DAY_MS, HOUR_MS, KINDS
from schemas.settings import Settings
from sinks.clickhouse.client import ClickHouse
from streams import warehouse
from streams.engine.cut import Cut
from streams.replay import completejourney
from streams.replay.completejourney import FIRST, LAST, Produced
from tests.support import year
from tests.support.cuts import PACKAGED
from tests.support.pipeline import plain

pytestmark = [pytest.mark.clickhouse, pytest.mark.timeout(1800)]

SAMPLED = 50
SEGMENTS = Segments.compile(PACKAGED.segments)
RANKS = {topic.name: rank for rank, topic in enumerate(topics.SOURCES)}
State = tuple[str, int, int]  # recipient, number of the last event that counts, now


def story_of(households: int) -> list[Produced]:
    """The year, a twentieth of it up to 40 hours late."""
    chance = np.random.default_rng(3)
    found = completejourney.people(FIRST, LAST, households)
    for event in completejourney.events(FIRST, LAST, households):
        behaviour = event.topic in (topics.CLICKS.name, topics.PURCHASES.name)
        late = int(chance.integers(0, 40 * HOUR_MS)) if behaviour and chance.random() < 0.05 else 0
        found.append(replace(event, at=event.at + late))
    return sorted(found, key=lambda e: (e.at, RANKS[e.topic], e.key, str(e.fields["event_id"])))


@dataclass
class Evaluations:
    """When each recipient was evaluated, told from the raw events by docs/decisions.md alone."""

    profiled: set[str]
    counted: int = 0
    last: dict[str, int] = field(default_factory=dict)  # latest event time
    latest: dict[str, State] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def of(self, cut: Cut, events: Sequence[Produced]) -> dict[str, list[tuple[State, Any]]]:
        """States of a cut by recipient, each with its cause: a due time, or topic and occurrence."""
        found: dict[str, list[tuple[State, Any]]] = {}
        for who in self.known:
            due = self._evaluation(who, cut.before, cut.now)
            if due:
                found[who] = [((who, self.counted, cut.now), due)]
        for event in events:
            self.known.add(event.key)
            if event.topic not in (topics.CLICKS.name, topics.PURCHASES.name):
                continue
            self.counted += 1
            if event.key in self.profiled:
                self.last[event.key] = max(self.last.get(event.key, 0), event.fields["occurred_at"])
            state = (event.key, self.counted, cut.now)
            found.setdefault(event.key, []).append((state, event.fields["event_id"]))
        self.latest |= {who: states[-1][0] for who, states in found.items()}
        return found

    def _evaluation(self, who: str, before: int, now: int) -> int:
        midnight = now // DAY_MS * DAY_MS
        hour = now // HOUR_MS * HOUR_MS
        last = self.last.get(who, 0)
        if last:
            hour = min(hour, (last + profile.EVALUATED_HOURS * HOUR_MS) // HOUR_MS * HOUR_MS)
        latest = max(midnight, hour if last and hour > last else 0)
        return latest if latest > before else 0


@dataclass
class Sample:
    """A cut: memberships before it and after, its states, and what the stream says of it."""

    before: dict[str, State]
    after: dict[str, State]
    states: dict[str, list[tuple[State, Any]]]
    members: dict[str, frozenset[str]]
    transitions: Counter[Any]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    folder = tmp_path_factory.mktemp("raw")
    server = ClickHouseServer(folder)
    server.up()
    try:
        made = warehouse.connect(Settings(state_dir=folder, clickhouse=None)).connect()
        made.execute(
            "CREATE TABLE default.raw (recipient_id String, number UInt32, kind LowCardinality(String),"
            " at Int64, amount Int64) ENGINE = MergeTree ORDER BY (recipient_id, number)"
        )
        made.execute(
            "CREATE TABLE default.state (recipient_id String, number UInt32, now Int64) ENGINE = Memory"
        )
        yield made
        made.close()
    finally:
        server.down()


@pytest.mark.parametrize("households", [120, pytest.param(2469, marks=pytest.mark.soak)])
def test_memberships_and_transitions_are_those_of_the_raw_events(
    client: ClickHouse, households: int, capsys: pytest.CaptureFixture[str]
) -> None:
    story = story_of(households)
    profiled = {
        event.key
        for event in story
        if event.fields.get("purpose") == "profiling" and event.fields["state"] == "granted"
    }
    _fill(client, story, profiled)
    nows = year.moments(story[0].at, story[-1].at, 8 * HOUR_MS, seed=9)
    sampled = {*np.random.default_rng(4).choice(np.arange(200, len(nows)), SAMPLED, replace=False).tolist()}
    wrong, seen, apart = 0, Counter[str](), Counter[str]()
    for sample in _samples(story, nows, profiled, sampled):
        held = _members(client, [*sample.before.values(), *sample.after.values(), *_all(sample.states)])
        exact = _members(client, [*sample.after.values()], exact=True)
        for who, state in sample.after.items():
            wrong += sample.members[who] != held[state]
            seen["memberships"] += len(SEGMENTS.definitions)
            seen["held"] += len(held[state])
            apart["memberships"] += len(held[state] ^ exact[state])
        expected = Counter[Any]()
        for who, states in sample.states.items():
            former = held[sample.before[who]] if who in sample.before else frozenset()
            for state, cause in states:
                expected.update((who, name, name in held[state], cause) for name in former ^ held[state])
                former = held[state]
        wrong += (expected - sample.transitions).total() + (sample.transitions - expected).total()
        seen["transitions"] += expected.total()
    assert wrong == 0
    assert seen["transitions"] > 100
    assert seen["held"] > 1000
    assert apart["memberships"] > 0, "exact windows would do, and the rule of buckets matters nowhere"
    with capsys.disabled():
        share = apart["memberships"] / seen["memberships"]
        print(
            f"\n{households} households, {len(nows)} cuts, {SAMPLED} of them asked: {seen['memberships']} "
            f"memberships and {seen['transitions']} transitions, 0 differences; exact windows would differ "
            f"in {apart['memberships']} memberships ({share:.3%})"
        )


def _fill(client: ClickHouse, story: Sequence[Produced], profiled: set[str]) -> None:
    client.execute("TRUNCATE TABLE default.raw")
    rows, number = [], 0
    for event in story:
        if event.topic not in (topics.CLICKS.name, topics.PURCHASES.name):
            continue
        number += 1
        if event.key in profiled:
            kind = event.fields.get("kind", "purchase")
            rows.append((event.key, number, kind, event.fields["occurred_at"], event.fields.get("amount", 0)))
    names = ("recipient_id", "number", "kind", "at", "amount")
    client.insert("default.raw", names, [*zip(*rows, strict=True)], {})


def _samples(
    story: Sequence[Produced], nows: Sequence[int], profiled: set[str], sampled: set[int]
) -> Iterator[Sample]:
    evaluations = Evaluations(profiled)
    done = 0
    for number, (cut, handled, store) in enumerate(year.decided(PACKAGED, year.cuts(story, nows))):
        start = done
        while done < len(story) and story[done].at <= cut.now:
            done += 1
        before = dict(evaluations.latest) if number in sampled else {}
        states = evaluations.of(cut, story[start:done])
        if number not in sampled:
            continue
        members = {
            key.decode(): frozenset(SEGMENTS.definitions[c].name for c in np.flatnonzero(held))
            for _, keys, rows in store.batches()
            for key, held in zip(keys, SEGMENTS.members(rows["segments"]), strict=True)
        }
        told = Counter[Any]()
        for value in year.audit_of(handled):
            record = plain(codec.decode(topics.AUDIT.name, value))
            body = record["body"]
            if "entered" in body:
                cause = body["cause"]["event_id"] or body["cause"]["due_at"]
                told[record["recipient_id"], body["segment"], body["entered"], cause] += 1
        yield Sample(before, dict(evaluations.latest), states, members, told)


def _all(states: dict[str, list[tuple[State, Any]]]) -> Iterator[State]:
    for some in states.values():
        yield from (state for state, _ in some)


def _members(client: ClickHouse, states: Sequence[State], exact: bool = False) -> dict[State, frozenset[str]]:
    """Names of the segments that hold in each state, from the raw events."""
    client.execute("TRUNCATE TABLE default.state")
    distinct = sorted({*states})
    client.insert("default.state", ("recipient_id", "number", "now"), [*zip(*distinct, strict=True)], {})
    asked = ", ".join(
        f"if(ifNull({segment.where}, 0), ['{segment.name}'], [])" for segment in SEGMENTS.definitions
    )
    sums = ", ".join(_feature(feature, exact) for feature in SEGMENTS.features)
    hour = f"intDiv(at, {HOUR_MS})"
    rows = client.execute(
        f"SELECT recipient_id, number, now, arrayConcat({asked}) FROM (SELECT s.recipient_id AS recipient_id,"
        f" s.number AS number, s.now AS now, {sums} FROM default.state AS s LEFT JOIN"
        f" (SELECT recipient_id, number, kind, at, amount, {hour} AS hour, intDiv({hour}, 24) AS day"
        " FROM default.raw) AS e ON e.recipient_id = s.recipient_id AND e.number <= s.number"
        " GROUP BY recipient_id, number, now)"
    )
    return {(who, number, now): frozenset(names) for who, number, now, names in rows}


def _feature(feature: Feature, exact: bool) -> str:
    """A feature over the events `e` of a state `s`; where there is none their kind is empty."""
    name = feature.name
    if feature.source == "first":
        return f"if(max(e.kind) = '', NULL, (s.now - min(e.at)) / {HOUR_MS}) AS {name}"
    kind = f"e.kind = '{KINDS[feature.kind]}'"
    if feature.source == "last":
        return f"if(countIf({kind}) = 0, NULL, (s.now - maxIf(e.at, {kind})) / {HOUR_MS}) AS {name}"
    length = feature.hours * HOUR_MS or feature.days * DAY_MS
    bucket, size = ("e.hour", HOUR_MS) if feature.hours else ("e.day", DAY_MS)
    first = f"intDiv(s.now, {size}) - {feature.hours or feature.days}"
    within = f"e.at > s.now - {length}" if exact else f"{bucket} > {first}"
    if feature.source == "revenue":
        return f"sumIf(e.amount, e.kind = 'purchase' AND {within}) AS {name}"
    counts = f"sumMapIf([{bucket}], [1], {kind} AND {within}).2"
    return f"arraySum(n -> least(n, {COUNTER_MAX}), {counts}) AS {name}"


def test_every_kind_of_feature_is_asked() -> None:
    assert {feature.source for feature in SEGMENTS.features} == {
        feature.source for feature in features.FEATURES.values() if not feature.parts
    }
