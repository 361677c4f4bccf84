"""Senders against mailbox providers in virtual time: ours, one of a fixed rate, and one that only retries.

The lanes are those of DELIVER: the same pace, order, rules for replies and times of retry. A message is
answered as soon as it is sent; connections are not simulated.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal, Protocol

import numpy as np

from models.lanes import Bucket, retry_at
from models.pacing import Heard, Pace, heard
from schemas.lanes import Lane, WarmUp
from schemas.profile import DAY_MS, HOUR_MS
from schemas.replies import Replies
from schemas.units import Rate
from streams.simulator.parameters import Parameters
from streams.simulator.provider import Answer, MailboxProvider

SenderName = Literal["ours", "fixed rate", "retries only"]
SENDERS: Final[tuple[SenderName, ...]] = ("ours", "fixed rate", "retries only")
_EPOCH: Final = 20_000 * DAY_MS  # the days of a lane are days of a calendar
_HOURS: Final = np.array(  # share of a day's messages by hour: chosen hours are people's, not a machine's
    [0.5, 0.3, 0.2, 0.2, 0.3, 0.6, 1.5, 3, 4.5, 5, 5, 5, 5.5, 5, 5, 5, 5.5, 7, 9, 10, 9.5, 7, 4, 1.9]
)
_FIRST_DAY: Final = 2  # so many times less than a usual day's goes on the first
_BURST_DAYS: Final = (2, 5, 9, 12)  # twice a week, at ten in the morning


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
        hours = chance.choice(24, usual, p=_HOURS / _HOURS.sum())
        at = (chance.integers(0, days, usual) * 24 + hours + chance.random(usual)) * HOUR_MS
        urgent = chance.random(usual) < sender.transactional.value
        parts = [(at, of_whom, urgent)]
        for day in (day for day in _BURST_DAYS if day < days):
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

    `deferred`, `waiting` and `reputation` are by hour, and waiting is at its end.
    """

    messages: int
    accepted: int = 0
    inbox: int = 0
    deferrals: int = 0
    bounced: int = 0
    expired: int = 0
    urgent_wait_ms: float = 0.0
    reputation_at_end: float = 0.0
    deferred: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    reputation: list[float] = field(default_factory=list)


class Sender(Protocol):
    """Says when the next message may go; told of each that does, and of each answer."""

    def opens_at(self, now: float, urgent: bool) -> float:
        """When the next message may go."""
        ...

    def sent(self, now: float, urgent: bool, answer: Answer) -> float:
        """A message went and was answered; for how long (ms) it must not be tried again."""
        ...


class Ours:
    """DELIVER's own lane."""

    def __init__(self, provider: str, lane: Lane, replies: Replies) -> None:
        self._provider, self._replies = provider, replies
        self._pace = Pace(lane, _EPOCH)

    def opens_at(self, now: float, urgent: bool) -> float:
        """See `Sender.opens_at`."""
        return self._pace.opens_at(_EPOCH + now, urgent) - _EPOCH

    def sent(self, now: float, urgent: bool, answer: Answer) -> float:
        """See `Sender.sent`."""
        self._pace.begins(_EPOCH + now, urgent)
        says = Heard("accepted")
        if answer.kind != "accepted":
            rule = self._replies.of(self._provider, answer.code, answer.text)
            says = heard(rule, answer.kind == "deferred")
        self._pace.hears(_EPOCH + now, says)
        return says.again


class FixedRate:
    """A sender that goes at its rate, whatever it is answered."""

    def __init__(self, lane: Lane) -> None:
        self._bucket = Bucket.of(lane.rate, lane.burst)
        self._level = self._bucket.emptied(0)

    def opens_at(self, now: float, urgent: bool) -> float:
        """See `Sender.opens_at`."""
        return self._bucket.opens_at(self._level)

    def sent(self, now: float, urgent: bool, answer: Answer) -> float:
        """See `Sender.sent`."""
        self._level = self._bucket.after(self._level, now)
        return 0.0


class RetriesOnly:
    """A sender that sends whatever is due, and tries again what was deferred."""

    def opens_at(self, now: float, urgent: bool) -> float:
        """See `Sender.opens_at`."""
        return now

    def sent(self, now: float, urgent: bool, answer: Answer) -> float:
        """See `Sender.sent`."""
        return 0.0


def lane_of(parameters: Parameters, provider: str, days: int, recipients: int) -> Lane:
    """The lane that ours and the fixed rate are set to: some times the mean demand; ours warms up to it."""
    sender = parameters.sender
    people = recipients * parameters.provider[provider].share.value
    bursts = sum(day < days for day in _BURST_DAYS) / days * sender.burst_share.value
    per_day = people * (sender.messages_a_day.value + bursts)
    rate = max(per_day * sender.rate_above_mean.value / 86_400, 1 / 3600)
    return Lane(
        rate=Rate(rate),
        reserve=min(0.5, 2 * sender.transactional.value),
        warm_up=WarmUp(first_day=max(50, round(per_day / _FIRST_DAY))),
    )


