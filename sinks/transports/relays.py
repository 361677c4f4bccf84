"""Several servers for the messages of one lane: they share them, and take over from one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sinks.transports import Begun, Message, Outcome, Transport

_FIRST_REST_S: Final = 1.0
_LONGEST_REST_S: Final = 60.0
_DROPPED: Final = ("deferred", "unknown")  # without a reply's code


@dataclass
class Health:
    """How a server has answered of late, whatever lane asked it: all transports to it share one of these.

    `told` learns, of a server that stops answering, for how many seconds it is left alone and why.
    """

    told: Callable[[float, str], None]
    under_way: int = 0
    failures: int = 0
    rests_until: float = 0.0

    def usable(self, now: float) -> bool:
        """Whether it may have another message; after a failure one at a time tries it."""
        return not self.failures or (now >= self.rests_until and not self.under_way)

    def learn(self, now: float, outcome: Outcome) -> None:
        """Take down how a message fared."""
        if _failed(outcome):
            rest = min(_FIRST_REST_S * 2 ** min(self.failures, 10), _LONGEST_REST_S)
            if now >= self.rests_until:  # what was under way when it began to rest says nothing new
                self.failures, self.rests_until = self.failures + 1, now + rest
                self.told(rest, outcome.detail)
        elif outcome.kind != "vetoed":
            self.failures = 0


class Relays:
    """The port `sinks.transports.Transport` over several others, each with the health of its server.

    A message goes to the usable one with the fewest under way. Where that certainly did not take it, because
    it could not be reached, did not let us in, or dropped it, the next one gets it, within a second or not in
    this attempt; where it may have taken it the outcome is unknown, as with one server.
    """

    def __init__(self, relays: Sequence[tuple[Transport, Health]]) -> None:
        self._relays = list(relays)

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """See `Transport.send`. Where no server is usable, one is asked all the same."""
        clock, begun = asyncio.get_running_loop().time, Begun()
        left = self._relays
        while True:
            transport, health = min(left, key=lambda each: _preference(each[1], clock()))
            health.under_way += 1
            try:
                outcome = await transport.send(message, still_wanted)
            finally:
                health.under_way -= 1
            if left is self._relays or outcome.kind != "deferred":  # else it may be the message's doing
                health.learn(clock(), outcome)
            left = [each for each in left if each[0] is not transport and each[1].usable(clock())]
            again = _failed(outcome) and outcome.kind != "unknown" and begun.lately
            if not left or not again:
                return outcome
            still_wanted = begun.anew(still_wanted)

    async def close(self) -> None:
        """See `Transport.close`."""
        await asyncio.gather(*(transport.close() for transport, _ in self._relays))


def _preference(health: Health, now: float) -> tuple[bool, float, int]:
    """Usable ones first, of the others the one whose rest ends first; then the fewest under way."""
    usable = health.usable(now)
    return not usable, 0.0 if usable else health.rests_until, health.under_way


def _failed(outcome: Outcome) -> bool:
    """Whether the server is at fault: it was not reached, did not let us in, or went away."""
    return outcome.kind == "not_sent" or (outcome.kind in _DROPPED and outcome.code is None)
