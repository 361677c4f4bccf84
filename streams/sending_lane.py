"""A lane as the sender has it: the messages that are claimed, its pace, and whether its server answers."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from math import exp
from typing import Final

from models.deliver import Claim
from models.pacing import Pace
from sinks.transports import Message, Transport

# So much of a lane's rate is claimed ahead, that a slow commit does not leave it idle; and no more than it
# began in as long just now, and finds free connections.
AHEAD_S: Final = 0.5


@dataclass(frozen=True)
class Prepared:
    """A message ready to go, and what it was rendered from, name@hash."""

    message: Message
    template: str


@dataclass
class Claimed:
    """A message that may go, and when its claim was made, of `uptime`."""

    claim: Claim
    prepared: Prepared
    since: float


@dataclass
class SendingLane:
    """A lane of one partition: what is queued, how fast it goes, and whether its server answers."""

    pace: Pace
    connections: int
    transport: Transport
    urgent: deque[Claimed] = field(default_factory=deque)
    others: deque[Claimed] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    preparing: int = 0
    under_way: int = 0
    begun: float = 0.0  # messages by `begun_at`, of `uptime`, of which old ones count less
    begun_at: float = 0.0
    rests_until: float = 0.0
    failures: int = 0

    @property
    def queue(self) -> deque[Claimed]:
        """Where the message stands whose turn it is."""
        return self.urgent or self.others

    @property
    def taken_up(self) -> int:
        """How many are claimed and have not begun."""
        return len(self.urgent) + len(self.others) + self.preparing

    @property
    def free(self) -> int:
        """How many more may be under way at once."""
        return (1 if self.pace.probing else self.connections) - self.under_way

    def lately(self, clock: float) -> float:
        """How many began within `AHEAD_S`, about, each counting less the longer ago it was."""
        return self.begun * exp((self.begun_at - clock) / AHEAD_S)

    def begins(self, clock: float) -> None:
        """A message begins."""
        self.begun, self.begun_at = self.lately(clock) + 1, clock
        self.under_way += 1
