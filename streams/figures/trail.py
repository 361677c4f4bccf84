"""What DECIDE's audit records give: decisions and what became of them, segments, examples."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas import codec
from schemas.reasons import Reason
from streams.explain import Record, kind_of
from streams.figures.times import DAY_MS, HOUR_MS, QUARTER_MS

_HOURLY_BELOW_MS: Final = 3 * DAY_MS

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
class Example:
    """A decision worth explaining, and what it shows."""

    shows: str
    recipient_id: str
    decision_id: str
    campaign: str
    at: int


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
        self.sends[codec.millis(body["due_at"]) // QUARTER_MS] += 1
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
