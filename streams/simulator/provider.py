"""A mailbox provider that takes what it is used to from a sender it trusts, and defers the rest.

Its judgement is of shares, so that it does not hang on volume: complaints, unknown recipients and attempts
above the quota against a sender, clicks for it, all faded with a half-life. None of the real formulas is
known; this one has the signs that providers publish.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf
from typing import Final, Literal

import numpy as np

from schemas.profile import DAY_MS, HOUR_MS, MINUTE_MS
from streams.simulator.parameters import ProviderParameters

_TELLS_MS: Final = 4 * HOUR_MS  # so long after a message its clicks and complaints come, in the mean
_AT_ONCE_MS: Final = 10 * MINUTE_MS  # of an hour's quota may come at once
_PRIOR: Final = 200.0  # messages that a sender nobody knows counts as, all of them ordinary
_NEUTRAL: Final = 0.5  # share of the usual clicks at which a sender is neither liked nor disliked
_LEAST: Final = 0.5  # share of what it is used to that it takes from the worst
_GREYLIST_MS: Final = 5 * MINUTE_MS


@dataclass(frozen=True)
class Answer:
    """A reply, and for a message that was taken whether it went into the inbox, and what its reader does."""

    code: int
    text: str
    inbox: bool = False
    clicks: bool = False
    complains: bool = False

    @property
    def kind(self) -> Literal["accepted", "deferred", "bounced"]:
        """What it means."""
        return "accepted" if self.code < 400 else "deferred" if self.code < 500 else "bounced"


_BUSY: Final = {
    "gmail": Answer(421, "4.7.28 Gmail has detected an unusual rate of unsolicited mail"),
    "yahoo": Answer(
        421, "4.7.0 [TSS04] Messages temporarily deferred due to unexpected volume or user complaints"
    ),
    "outlook": Answer(451, "4.7.650 The mail server has been temporarily rate limited due to IP reputation"),
}
_BUSY_ELSEWHERE: Final = Answer(450, "4.7.1 too much mail for now, try again later")
_STORM: Final = Answer(421, "4.3.2 service not available, try again later")
_GREYLISTED: Final = Answer(451, "4.7.1 greylisted, try again in 5 minutes")
_UNKNOWN: Final = Answer(550, "5.1.1 no such user here")
_SPAM: Final = Answer(250, "2.0.0 OK")
_INBOX: Final = {
    (clicks, complains): Answer(250, "2.0.0 OK", True, clicks, complains)
    for clicks in (False, True)
    for complains in (False, True)
}


class MailboxProvider:
    """One provider over a span of virtual time; times in ms from its beginning, which never go back."""

    def __init__(self, name: str, parameters: ProviderParameters, days: int, seed: int) -> None:
        self.name, self._p = name, parameters.values()
        self._busy = _BUSY.get(name, _BUSY_ELSEWHERE)
        chance = np.random.default_rng([seed, *name.encode()])
        self._draws: list[float] = chance.random(1 << 16).tolist()
        strikes = np.flatnonzero(chance.random(days) < self._p["storms"])
        begins = (strikes + chance.random(len(strikes))) * DAY_MS
        lasts = self._p["storm_min"] * MINUTE_MS
        self._storms: list[tuple[float, float]] = [(begin, begin + lasts) for begin in begins.tolist()]
        self._storms.append((inf, inf))
        self._unknown_share, self._greylisted_share = self._p["unknown"], self._p["greylisted"]
        self._to_come: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])  # clicks, complaints
        self._first_seen: dict[int, float] = {}
        self._taken_for: defaultdict[int, int] = defaultdict(int)  # messages, by recipient
        self._hour = 0
        self._level = 0.0  # messages in the bucket that the quota empties
        self._level_at = 0.0
        self._usual = 0.0  # messages an hour at a day's busiest moment, faded
        self._lately = self._lately_at = self._busiest = 0.0
        self._taken = self._tried = _PRIOR
        self._clicks = _PRIOR * self._p["clicks"]
        self._complaints = _PRIOR * self._p["complaints"]
        self._unknown = _PRIOR * self._p["unknown"]
        self._pressed = 0.0
        self.reputation = self._judged()
        self._settle()
        self._passes_at = 0.0

    @property
    def quota(self) -> float:
        """Messages an hour that it takes now."""
        known = max(self._p["first_hourly"], self._p["growth"] * self._usual)
        return float(known * (_LEAST + (2 - 2 * _LEAST) * self.reputation))

    def answer(self, now: float, recipient: int) -> Answer:
        """Answer a message to a recipient."""
        if now >= self._passes_at:
            self._pass(now)
        self._tried += 1
        if self._storms[0][0] <= now:
            return _STORM
        self._empty(now)
        if self._level + 1 > self._most_at_once:
            self._pressed += 1
            return self._busy
        if self._draws[(recipient * 2_654_435_761 + 40_503) & 0xFFFF] < self._unknown_share:
            self._unknown += 1
            return _UNKNOWN
        if self._draws[(recipient * 2_654_435_761 + 81_006) & 0xFFFF] < self._greylisted_share:
            first = self._first_seen.setdefault(recipient, now)
            if now < first + _GREYLIST_MS:
                return _GREYLISTED
        return self._take(now, recipient)

    def answers(self, times: Sequence[float], recipients: Sequence[int]) -> list[tuple[Answer, int]]:
        """Answer messages in order of time: each answer, and how many in a row got it."""
        answers, place = [], 0
        while place < len(times):
            given, first = self.answer(times[place], recipients[place]), place
            place += 1
            if given is _STORM or given is self._busy:  # whoever comes before that ends is told the same
                place = bisect_left(times, self._until(given), place)
                self._tried += place - first - 1
                if given is self._busy:
                    self._pressed += place - first - 1
            answers.append((given, place - first))
        return answers

    def _until(self, refused: Answer) -> float:
        """Until when all are refused like the last one; no later than the hour's end, when it judges anew."""
        begin, end = self._storms[0]
        room = self._level_at + (self._level + 1 - self._most_at_once) / self._taken_per_ms
        return min(end if refused is _STORM else min(room, begin), float((self._hour + 1) * HOUR_MS))

    def _take(self, now: float, recipient: int) -> Answer:
        self._level += 1
        self._taken += 1
        # A day's busiest hour must not hang on which side of the full hour a message came.
        self._lately, self._lately_at = self._lately * exp((self._lately_at - now) / HOUR_MS) + 1, now
        self._busiest = max(self._busiest, self._lately)
        # What becomes of a message hangs on whose it is and which of theirs, not on what others got before.
        self._taken_for[recipient] += 1
        place = recipient * 2_654_435_761 + self._taken_for[recipient] * 97_003
        if self._draws[place & 0xFFFF] >= self._inbox_share:
            return _SPAM
        clicks = self._draws[(place + 7_919) & 0xFFFF] < self._p["clicks"]
        complains = self._draws[(place + 15_838) & 0xFFFF] < self._p["complaints"]
        if clicks or complains:
            tells = self._to_come[int((now + _TELLS_MS) // HOUR_MS)]
            tells[0] += clicks
            tells[1] += complains
        return _INBOX[clicks, complains]

    def _pass(self, now: float) -> None:
        """Let the hours pass: what is remembered fades, what people did is heard of."""
        while self._storms[0][1] <= now:
            self._storms.pop(0)
        hour = int(now // HOUR_MS)
        while self._hour < hour:
            self._hour += 1
            self._empty(self._hour * HOUR_MS)
            fades = 0.5 ** (1 / (24 * self._p["memory_days"]))
            if self._hour % 24 == 0:
                forgets = 0.5 ** (1 / self._p["usual_days"])
                self._usual, self._busiest = max(self._usual * forgets, self._busiest), 0.0
            prior = (1 - fades) * _PRIOR
            self._taken = self._taken * fades + prior
            self._tried = self._tried * fades + prior
            clicks, complaints = self._to_come.pop(self._hour, (0.0, 0.0))
            self._clicks = self._clicks * fades + prior * self._p["clicks"] + clicks
            self._complaints = self._complaints * fades + prior * self._p["complaints"] + complaints
            self._unknown = self._unknown * fades + prior * self._p["unknown"]
            self._pressed *= fades
            self.reputation = self._judged()
            self._settle()
        self._passes_at = min((self._hour + 1) * HOUR_MS, self._storms[0][1])

    def _empty(self, now: float) -> None:
        """Let the quota empty the bucket."""
        self._level = max(0.0, self._level - (now - self._level_at) * self._taken_per_ms)
        self._level_at = now

    def _settle(self) -> None:
        """What follows from the quota and the reputation."""
        self._taken_per_ms = self.quota / HOUR_MS
        self._most_at_once = max(1.0, self.quota * _AT_ONCE_MS / HOUR_MS)
        self._inbox_share = self.reputation**0.5

    def _judged(self) -> float:
        """Between 0 and 1; a sender of whom nothing is known is in the middle."""
        p = self._p
        against = (
            (self._complaints / self._taken - p["complaints"]) / (p["complaints_bad"] or inf)
            + (self._unknown / self._tried - p["unknown"]) / (p["unknown_bad"] or inf)
            + self._pressed / self._tried / (p["pressed_bad"] or inf)
        )
        clicks = self._clicks / self._taken / (p["clicks"] or inf)
        return 1 / (1 + exp(min(50.0, 2 * (against + _NEUTRAL - clicks))))
