"""What an SMTP server says on an open connection, reply by reply, in the order of the commands."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Final

_LONGEST_REPLY: Final = 1 << 15
_REFUSAL: Final = re.compile(rb"([45]\d\d)[ -]([^\r\n]*)\r?\n")


class Lost(Exception):
    """The connection was lost, or the reply is not there in time or is no reply of SMTP; it says which."""


class Wire(asyncio.Protocol):
    """A connection to which several commands may be written at once (RFC 2920).

    It takes the transport over from whoever opened it. What a server says unasked is its goodbye,
    perhaps with the reason (`unasked`): no later reply could be told apart, and the connection is closed.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        """Take over an open transport; all that was asked over it so far has been answered."""
        self._transport = transport
        self._unread = bytearray()
        self._lines: list[bytes] = []  # of a reply that has not ended yet
        self._replies: deque[tuple[int, str]] = deque()
        self._owed = 0
        self._why = ""
        self.unasked: tuple[int, str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        transport.set_protocol(self)

    @property
    def alive(self) -> bool:
        """Whether the connection is open as far as anyone knows."""
        return not self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that have not left this process; over TLS, only those that are not encrypted yet."""
        return int(self._transport.get_write_buffer_size())

    def write(self, data: bytes, replies: int = 0) -> None:
        """Send bytes, to which the server owes so many replies. Raises `Lost`, and sends nothing then."""
        if self._why or not self.alive:
            raise Lost(self._why or "the server closed the connection")
        self._owed += replies
        self._transport.write(data)

    async def reply(self, timeout_s: float) -> tuple[int, str]:
        """The next reply, code and text. Raises `Lost`."""
        if not self._replies and not self._why:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, self._fail, "no reply in time")
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if not self._replies:
            raise Lost(self._why)
        return self._replies.popleft()

    def abort(self) -> None:
        """Close at once: what a plain close would still write is not wanted any more."""
        self._transport.abort()

    def close(self) -> None:
        """Close once all has left."""
        self._transport.close()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Take what the server says."""
        self._unread += data
        while self._owed and not self._why and (end := self._unread.find(b"\n")) >= 0:
            line = bytes(self._unread[: end + 1])
            del self._unread[: end + 1]
            self._take(line)
        if len(self._unread) + sum(map(len, self._lines)) > _LONGEST_REPLY:
            self._fail("the reply is none of SMTP")
        if self._unread and not self._owed:
            said = _REFUSAL.match(self._unread)
            if said is not None and not self._why:
                self.unasked = int(said[1]), said[2].decode("utf-8", "surrogateescape").strip()
            self._fail("the server closed the connection")
            self.abort()
        self._wake()

    def eof_received(self) -> bool:
        """Note that the server says no more; the transport closes."""
        self._fail("the server closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._fail("the server closed the connection")

    def _take(self, line: bytes) -> None:
        if not (line[:3].isdigit() and line[3:4] in (b" ", b"-", b"\r", b"\n")):
            self._fail("the reply is none of SMTP")
            return
        self._lines.append(line[4:].strip())
        if line[3:4] != b"-":
            self._replies.append((int(line[:3]), b"\n".join(self._lines).decode("utf-8", "surrogateescape")))
            self._lines, self._owed = [], self._owed - 1

    def _fail(self, why: str) -> None:
        self._why = self._why or why
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done() and (self._replies or self._why):
            self._waiter.set_result(None)
