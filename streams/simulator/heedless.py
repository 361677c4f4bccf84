"""Senders that heed no answer, in virtual time: at a fixed rate, or at once whatever is due.

What they try within the time to the first retry is known when it begins, so it is handled together.
"""

from collections import defaultdict, deque
from typing import Final

import numpy as np

from models.lanes import Bucket, retry_at
from schemas.profile import HOUR_MS
from streams.simulator.demand import Demand, Outcome
from streams.simulator.provider import MailboxProvider

_RETRIES: Final = np.array([retry_at(0, 1 + attempts) for attempts in range(128)])
_STEP_MS: Final = int(_RETRIES[0])
Messages = tuple[np.ndarray, np.ndarray]  # times (ms), and which go then


def send(demand: Demand, mailbox: MailboxProvider, bucket: Bucket | None) -> Outcome:
    """Send until the last message has ended: as they are due, as fast as the bucket lets them."""
    return _Run(demand, mailbox, bucket).outcome()


class _Run:
    """The messages to one provider, step by step."""

    def __init__(self, demand: Demand, mailbox: MailboxProvider, bucket: Bucket | None) -> None:
        self._demand, self._mailbox, self._bucket = demand, mailbox, bucket
        self._level = bucket.emptied(0) if bucket else 0.0
        self._expires, self._recipient = demand.expires.tolist(), demand.recipient.tolist()
        self._line: deque[tuple[float, int]] = deque()  # since when it may go, and which
        self._attempts = np.zeros(len(demand.released), np.int8)
        self._is_gone = bytearray(demand.recipient.max(initial=-1) + 1)
        self._gone = np.frombuffer(self._is_gone, np.bool_)  # the same bytes
        self._again: defaultdict[int, list[Messages]] = defaultdict(list)  # by step, due in it
        self._lost: defaultdict[int, int] = defaultdict(int)  # by step, those that expire before they are due
        self._outcome = Outcome(len(demand.released))

    def outcome(self) -> Outcome:
        """Send until the last message has ended."""
        step, o = 0, self._outcome
        while o.accepted + o.bounced + o.expired < o.messages:
            at, which = self._going(self._due(step), (step + 1) * _STEP_MS)
            if len(which):
                self._send(at, which)
            o.expired += self._lost.pop(step, 0)
            step += 1
            if step * _STEP_MS % HOUR_MS == 0:
                self._note_hour(step * _STEP_MS)
        o.reputation_at_end = self._mailbox.reputation
        return o

    def _due(self, step: int) -> Messages:
        """What may go from within a step on, in order of time."""
        first, last = np.searchsorted(self._demand.released, (step * _STEP_MS, (step + 1) * _STEP_MS))
        new = self._demand.released[first:last], np.arange(first, last)
        at, which = (np.concatenate(each) for each in zip(new, *self._again.pop(step, []), strict=True))
        order = np.argsort(at, kind="stable")
        return at[order], which[order]

    def _going(self, due: Messages, until: float) -> Messages:
        """What goes before a time; what has expired or has no recipient ends instead."""
        if self._bucket is None:
            lives = ~self._gone[self._demand.recipient[due[1]]]
            self._outcome.bounced += int((~lives).sum())
            return due[0][lives], due[1][lives]
        self._line.extend(zip(*(each.tolist() for each in due), strict=True))
        # As `Bucket` has it, written out: there are millions.
        line, expires, recipient, is_gone = self._line, self._expires, self._recipient, self._is_gone
        level, interval = self._level, self._bucket.interval
        rest = (self._bucket.burst - 1) * interval
        going: list[tuple[float, int]] = []
        while line:
            since, which = line[0]
            now = max(since, level - rest)
            if now >= until:
                break
            line.popleft()
            if is_gone[recipient[which]]:
                self._outcome.bounced += 1
            elif now >= expires[which]:
                self._outcome.expired += 1
            else:
                level = max(level, now) + interval
                going.append((now, which))
        self._level = level
        return np.array([at for at, _ in going]), np.array([which for _, which in going], np.int64)

    def _send(self, at: np.ndarray, which: np.ndarray) -> None:
        runs = self._mailbox.answers(at.tolist(), self._demand.recipient[which].tolist())
        code = np.repeat([answer.code for answer, _ in runs], [times for _, times in runs])
        o = self._outcome
        accepted, bounced, deferred = code < 400, code >= 500, (code >= 400) & (code < 500)
        o.accepted += int(accepted.sum())
        o.inbox += sum(times for answer, times in runs if answer.inbox)
        o.bounced += int(bounced.sum())
        o.deferrals += int(deferred.sum())
        self._gone[self._demand.recipient[which[bounced]]] = True
        urgent = accepted & self._demand.urgent[which]
        o.urgent_taken += int(urgent.sum())
        o.urgent_wait_ms += float((at[urgent] - self._demand.released[which[urgent]]).sum())
        self._try_again(at[deferred], which[deferred])

    def _try_again(self, at: np.ndarray, which: np.ndarray) -> None:
        again = at + _RETRIES[self._attempts[which]]
        self._attempts[which] += 1
        expires = self._demand.expires[which]
        for step, times in zip(
            *np.unique(expires[again >= expires] // _STEP_MS, return_counts=True), strict=True
        ):
            self._lost[int(step)] += int(times)
        again, which = again[again < expires], which[again < expires]
        steps = again // _STEP_MS
        for step in np.unique(steps):
            self._again[int(step)].append((again[steps == step], which[steps == step]))

    def _note_hour(self, end: float) -> None:
        """Take down an hour that has passed."""
        o = self._outcome
        released = int(np.searchsorted(self._demand.released, end))
        o.end_hour(released - o.accepted - o.bounced - o.expired, self._mailbox.reputation)
