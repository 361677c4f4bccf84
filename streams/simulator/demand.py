"""What is to be sent to a provider's recipients, and what became of it."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas.profile import DAY_MS, HOUR_MS
from streams.simulator.parameters import Parameters

BURST_DAYS: Final = (2, 5, 9, 12)  # twice a week, at ten in the morning
HOURS: Final = np.array(  # share of a day's messages by hour: chosen hours are people's, not a machine's
    [0.5, 0.3, 0.2, 0.2, 0.3, 0.6, 1.5, 3, 4.5, 5, 5, 5, 5.5, 5, 5, 5, 5.5, 7, 9, 10, 9.5, 7, 4, 1.9]
)


@dataclass(frozen=True)
class Demand:
    """n messages to one provider by time of release: when (ms), until when, to whom, and which are urgent."""

    released: np.ndarray
    expires: np.ndarray
    recipient: np.ndarray
    urgent: np.ndarray

    @classmethod
    def of(cls, parameters: Parameters, provider: str, days: int, recipients: int, seed: int) -> "Demand":
        """What a provider's recipients are to get."""
        sender, chance = parameters.sender, np.random.default_rng([seed, 1, *provider.encode()])
        people = max(1, round(recipients * parameters.provider[provider].share.value))
        # Some people get much more than others do.
        usual = chance.poisson(people * days * sender.messages_a_day.value)
        of_whom = np.minimum((chance.random(usual) ** 2 * people).astype(np.int64), people - 1)
        hours = chance.choice(24, usual, p=HOURS / HOURS.sum())
        at = (chance.integers(0, days, usual) * 24 + hours + chance.random(usual)) * HOUR_MS
        urgent = chance.random(usual) < sender.transactional.value
        parts = [(at, of_whom, urgent)]
        for day in (day for day in BURST_DAYS if day < days):
            whom = np.flatnonzero(chance.random(people) < sender.burst_share.value)
            when = day * DAY_MS + (10 + chance.random(len(whom))) * HOUR_MS
            parts.append((when, whom, np.zeros(len(whom), np.bool_)))
        at, of_whom, urgent = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(at, kind="stable")
        at = at[order]
        return cls(at, at + sender.expiry_h.value * HOUR_MS, of_whom[order], urgent[order])


@dataclass
class Outcome:
    """What became of a provider's messages under one sender.

    `urgent_wait_ms` is what the urgent ones that were taken waited together. `taken`, `deferred`, `waiting`
    and `reputation` are by hour; the last two are at its end.
    """

    messages: int
    accepted: int = 0
    inbox: int = 0
    deferrals: int = 0
    bounced: int = 0
    expired: int = 0
    urgent_taken: int = 0
    urgent_wait_ms: float = 0.0
    reputation_at_end: float = 0.0
    taken: list[int] = field(default_factory=list)
    deferred: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    reputation: list[float] = field(default_factory=list)

    def end_hour(self, waiting: int, reputation: float) -> None:
        """Take down an hour that has passed."""
        self.taken.append(self.accepted - sum(self.taken))
        self.deferred.append(self.deferrals - sum(self.deferred))
        self.waiting.append(waiting)
        self.reputation.append(reputation)
