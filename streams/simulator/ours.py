"""DELIVER's lane before a provider, in virtual time.

It has the same pace, order, rules for replies and times of retry. A message is answered as soon as it is
sent; connections are not simulated.
"""

import heapq
from math import inf
from typing import Final

from models.lanes import retry_at
from models.pacing import Heard, Pace, heard
from schemas.lanes import Lane
from schemas.profile import DAY_MS, HOUR_MS
from schemas.replies import Replies
from streams.simulator.demand import Demand, Outcome
from streams.simulator.provider import MailboxProvider

EPOCH: Final = 20_000 * DAY_MS  # the days of a lane are days of a calendar


def send(demand: Demand, mailbox: MailboxProvider, lane: Lane, replies: Replies) -> Outcome:
    """Send until the last message has ended: by urgency and deadline, as fast as the lane goes."""
    return _Run(demand, mailbox, lane, replies).outcome()


class _Run:
    """The messages to one provider: those to come, those that may go, and those to try again."""

    def __init__(self, demand: Demand, mailbox: MailboxProvider, lane: Lane, replies: Replies) -> None:
        self._released, self._expires = demand.released.tolist(), demand.expires.tolist()
        self._recipient, self._urgent = demand.recipient.tolist(), demand.urgent.tolist()
        self._mailbox, self._replies = mailbox, replies
        self._pace = Pace(lane, EPOCH)
        self._attempts = [0] * len(self._released)
        self._gone: set[int] = set()
        self._ready: list[tuple[bool, float, int]] = []  # whether it can wait, until when, which
        self._later: list[tuple[float, int]] = []
        self._place = self._hour = 0
        self._outcome = Outcome(len(self._released))

    def outcome(self) -> Outcome:
        """Send until the last message has ended."""
        now, comes = 0.0, -inf
        opens: dict[bool, float] = {}  # by whether it is urgent, until a message goes
        while True:
            if now >= comes:
                comes = self._take_up(now)
            if not self._ready:
                if comes == inf:
                    break
                now = comes
                continue
            which = self._ready[0][2]
            urgent = self._urgent[which]
            if urgent not in opens:
                opens[urgent] = self._pace.opens_at(EPOCH + now, urgent) - EPOCH
            if opens[urgent] > comes:
                now = max(now, comes)
                continue
            now = max(now, opens[urgent])
            heapq.heappop(self._ready)
            self._note_hours(now)
            if self._try(which, now):
                opens.clear()
                comes = min(comes, self._later[0][0]) if self._later else comes
        self._outcome.reputation_at_end = self._mailbox.reputation
        return self._outcome

    def _take_up(self, now: float) -> float:
        """Line up what has come by now; returns when more comes."""
        while self._place < len(self._released) and self._released[self._place] <= now:
            self._line_up(self._place)
            self._place += 1
        while self._later and self._later[0][0] <= now:
            self._line_up(heapq.heappop(self._later)[1])
        comes = self._released[self._place] if self._place < len(self._released) else inf
        return min(comes, self._later[0][0]) if self._later else comes

    def _line_up(self, which: int) -> None:
        heapq.heappush(self._ready, (not self._urgent[which], self._expires[which], which))

    def _try(self, which: int, now: float) -> bool:
        """Send a message, unless it has expired or nobody is there; returns whether it was sent."""
        outcome = self._outcome
        if self._recipient[which] in self._gone:
            outcome.bounced += 1
            return False
        if now >= self._expires[which]:
            outcome.expired += 1
            return False
        answer = self._mailbox.answer(now, self._recipient[which])
        says = Heard("accepted")
        if answer.kind != "accepted":
            rule = self._replies.of(self._mailbox.name, answer.code, answer.text)
            says = heard(rule, answer.kind == "deferred")
        self._pace.begins(EPOCH + now, self._urgent[which])
        self._pace.hears(EPOCH + now, says)
        self._attempts[which] += 1
        if answer.kind == "accepted":
            outcome.accepted += 1
            outcome.inbox += answer.inbox
            if self._urgent[which]:
                outcome.urgent_taken += 1
                outcome.urgent_wait_ms += now - self._released[which]
        elif answer.kind == "bounced":
            outcome.bounced += 1
            self._gone.add(self._recipient[which])
        else:
            outcome.deferrals += 1
            again_at = max(retry_at(int(now), self._attempts[which]), now + says.again)
            heapq.heappush(self._later, (min(again_at, self._expires[which]), which))
        return True

    def _note_hours(self, now: float) -> None:
        """Take down the hours that have passed."""
        while self._hour < now // HOUR_MS:
            self._outcome.end_hour(len(self._ready) + len(self._later), self._mailbox.reputation)
            self._hour += 1
