"""A sender whose transport answers as a test says; no Kafka, no SMTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from models.deliver import Claim, Result
from models.order import Ranks
from schemas.lanes import Lane, Lanes
from schemas.replies import NO_RULES, Replies
from schemas.scopes import Scopes
from schemas.units import Rate
from sinks.transports import Message, Outcome
from streams.sender import Sender
from streams.sending_lane import Prepared

FOREVER = 4_000_000_000_000


class Scripted:
    """A transport that answers as it is told and keeps what it was given."""

    def __init__(self, answer: Callable[[Message], Outcome] = lambda _: Outcome("accepted", 250)) -> None:
        self.answer, self.sent = answer, list[str]()
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        if not still_wanted():
            return Outcome("vetoed")
        await self.gate.wait()
        if not still_wanted():
            return Outcome("vetoed")
        self.sent.append(message.dispatch_id)
        return self.answer(message)

    async def close(self) -> None: ...


def claim(name: str, lane: str = "gmail", expires_at: int = FOREVER, urgent: bool = False) -> Claim:
    return Claim(name, f"r-{name}", "win_back", "win_back", lane, expires_at, 1, urgent, "st-1")


def prepare(claims: Sequence[Claim], now: int) -> list[Prepared | Result]:
    return [Prepared(Message(c.dispatch_id, "someone@mail.example", b""), "t@1") for c in claims]


def sender(
    transport: Scripted,
    rate: str = "1000/s",
    prepare: Any = prepare,
    replies: Replies = NO_RULES,
    **more: Any,
) -> Sender:
    lanes = Lanes(default=Lane(rate=Rate.parse(rate), **{"reserve": 0, **more}))
    return Sender(
        lanes,
        replies,
        Ranks({}),
        Scopes({"win_back": frozenset({"lapsing"})}),
        prepare,
        lambda name, lane: transport,
    )


async def results(of: Sender, count: int) -> dict[str, Result]:
    """What comes back, once so many have."""
    found: dict[str, Result] = {}
    async with asyncio.timeout(20):
        while len(found) < count:
            found |= {result.dispatch_id: result for result in of.feedback(0, None).results}
            await asyncio.sleep(0.005)
    return found


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)
