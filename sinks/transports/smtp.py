"""Messages handed to an SMTP relay, over connections that are kept for the next ones."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sinks.transports import Message, Outcome
from sinks.transports.session import ClosedBefore, NotConnected, Relay, Session, Tls

__all__ = ["SmtpTransport", "Tls"]

# Below the five minutes after which RFC 5321 lets a server hang up, and what many set instead.
_IDLE_S: Final = 20.0


@dataclass
class _Lane:
    """The connections of a lane: `slots` are those it may still use, `idle` those that wait, oldest first."""

    slots: asyncio.Semaphore
    idle: list[tuple[Session, asyncio.TimerHandle]] = field(default_factory=list)


class SmtpTransport:
    """The port `sinks.transports.Transport` over SMTP, for one event loop.

    Each lane has at most `connections` at once; one is closed after `messages_per_connection`, or after 20 s
    without a message. One that the server closed meanwhile is replaced, and the message goes over the fresh
    one. `timeout_s` is for the connection and for each reply; waiting for a free connection has no limit.

    `starttls` and `tls` require a certificate that this machine trusts for `host`. A relay that does not let
    us in (no TLS, a wrong password) gives `not_sent`, as an outage does: it is not the message's fault.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        username: str | None,
        password: str | None,
        tls: Tls,
        connections: int,
        messages_per_connection: int,
        timeout_s: float,
        local_hostname: str,
    ) -> None:
        context = None if tls == "none" else ssl.create_default_context()
        self._relay = Relay(host, port, username, password, tls, timeout_s, local_hostname, context)
        self._connections = connections
        self._messages_per_connection = messages_per_connection
        self._lanes: dict[str, _Lane] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """See `Transport.send`."""
        lane = self._lanes.setdefault(message.lane, _Lane(asyncio.Semaphore(self._connections)))
        async with lane.slots:
            kept = self._take(lane)
            if kept is not None:
                try:
                    return await self._send(lane, kept, message, still_wanted)
                except ClosedBefore:
                    pass  # while nobody looked: a fresh one will know better
            try:
                fresh = await Session.open(self._relay)
                return await self._send(lane, fresh, message, still_wanted)
            except NotConnected as error:
                return Outcome("not_sent", error.code, detail=error.detail)
            except ClosedBefore:
                return Outcome(
                    "not_sent", detail="the server closed a fresh connection without a reply to MAIL"
                )

    async def close(self) -> None:
        """See `Transport.close`."""
        for lane in self._lanes.values():
            for session, timer in lane.idle:
                timer.cancel()
                self._close(session)
            lane.idle.clear()
        await asyncio.gather(*self._closing)

    async def _send(
        self, lane: _Lane, session: Session, message: Message, still_wanted: Callable[[], bool]
    ) -> Outcome:
        try:
            if not still_wanted():
                return Outcome("vetoed")
            return await session.hand_over(message)
        finally:
            if session.used >= self._messages_per_connection:
                await session.close()  # here, because until then it counts as one of the lane's
            elif session.alive:
                self._put_back(lane, session)

    def _take(self, lane: _Lane) -> Session | None:
        """Return the kept connection that was used last and still lives."""
        while lane.idle:
            session, timer = lane.idle.pop()
            timer.cancel()
            if session.alive:
                return session
        return None

    def _put_back(self, lane: _Lane, session: Session) -> None:
        timer = asyncio.get_running_loop().call_later(_IDLE_S, self._expire, lane, session)
        lane.idle.append((session, timer))

    def _expire(self, lane: _Lane, session: Session) -> None:
        lane.idle = [kept for kept in lane.idle if kept[0] is not session]
        self._close(session)

    def _close(self, session: Session) -> None:
        """Close a connection without making anyone wait for the server's goodbye."""
        task = asyncio.get_running_loop().create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
