"""Messages handed to an SMTP relay, over connections that are kept for the next ones."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from sinks.transports import Begun, Message, Outcome
from sinks.transports.session import ClosedBefore, NotConnected, Relay, Session, Tls

__all__ = ["SmtpTransport", "Tls"]

# Below the five minutes after which RFC 5321 lets a server hang up, and what many set instead.
_IDLE_S: Final = 20.0


class SmtpTransport:
    """The port `sinks.transports.Transport` over SMTP, for one lane and one event loop.

    It has at most `connections` at once; one is closed after `messages_per_connection`, or after 20 s without
    a message. One that the server closed meanwhile is replaced, and the message goes over the fresh one.
    `timeout_s` is for the connection and for each reply but the last; `verdict_timeout_s` is for that one, to
    the whole message, which a relay may scan before it answers: RFC 5321, 4.5.3.2.6, gives it 10 minutes.
    Waiting for a free connection has no limit.

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
        verdict_timeout_s: float = 600.0,
        local_hostname: str,
    ) -> None:
        context = None if tls == "none" else ssl.create_default_context()
        self._relay = Relay(
            host, port, username, password, tls, timeout_s, verdict_timeout_s, local_hostname, context
        )
        self._messages_per_connection = messages_per_connection
        self._free = asyncio.Semaphore(connections)
        self._idle: list[tuple[Session, asyncio.TimerHandle]] = []  # oldest first
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """See `Transport.send`."""
        async with self._free:
            kept, begun = self._take(), Begun()
            if kept is not None:
                try:
                    return await self._send(kept, message, still_wanted)
                except ClosedBefore as error:  # while nobody looked: a fresh one will know better
                    if not begun.lately:
                        return Outcome("deferred", detail=str(error))
                    still_wanted = begun.anew(still_wanted)
            try:
                fresh = await Session.open(self._relay)
            except NotConnected as error:
                return Outcome("not_sent", error.code, error.detail)
            try:
                return await self._send(fresh, message, still_wanted)
            except ClosedBefore as error:
                return Outcome("deferred", detail=str(error))

    async def close(self) -> None:
        """See `Transport.close`."""
        for session, timer in self._idle:
            timer.cancel()
            self._close(session)
        self._idle.clear()
        await asyncio.gather(*self._closing)

    async def _send(self, session: Session, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        try:
            return await session.hand_over(message, still_wanted)
        finally:
            if session.used >= self._messages_per_connection:
                await session.close()  # here, because until then it counts as one of the lane's
            elif session.alive:
                self._put_back(session)

    def _take(self) -> Session | None:
        """Return the kept connection that was used last and still lives."""
        while self._idle:
            session, timer = self._idle.pop()
            timer.cancel()
            if session.alive:
                return session
        return None

    def _put_back(self, session: Session) -> None:
        timer = asyncio.get_running_loop().call_later(_IDLE_S, self._expire, session)
        self._idle.append((session, timer))

    def _expire(self, session: Session) -> None:
        self._idle = [kept for kept in self._idle if kept[0] is not session]
        self._close(session)

    def _close(self, session: Session) -> None:
        """Close a connection without making anyone wait for the server's goodbye."""
        task = asyncio.get_running_loop().create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
