"""Figures of the report, counted from decoded records: no Kafka here."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import polars as pl

from schemas import codec, columns, topics, zones
from schemas.codec import MalformedRecord, UnknownSchema
from schemas.reasons import Reason
from streams.engine.journal import Entry
from streams.explain import Record, kind_of

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

# All zones' offsets are multiples of it, so counts by quarter hour can be read in any zone.
_QUARTER_MS: Final = HOUR_MS // 4
_HOURLY_BELOW_MS: Final = 3 * DAY_MS
# Between two cuts so far apart in wall-clock time nobody was at work.
_PAUSE_MS: Final = 10_000
_LATEST_TIME_MS: Final = 4_102_444_800_000  # 2100: a time after it is a producer's error

_BY_OWN_HOURS: Final = "Sent at the recipient's own hours"
_PACED: Final = "Withheld by frequency cap or cooldown"
_REFUSED: Final = "Withheld for want of consent"
_ANY: Final = "Decided lately"
_EXAMPLES: Final = (_BY_OWN_HOURS, _PACED, _REFUSED)
_EXAMPLE_OF: Final[dict[str, str]] = {
    Reason.FREQUENCY_CAP: _PACED,
    Reason.COOLDOWN: _PACED,
    Reason.NO_CONSENT: _REFUSED,
    Reason.WITHDRAWN: _REFUSED,
}


@dataclass
class Fates:
    """Records of one source topic that cuts have consumed, and what became of them; `late` is among these."""

    topic: str
    consumed: int = 0
    no_trigger: int = 0
    decided: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    rekeyed: int = 0
    late: int = 0

    def add(self, other: Any) -> None:
        """Add the counts of another, or of a journal's tally."""
        for name in list(vars(self))[1:]:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class Rate:
    """Cuts of one kind, the events in them, and the rate at which they were consumed.

    `seconds` are of the brokers' wall clock, without pauses; `per_second` counts the events that were
    consumed in these, all but those of each stretch's first cut. None where that gives no time.
    """

    cuts: int
    events: int
    seconds: float
    per_second: float | None


@dataclass
class Campaign:
    """One campaign's decisions: decided = scheduled + withheld, scheduled = released + withheld + pending.

    The second sum holds where the audit trail is whole. `tiers` says where the scheduled ones' hour came
    from; `deferred` counts how often a send was put off, which is no end.
    """

    name: str
    decided: int = 0
    scheduled: int = 0
    tiers: dict[str, int] = field(default_factory=dict)
    withheld: dict[str, int] = field(default_factory=dict)
    released: int = 0
    withheld_at_release: dict[str, int] = field(default_factory=dict)
    pending: int = 0
    deferred: int = 0


@dataclass(frozen=True)
class Membership:
    """One segment over stream time: its size at the end of each step, how often it was entered and left."""

    segment: str
    sizes: list[int]
    entered: int
    left: int


@dataclass(frozen=True)
class Segments:
    """All segments over stream time; `times` are where the steps end, UTC ms, `step_ms` apart."""

    step_ms: int
    times: list[int]
    memberships: list[Membership]


@dataclass(frozen=True)
class HoursOfDay:
    """Shares of the 24 hours of day in `zone`: of the times chosen for sends, and of what recipients did."""

    zone: str
    sends: list[float]
    activity: list[float]
    sends_counted: int
    activity_counted: int


@dataclass(frozen=True)
class Example:
    """A decision worth explaining, and what it shows."""

    shows: str
    recipient_id: str
    decision_id: str
    campaign: str
    at: int