def run(
    parameters: Parameters,
    replies: Replies,
    provider: str,
    sender: SenderName,
    days: int,
    recipients: int,
    seed: int,
) -> Outcome:
    """Send everything that a provider's recipients are to get in so many days, until the last has ended."""
    lane = lane_of(parameters, provider, days, recipients)
    made: Mapping[SenderName, Sender] = {
        "ours": Ours(provider, lane, replies),
        "fixed rate": FixedRate(lane),
        "retries only": RetriesOnly(),
    }
    demand = Demand.of(parameters, provider, days, recipients, seed)
    mailbox = MailboxProvider(provider, parameters.provider[provider], days + 2, seed)
    return _send(demand, made[sender], mailbox, in_order=sender == "ours")


def _send(demand: Demand, sender: Sender, mailbox: MailboxProvider, in_order: bool) -> Outcome:
    """Let messages go as the sender says; by urgency and deadline, or as they come."""
    return _Run(demand, sender, mailbox, in_order).outcome()


class _Run:
    """A sender's messages to one provider: those to come, those that may go, and those to try again."""

    def __init__(self, demand: Demand, sender: Sender, mailbox: MailboxProvider, in_order: bool) -> None:
        self._released, self._expires = demand.released.tolist(), demand.expires.tolist()
        self._recipient, self._urgent = demand.recipient.tolist(), demand.urgent.tolist()
        self._sender, self._mailbox, self._in_order = sender, mailbox, in_order
        self._attempts = [0] * len(self._released)
        self._gone: set[int] = set()
        self._ready: list[tuple[bool, float, int]] = []  # whether it can wait, its place in the order, which
        self._later: list[tuple[float, int]] = []
        self._place = self._hour = self._noted = 0
        self._waits: list[float] = []
        self._outcome = Outcome(len(self._released))

    def outcome(self) -> Outcome:
        """Send until the last message has ended."""
        now = 0.0
        while (comes := self._take_up(now)) < inf or self._ready:
            if not self._ready:
                now = comes
                continue
            which = self._ready[0][2]
            opens = self._sender.opens_at(now, self._urgent[which])
            if opens > now:
                now = min(opens, comes)
                if comes < opens:
                    continue
            heapq.heappop(self._ready)
            self._note_hours(now)
            self._try(which, now)
        self._outcome.reputation_at_end = self._mailbox.reputation
        self._outcome.urgent_wait_ms = float(np.mean(self._waits)) if self._waits else 0.0
        return self._outcome

    def _take_up(self, now: float) -> float:
        """Line up what has come by now; returns when more comes."""
        while self._place < len(self._released) and self._released[self._place] <= now:
            self._line_up(self._place)
            self._place += 1
        while self._later and self._later[0][0] <= now:
            self._line_up(heapq.heappop(self._later)[1])
        released = self._released[self._place] if self._place < len(self._released) else inf
        return min(released, self._later[0][0]) if self._later else released

    def _line_up(self, which: int) -> None:
        if self._in_order:
            entry = (not self._urgent[which], self._expires[which], which)
        else:
            entry = (False, self._released[which], which)
        heapq.heappush(self._ready, entry)

    def _try(self, which: int, now: float) -> None:
        outcome = self._outcome
        if now >= self._expires[which]:
            outcome.expired += 1
        elif self._recipient[which] in self._gone:
            outcome.bounced += 1
        else:
            answer = self._mailbox.answer(now, self._recipient[which])
            pause = self._sender.sent(now, self._urgent[which], answer)
            self._attempts[which] += 1
            if answer.kind == "accepted":
                outcome.accepted += 1
                outcome.inbox += answer.inbox
                if self._urgent[which]:
                    self._waits.append(now - self._released[which])
            elif answer.kind == "bounced":
                outcome.bounced += 1
                self._gone.add(self._recipient[which])
            else:
                outcome.deferrals += 1
                again_at = max(retry_at(int(now), self._attempts[which]), now + pause)
                heapq.heappush(self._later, (min(again_at, self._expires[which]), which))

    def _note_hours(self, now: float) -> None:
        """Take down the hours that have passed."""
        while self._hour < now // HOUR_MS:
            outcome = self._outcome
            outcome.deferred.append(outcome.deferrals - self._noted)
            self._noted = outcome.deferrals
            outcome.waiting.append(len(self._ready) + len(self._later))
            outcome.reputation.append(self._mailbox.reputation)
            self._hour += 1
