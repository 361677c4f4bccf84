"""Cuts made by hand or by Hypothesis, without Kafka, and both readings of the rules run over them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import infra
from schemas import codec, ids, policy_files, topics
from schemas.policy import Applied, Campaign, Contact, Policy, Segment
from schemas.profile import DAY_MS, HOUR_MS, MINUTE_MS, ROW, SECOND_MS
from schemas.routes import Routes
from streams.agents.decide import Decider
from streams.engine.batch import Batch
from streams.engine.control import Control
from streams.engine.cut import Cut, Handled
from streams.engine.kafka import Record
from streams.engine.partitioner import partition_of
from streams.engine.store import SlabStore
from tests.reference.cuts import RefCut, RefRecord
from tests.reference.recompute import cut_order
from tests.support import models

PARTITIONS = 3
PACKAGED = policy_files.load(Path(infra.__file__).parent / "policy")
START = 1_488_326_400_000 + 3 * DAY_MS  # 2017-03-04, eight days before daylight saving begins in New York
STARTS = (START, START + 239 * DAY_MS)  # and 2017-10-29, a week before it ends


def _campaign(
    number: int, trigger: dict[str, str], expiry: str, audience: str | None = None, **more: Any
) -> Campaign:
    return Campaign.model_validate(
        {
            "number": number,
            "name": f"campaign_{number}",
            "version": 1,
            "doc": "For tests.",
            "trigger": trigger,
            "audience": audience,
            "template": "none",
            "cooldown": "90 min",
            "expiry": expiry,
            **more,
        }
    )


def _segment(number: int, name: str, where: str) -> Segment:
    return Segment(number=number, name=name, where=where, doc="For tests.")


# Eager: low thresholds, short cooldowns, so that a short story holds many decisions of every outcome.
POLICY = Policy(
    segments=(
        _segment(0, "viewers", "views_6h >= 1"),
        _segment(1, "buyers", "purchases_7d >= 1 AND revenue_7d > 0"),
        _segment(5, "idle", "hours_since_view >= 2"),
        _segment(9, "busy", "views_48h + clicks_24h >= 4 OR opens_1h > 0 OR purchases_per_view_14d > 0.25"),
        _segment(64, "old", "hours_since_first > 100 AND hours_since_first <= 900"),
    ),
    campaigns=(
        _campaign(0, {"enter": "viewers"}, "30 h", priority=3, arms={"control": 0.5}),
        _campaign(1, {"leave": "viewers"}, "90 h", when_capped="drop"),
        _campaign(2, {"event": "purchase"}, "48 h", "busy", value=2.5, identity="news"),
        _campaign(3, {"enter": "idle"}, "20 h"),
        _campaign(4, {"event": "purchase"}, "2 h", purpose="transactional", timing="at_once"),
        _campaign(
            5,
            {"event": "view"},
            "12 h",
            timing="at_once",
            arms={"hold_out": 0.71, "control": 0.1},
            identity="news",
        ),
        _campaign(63, {"event": "click"}, "60 h"),
    ),
    contact=Contact.model_validate(
        {
            "default_zone": "UTC",
            "hold_out": 0.1,
            "purpose": {
                "mail": {"consent": "opt_in"},
                "transactional": {
                    "consent": "not_needed",
                    "quiet_hours": False,
                    "suppressed_by": ["bounced"],
                    "hold_out": False,
                },
            },
            "cap": [
                {"most": 2, "window": "7 h"},
                {"most": 3, "window": "30 h", "purposes": ["mail", "transactional"]},
            ],
            "quiet": {
                "default": {"from": "21:00", "to": "08:00"},
                "US": {"from": "12:00", "to": "15:00"},
                "US-OH": {"from": "00:00", "to": "00:00"},
            },
        }
    ),
    send_time=PACKAGED.send_time.model_copy(
        update={"thin_history": 2.0, "kappa_week": 4.0, "kappa_day": 2.0}
    ),
    routes=Routes({"news": 7}, {"gmail": 1, "news/gmail": 3}, default_parts=2),
)
# What the story's segments may become: two campaigns ask by `viewers`, one by `idle`, one is for the `busy`.
SEGMENTS = (
    POLICY.segments,
    (_segment(0, "viewers", "views_24h >= 2 OR purchases_7d >= 1"), *POLICY.segments[1:]),
    (*POLICY.segments[:4], _segment(64, "elder", "hours_since_first > 100 AND hours_since_first <= 900")),
    (*POLICY.segments[:1], *POLICY.segments[2:4], _segment(70, "buyers", "purchases_7d >= 1")),
    (
        POLICY.segments[0],
        POLICY.segments[2],
        _segment(1, "busy", "views_48h >= 1"),
        _segment(9, "buyers", "carts_7d = 0"),
    ),
)
HOME = [name for name in (f"r{i}" for i in range(40)) if partition_of(name.encode(), PARTITIONS) == 0][:4]
AWAY = next(name for name in (f"r{i}" for i in range(40)) if partition_of(name.encode(), PARTITIONS) != 0)


@dataclass(frozen=True)
class Planned:
    """One record to be: topic, fields, how long before the cut it occurred, how its bytes are spoilt."""

    topic: str
    who: str
    ago: int
    fields: dict[str, Any]
    tick: int = 0  # added to the timestamp of the record before
    spoil: str = ""


@dataclass
class World:
    """A partition that grows: offsets and timestamps go on from cut to cut."""

    now: int = START
    before: int | None = None
    number: int = 0
    offsets: dict[str, int] = field(default_factory=lambda: {t.name: 0 for t in topics.SOURCES})
    timestamp: int = 1_000
    applied: tuple[Applied, ...] = ()
    control: Control = field(default_factory=Control)  # of which only models and full hours count

    def cut(
        self,
        gap: int,
        planned: Sequence[Planned],
        paused: bool = False,
        history: bool = False,
        segments: tuple[Segment, ...] | None = None,
        change: dict[str, Any] | None = None,
    ) -> Cut:
        """The next cut, `gap` ms after the last, with new `segments`, and another `change` of control."""
        self.before, self.now = (self.now if self.number else None), self.now + gap
        self.number += 1
        records: dict[str, list[Record]] = {topic.name: [] for topic in topics.SOURCES}
        for plan in planned:
            self.timestamp += plan.tick
            key, value, headers = encoded(plan, self.now)
            records[plan.topic].append(Record(self.offsets[plan.topic], self.timestamp, key, value, headers))
            self.offsets[plan.topic] += 1
        before = self.now if self.before is None else self.before
        if segments is not None:
            self.applied += (Applied(self.number if self.applied else 0, segments),)
        if change is not None:
            self.control = self.control.after(self.number - 1, {"change": change})
        version = self.number if paused or self.applied or self.control.version else 0
        control = replace(self.control, version=version, paused=paused, segments=self.applied)
        taken = {topic: Batch.of(some) for topic, some in records.items()}
        return Cut(0, self.number, self.now, before, control, 0, None, history, taken, dict(self.offsets))


def encoded(plan: Planned, now: int) -> tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]:
    """Key, value and headers of a planned record."""
    fields = {"recipient_id": plan.who, "event_id": None, "occurred_at": now - plan.ago, **plan.fields}
    value: bytes | None = codec.encode(plan.topic, fields)
    key: bytes | None = plan.who.encode()
    headers: tuple[tuple[str, bytes], ...] = ()
    if plan.spoil == "truncated":
        value = codec.encode(plan.topic, fields)[:-3]
    elif plan.spoil == "schema":
        value = b"\x00\x00\x00\x27\x0f" + b"unknown"
    elif plan.spoil == "header":
        value = b"{}"
    elif plan.spoil == "trailing":
        value = codec.encode(plan.topic, fields) + b"\x00"
    elif plan.spoil == "nothing":
        value = None
    elif plan.spoil == "key":
        key = b"somebody-else"
    elif plan.spoil == "keyless":
        key = None
    elif plan.spoil == "oversized":
        value = b"\x00" * (topics.MAX_RECORD_BYTES + 1)
    elif plan.spoil == "rekeyed":
        headers = (
            ("origin-topic", plan.topic.encode()),
            ("origin-partition", b"2"),
            ("origin-offset", b"77"),
            ("rekeyed", b"1"),
        )
    return key, value, headers


class Fast:
    """The columnar reading."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.decider = Decider(policy, PARTITIONS, lambda: [models.KEY.public_key()])
        self.control_version = 0
        self.store = SlabStore(ROW)

    def handle(self, cut: Cut) -> Handled:
        """Handle a cut and apply it, as a line does."""
        self.observe(cut)
        [handled] = self.decider.handle([(cut, self.store)])
        handled.apply(self.store)
        return handled

    def observe(self, cut: Cut) -> None:
        """Work out anew when rows are due if control has changed, as a line does."""
        if cut.control.version != self.control_version:
            self.control_version = cut.control.version
            for slots, keys, rows in self.store.batches():
                self.store.set_due(slots, self.decider.due_at(keys, rows, cut.before, cut.control))

    def rows(self) -> dict[str, bytes]:
        """Rows by recipient."""
        return {
            key.decode(): rows[i].tobytes()
            for _, keys, rows in self.store.batches()
            for i, key in enumerate(keys)
        }

    def dispatches(self) -> list[tuple[str, str]]:
        """Recipients and dispatch ids of sends that wait or are released."""
        return [
            (key.decode(), ids.dispatch_id(uuid.UUID(bytes=bytes(send["decision"])), "mail"))
            for _, keys, rows in self.store.batches()
            for key, row in zip(keys, rows, strict=True)
            for send in row["pending"][row["pending"]["state"] > 0]
        ]

    def due(self) -> dict[str, int]:
        """When each recipient is due."""
        return {
            key.decode(): int(self.store._due_at[slot])
            for slots, keys, _ in self.store.batches()
            for slot, key in zip(slots.tolist(), keys, strict=True)
        }