@dataclass
class Cuts:
    """Figures of the journal."""

    begin: int | None = None
    end: int | None = None
    _fates: dict[str, Fates] = field(default_factory=lambda: {t.name: Fates(t.name) for t in topics.SOURCES})
    # Events by broker timestamp, of live cuts and of history.
    _stamps: tuple[Counter[int], Counter[int]] = field(default_factory=lambda: (Counter(), Counter()))
    _cuts: Counter[bool] = field(default_factory=Counter)

    def add(self, entry: Entry, appended_at: int) -> None:
        """Take in a cut; `appended_at` is the broker's timestamp of its journal record."""
        self.begin = entry.now if self.begin is None else min(self.begin, entry.now)
        self.end = entry.now if self.end is None else max(self.end, entry.now)
        self._cuts[entry.history] += 1
        self._stamps[entry.history][appended_at] += sum(tally.consumed for tally in entry.topics)
        for tally in entry.topics:
            self._fates.setdefault(tally.topic, Fates(tally.topic)).add(tally)

    def fates(self) -> list[Fates]:
        """Each source topic's, in the order of topics."""
        return list(self._fates.values())

    def rate(self, history: bool) -> Rate:
        """Of the cuts of history, or of the live ones."""
        stamps = sorted(self._stamps[history].items())
        timed = [
            (at - before, events)
            for (before, _), (at, events) in pairwise(stamps)
            if at - before <= _PAUSE_MS
        ]
        seconds = sum(gap for gap, _ in timed) / 1000
        per_second = sum(events for _, events in timed) / seconds if seconds else None
        return Rate(self._cuts[history], sum(events for _, events in stamps), seconds, per_second)


