"""Pacing of a lane: a token bucket in its scheduler form, GCRA (ITU-T I.371), and when to try again.

Times are milliseconds of the deployment's clock, so that a lane's rate holds on that clock.
"""

import math
from dataclasses import dataclass
from typing import Final

from schemas.profile import HOUR_MS, MINUTE_MS

_FIRST_RETRY_MS: Final = 5 * MINUTE_MS
_LONGEST_RETRY_MS: Final = 2 * HOUR_MS
_DEFAULT_BURST_S: Final = 0.1


@dataclass(frozen=True)
class Bucket:
    """Lets one message go every `interval` ms on average, at most `burst` at once after a rest.

    The state is one number, the theoretical arrival time: when the bucket would be full again. In any
    stretch of t ms at most t / interval + burst messages go.
    """

    interval: float
    burst: int

    @classmethod
    def of(cls, rate: float, burst: int | None) -> "Bucket":
        """Bucket of a rate, in messages a second; without a `burst` a tenth of a second's may go at once."""
        return cls(1000 / rate, burst or max(1, math.floor(rate * _DEFAULT_BURST_S)))

    def emptied(self, now: float) -> float:
        """State of a bucket that has just been emptied: whoever takes a lane over begins with it."""
        return now + self.burst * self.interval

    def opens_at(self, state: float) -> float:
        """When the next message may go."""
        return state - (self.burst - 1) * self.interval

    def most_until(self, state: float, until: float) -> int:
        """How many messages may go up to `until`, if each goes as soon as it may."""
        return max(0, math.floor((until - self.opens_at(state)) / self.interval) + 1)

    def after(self, state: float, now: float) -> float:
        """State once a message has gone at `now`."""
        return max(state, now) + self.interval


def retry_at(now: int, attempts: int) -> int:
    """When a message that was deferred `attempts` times is tried again: 5 min later, doubling up to 2 h."""
    return now + min(_FIRST_RETRY_MS << min(attempts - 1, 16), _LONGEST_RETRY_MS)