def for_reference(cut: Cut) -> RefCut:
    """The same cut as the reference wants it."""
    sources = {
        topic: [RefRecord(topic, 0, r.offset, r.key, r.value, dict(r.headers), r.timestamp) for r in records]
        for topic, records in cut.records.items()
    }
    start = dict.fromkeys(sources, 0)
    return RefCut(
        0,
        cut.number,
        cut.now,
        cut.before,
        cut.control.version,
        cut.control.paused,
        cut.history,
        cut_order(sources, start, {topic: 1 << 60 for topic in sources}),
        cut.control.segments,
        models.by_hand(cut.control, POLICY.send_time),
        cut.control.full,
    )


def split(cut: Cut, at: int) -> tuple[Cut, Cut]:
    """A cut in two with the same `now`: the first `at` records in cut order, and the rest."""
    order = [(r.topic, r.offset) for r in for_reference(cut).records]
    first = set(order[:at])
    left = {t: Batch.of(r for r in rs if (t, r.offset) in first) for t, rs in cut.records.items()}
    right = {t: Batch.of(r for r in rs if (t, r.offset) not in first) for t, rs in cut.records.items()}
    return replace(cut, records=left), replace(cut, before=cut.now, records=right)


_AGO = st.one_of(
    st.integers(0, 4 * SECOND_MS),
    st.integers(0, 30 * MINUTE_MS),
    st.integers(0, 60 * HOUR_MS),
    st.integers(0, 36 * DAY_MS),
    st.integers(-6 * MINUTE_MS, 0),
)
_EVENT_IDS = st.one_of(st.none(), st.sampled_from([f"e{i}" for i in range(16)]))
_SPOILT = st.sampled_from(
    ["truncated", "schema", "header", "trailing", "nothing", "key", "keyless", "oversized", "rekeyed"]
)