@dataclass
class Trail:
    """Figures of the audit trail; records of one decision must come in their order."""

    sends: Counter[int] = field(default_factory=Counter)  # by quarter hour of the chosen time
    _campaigns: dict[str, Campaign] = field(default_factory=dict)
    _waiting: dict[str, tuple[Example, str]] = field(default_factory=dict)  # with the tier
    _entered: dict[str, Counter[int]] = field(default_factory=dict)  # by hour
    _left: dict[str, Counter[int]] = field(default_factory=dict)
    _best: dict[str, Example] = field(default_factory=dict)
    _latest: list[Example] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Take in a decoded audit record."""
        body = record["body"]
        kind = kind_of(body)
        if kind == "transition":
            changes = self._entered if body["entered"] else self._left
            changes.setdefault(body["segment"], Counter())[codec.millis(record["at"]) // HOUR_MS] += 1
        elif kind == "decision":
            self._decision(record, body)
        elif kind == "release":
            self._release(body)

    def _decision(self, record: Record, body: Record) -> None:
        campaign = self._campaign(body["campaign"])
        campaign.decided += 1
        at = codec.millis(record["at"])
        made = Example(_ANY, record["recipient_id"], body["decision_id"], campaign.name, at)
        self._latest = sorted([*self._latest, made], key=_age)[-len(_EXAMPLES) :]
        if body["outcome"] == "withheld":
            _count(campaign.withheld, body["reason"])
            self._offer(_EXAMPLE_OF.get(body["reason"]), made)
            return
        campaign.scheduled += 1
        campaign.pending += 1
        _count(campaign.tiers, body["tier"])
        self.sends[codec.millis(body["due_at"]) // _QUARTER_MS] += 1
        self._waiting[body["decision_id"]] = made, body["tier"]

    def _release(self, body: Record) -> None:
        campaign = self._campaign(body["campaign"])
        if body["outcome"] == "deferred":
            campaign.deferred += 1
            return
        made, tier = self._waiting.pop(body["decision_id"], (None, None))
        campaign.pending -= made is not None
        if body["outcome"] == "released":
            campaign.released += 1
            self._offer(_BY_OWN_HOURS if tier == "recipient" else None, made)
        else:
            _count(campaign.withheld_at_release, body["reason"])
            self._offer(_EXAMPLE_OF.get(body["reason"]), made)

    def _campaign(self, name: str) -> Campaign:
        return self._campaigns.setdefault(name, Campaign(name))

    def _offer(self, shows: str | None, made: Example | None) -> None:
        """Keep the latest decision of each kind; of those made at once, the one with the highest id."""
        if shows is None or made is None:
            return
        if shows not in self._best or _age(self._best[shows]) < _age(made):
            self._best[shows] = Example(shows, made.recipient_id, made.decision_id, made.campaign, made.at)

    def campaigns(self) -> list[Campaign]:
        """By name."""
        return sorted(self._campaigns.values(), key=lambda campaign: campaign.name)

    def examples(self) -> list[Example]:
        """Return one decision of each kind that is worth explaining; for a kind that has none, any other."""
        taken = {example.decision_id for example in self._best.values()}
        others = [example for example in self._latest if example.decision_id not in taken]
        found = []
        for shows in _EXAMPLES:
            if shows in self._best:
                found.append(self._best[shows])
            elif others:
                found.append(others.pop())
        return found

    def segments(self, begin: int | None, end: int | None) -> Segments:
        """Return sizes by day from `begin` to `end`, UTC ms; by hour if that is less than three days.

        Sizes count from zero, so they are those of a trail that is whole.
        """
        if begin is None or end is None:
            return Segments(DAY_MS, [], [])
        step = HOUR_MS if end - begin < _HOURLY_BELOW_MS else DAY_MS
        first, last = begin // step, end // step
        memberships = []
        for name in sorted(self._entered.keys() | self._left.keys()):
            entered, left = self._entered.get(name, Counter()), self._left.get(name, Counter())
            changes = np.zeros(last - first + 1, np.int64)
            for sign, by_hour in ((1, entered), (-1, left)):
                for hour, times in by_hour.items():
                    # Cuts that came while this was read lie behind the end.
                    place = min(max(hour * HOUR_MS // step - first, 0), last - first)
                    changes[place] += sign * times
            memberships.append(Membership(name, changes.cumsum().tolist(), entered.total(), left.total()))
        return Segments(step, [(number + 1) * step for number in range(first, last + 1)], memberships)


def _age(example: Example) -> tuple[int, str]:
    return example.at, example.decision_id


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def column(topic: str, found: Sequence[tuple[bytes, bytes]], name: str) -> pl.DataFrame:
    """One field of n records, given as key and value, beside their `recipient_id`; times as UTC ms.

    Records that do not decode are left out: they are among the dead letters.
    """
    header = codec.header(codec.current_id(topic))
    if all(value.startswith(header) for _, value in found):
        try:
            frame = columns.decode(topic, [value for _, value in found], [key for key, _ in found])
            return frame.select("recipient_id", pl.col(name).cast(pl.Int64) if name.endswith("_at") else name)
        except columns.ColumnsRefused:
            pass
    rows = []
    for _, value in found:
        try:
            fields = codec.decode(topic, value)
        except (MalformedRecord, UnknownSchema):
            continue
        cell = codec.millis(fields[name]) if name.endswith("_at") else fields[name]
        rows.append((fields["recipient_id"], cell))
    kind = pl.Int64 if name.endswith("_at") else pl.String
    return pl.DataFrame(rows, {"recipient_id": pl.String, name: kind}, orient="row")


def quarters(times: pl.Series) -> Counter[int]:
    """Count times, UTC ms, by quarter hour since 1970; those that no clock shows are left out."""
    plain = times.drop_nulls().to_numpy()
    plain = plain[(plain >= 0) & (plain < _LATEST_TIME_MS)]
    number, count = np.unique(plain // _QUARTER_MS, return_counts=True)
    return Counter(dict(zip(number.tolist(), count.tolist(), strict=True)))


def shares_of_day(counts: Counter[int], zone: str) -> list[float]:
    """Turn counts by quarter hour since 1970 into shares of the 24 hours of day in `zone`; none give 0."""
    starts = pl.Series(list(counts), dtype=pl.Int64) * _QUARTER_MS
    local = pl.from_epoch(starts, "ms").dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.hour()
    by_hour = np.bincount(local.to_numpy(), weights=list(counts.values()), minlength=24)
    return [float(share) for share in by_hour / max(1, counts.total())]


def usual_zone(zone_of: dict[str, str]) -> str:
    """Return the zone of most recipients, of equals the first by name; UTC where none is known."""
    known = Counter(zone for zone in zone_of.values() if zone in zones.NAMES)
    return min(known, key=lambda zone: (-known[zone], zone), default="UTC")