@st.composite
def planned(draw: st.DrawFn, dispatches: Sequence[tuple[str, str]] = ()) -> Planned:
    """One record: mostly behaviour of a few recipients, now and then anything else that can come.

    `dispatches` are recipients and ids of sends that wait or are released.
    """
    topic = draw(
        st.sampled_from(
            [topics.CLICKS.name] * 6
            + [topics.PURCHASES.name] * 4
            + [topics.CONSENT.name, topics.CONSENT.name, topics.ATTRIBUTES.name, topics.DELIVERY.name]
        )
    )
    who = draw(st.sampled_from(HOME * 3 + [AWAY]))
    spoil = draw(st.one_of(*[st.just("")] * 9, _SPOILT))
    fields: dict[str, Any]
    if topic == topics.CLICKS.name:
        kinds = ["view"] * 4 + ["click", "click", "scroll", "search", "cart", "open"]
        fields = {
            "kind": draw(st.sampled_from(kinds)),
            "event_id": draw(_EVENT_IDS),
            "agent": draw(st.sampled_from([None, None, None, "browser", "proxy", "scanner"])),
            "dispatch_id": draw(st.sampled_from([None, "some"])),
            "network": draw(st.sampled_from([None, None, "consumer", "privacy_proxy", "datacenter"])),
        }
    elif topic == topics.PURCHASES.name:
        fields = {
            "amount": draw(st.sampled_from([0, 1, 2_500, 25_000, 2**32, 2**62, 2**63 - 1, -1])),
            "event_id": draw(_EVENT_IDS),
        }
    elif topic == topics.CONSENT.name:
        fields = {
            "purpose": draw(st.sampled_from(["mail", "profiling"])),
            "state": draw(st.sampled_from(["granted", "granted", "withdrawn"])),
            "version": draw(st.integers(0, 6)),
        }
    elif topic == topics.ATTRIBUTES.name:
        zones = [None, "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "Nowhere/At_All"]
        fields = {
            "zone": draw(st.sampled_from(zones)),
            "locale": "en-US",
            "provider": draw(st.sampled_from([None, "gmail"])),
            "place": draw(st.sampled_from([None, "US-OH", "US-NY", "DE"])),
        }
    else:
        kinds = ["sent", "sent", "delivered", "bounced", "complained", "deferred", "expired"]
        fields = {
            "dispatch_id": draw(st.sampled_from([None, "nobody's"])),
            "kind": draw(st.sampled_from(kinds)),
            "permanent": draw(st.booleans()),
        }
        if draw(st.integers(0, 3)) and dispatches:
            who, fields["dispatch_id"] = draw(st.sampled_from(dispatches))
    return Planned(topic, who, draw(_AGO), fields, draw(st.integers(-2, 3)), spoil)


GAPS = st.one_of(
    st.integers(0, MINUTE_MS),
    *[st.integers(0, 4 * HOUR_MS)] * 4,
    st.integers(HOUR_MS, 30 * HOUR_MS),
    st.integers(DAY_MS, 40 * DAY_MS),
)


_ROLES = st.builds(
    models.change,
    st.sampled_from(models.SEEDS),
    st.sampled_from(["champion", "canary", "shadow", "none"]),
    st.sampled_from([0.1, 0.5, 1.0]),
)
_INTERCEPTS = st.builds(
    models.intercept, st.sampled_from([None, *models.SEEDS]), st.sampled_from([-3.0, -0.4, 0.0, 0.05, 1.0])
)
_MODELS = st.one_of(_ROLES, _ROLES, _INTERCEPTS)
# Hours after that of the cut; without the first at most, all that a decision looks at are full.
_FULL = st.dictionaries(
    st.sampled_from(["gmail", "other"]), st.one_of(st.sets(st.integers(0, 26)), st.just({*range(1, 27)}))
)


@st.composite
def stories(draw: st.DrawFn, most: int = 12) -> list[Cut]:
    """A few cuts of one partition, beginning with consent for most recipients."""
    world, shadow = World(draw(st.sampled_from(STARTS))), Fast()
    grants = [
        Planned(topics.CONSENT.name, who, 0, {"purpose": purpose, "state": "granted", "version": 1})
        for who in HOME[:3]
        for purpose in ("mail", "profiling")
    ]
    cuts = [world.cut(0, grants + draw(st.lists(planned(), max_size=12)))]
    for _ in range(draw(st.integers(1, most))):
        shadow.handle(cuts[-1])
        burst = draw(st.lists(planned(shadow.dispatches()), max_size=16))
        if draw(st.integers(0, 9)) == 0:  # a hot recipient, enough to saturate a counter
            burst += [Planned(topics.CLICKS.name, HOME[0], 0, {"kind": "view"})] * draw(
                st.sampled_from([30, 260])
            )
        changes = draw(st.integers(0, 3)) == 0
        segments = draw(st.sampled_from(SEGMENTS if world.applied else SEGMENTS[:1])) if changes else None
        change = draw(_MODELS) if draw(st.integers(0, 3)) == 0 else None
        gap = draw(GAPS)
        if change is None and draw(st.integers(0, 3)) == 0:
            hour = (world.now + gap) // HOUR_MS
            full = {name: [hour + ahead for ahead in hours] for name, hours in draw(_FULL).items()}
            change = {"full": full}
        paused, history = draw(st.integers(0, 6)) == 0, draw(st.integers(0, 3)) == 0
        cuts.append(world.cut(gap, burst, paused, history, segments, change))
    return cuts


def bodies(handled: Handled) -> list[tuple[str, dict[str, Any]]]:
    """Audit bodies of a handled cut, by recipient."""
    from tests.support.pipeline import plain

    found = [
        codec.decode(topics.AUDIT.name, out.value or b"")
        for out in handled.outputs
        if out.topic == topics.AUDIT.name
    ]
    return [(record["recipient_id"], plain(record["body"])) for record in found]


def changelog(handled: Handled) -> dict[bytes, bytes]:
    """The changelog rows that a line would write for a handled cut."""
    rows = np.empty(0) if handled.rows is None else handled.rows
    return {key: rows[i].tobytes() for i, key in enumerate(handled.keys)}
