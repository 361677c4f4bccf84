"""One SMTP connection: opened, used for one message after another, closed.

aiosmtplib is named only here, and opens the connection. It does not send over it: it does not tell how far a
message had got when the connection was lost, and so whether the server may have it, and writes one command at
a time.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import aiosmtplib
from aiosmtplib.protocol import normalize_message_line_endings

from sinks.transports import NO_SENDER, NOT_AN_ADDRESS, Message, Outcome
from sinks.transports.addresses import is_mailbox, sender_of
from sinks.transports.replies import Stage, outcome_of, without_addresses
from sinks.transports.wire import Lost, Wire

Tls = Literal["none", "starttls", "tls"]

_LOOK_EVERY_S: Final = 0.01
_QUIT_S: Final = 1.0
_GO_ON: Final = 354


@dataclass(frozen=True)
class Relay:
    """The server to which messages are handed, and how.

    `verdict_timeout_s` is for the reply to a whole message, `timeout_s` for every other.
    """

    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    tls: Tls
    timeout_s: float
    verdict_timeout_s: float
    local_hostname: str
    context: ssl.SSLContext | None = field(repr=False)


class NotConnected(Exception):
    """No session could be had, so nothing was sent: try again later. `code` is the reply's, if one came."""

    def __init__(self, detail: str, code: int | None = None) -> None:
        """Say why, without an address."""
        super().__init__(detail)
        self.detail = detail
        self.code = code


class ClosedBefore(Exception):
    """The server had closed the connection before the message began. Use a fresh one."""


class _Unwanted(Exception):
    """The caller does not want the message any more, and the server does not have the end of it."""


_Command = tuple[Stage, bytes, tuple[int, ...]]  # what is said, and the replies that let it go on


def _why(error: Exception) -> str:
    return without_addresses(f"{type(error).__name__}: {error}", "")


class Session:
    """An open connection for one message at a time; `used` counts those that were begun."""

    def __init__(self, wire: Wire, extensions: Collection[str], relay: Relay) -> None:
        """Take an open connection and what its server offers; `Session.open` makes one."""
        self._wire = wire
        self._extensions = extensions
        self._relay = relay
        self.used = 0

    @classmethod
    async def open(cls, relay: Relay) -> Session:
        """Connect, greet, and where that is set up, change to TLS and log in.

        Raises
        ------
        NotConnected
            Any of it did not work. With `starttls` a server without it is refused, and a password is not
            sent without TLS.
        """
        if relay.username is not None and relay.tls == "none":
            raise NotConnected("a password is not sent without TLS: set how the relay is reached to starttls")
        client = aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            username=relay.username,
            password=relay.password,
            local_hostname=relay.local_hostname,
            timeout=relay.timeout_s,
            use_tls=relay.tls == "tls",
            start_tls=relay.tls == "starttls",
            tls_context=relay.context,
        )
        try:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except aiosmtplib.SMTPResponseException as error:
            client.close()
            raise NotConnected(without_addresses(error.message, relay.username or ""), error.code) from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            client.close()
            raise NotConnected(_why(error)) from error
        except asyncio.CancelledError:
            client.close()
            raise
        if client.transport is None:
            raise NotConnected("the server closed the connection")
        return cls(Wire(cast(asyncio.Transport, client.transport)), {*client.esmtp_extensions}, relay)

    @property
    def alive(self) -> bool:
        """Whether the connection is open as far as anyone knows."""
        return self._wire.alive

    async def hand_over(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """Send one message. Afterwards the session is ready for the next one, or not `alive`.

        `still_wanted` is asked as `Transport.send` says; all before the content is one step where the server
        takes commands together (RFC 2920). A message that is not wanted any more costs the connection if the
        server waits for its content: there is no other way out of it.

        Raises
        ------
        ClosedBefore
            The connection was lost before there was a reply to MAIL.
        """
        if not still_wanted():
            return Outcome("vetoed")
        self.used += 1
        envelope = self._envelope(message)
        if isinstance(envelope, Outcome):
            return envelope
        stage: Stage = "MAIL"
        done = False
        try:
            together = "pipelining" in self._extensions
            for step in [envelope] if together else [[command] for command in envelope]:
                if step[0] is not envelope[0] and not still_wanted():
                    done = await self._forgotten()
                    return Outcome("vetoed")
                codes: list[int] = []
                self._wire.write(b"".join(command for _, command, _ in step), len(step))
                for stage, _, expected in step:
                    code, text = await self._wire.reply(self._relay.timeout_s)
                    codes.append(code)
                    if code not in expected:
                        done = await self._given_up(codes, len(step) - len(codes))
                        return outcome_of(stage, code, text, message.recipient)
            await self._body(message.content, still_wanted)
            stage = "content"
            code, text = await self._wire.reply(self._relay.verdict_timeout_s)
            done = code != 421
            return outcome_of(stage, code, text, message.recipient)
        except _Unwanted:
            return Outcome("vetoed")
        except Lost as lost:
            if stage == "content":
                return Outcome("unknown", detail=f"{lost} after the whole message was sent")
            if stage == "DATA" and self._wire.unasked is not None:  # it did not want the rest
                return outcome_of("content", *self._wire.unasked, message.recipient)
            if stage == "MAIL" and not self.alive:
                raise ClosedBefore(f"{lost} at MAIL") from lost
            return Outcome("deferred", detail=f"{lost} at {stage}")
        finally:
            if not done:
                self._wire.abort()

    async def close(self) -> None:
        """Say goodbye and close."""
        if self.alive:
            with suppress(Lost):
                self._wire.write(b"QUIT\r\n", 1)
                await self._wire.reply(_QUIT_S)
        self._wire.close()

    def _envelope(self, message: Message) -> list[_Command] | Outcome:
        """Return the commands before the content, or why there are none."""
        sender, recipient = sender_of(message.content), message.recipient
        if sender is None:
            return NO_SENDER
        if not is_mailbox(recipient):
            return NOT_AN_ADDRESS
        extensions = self._extensions
        options = b""
        if not (sender.isascii() and recipient.isascii()):
            if "smtputf8" not in extensions:
                return Outcome("bounced", detail="the relay takes no address outside ASCII (SMTPUTF8)")
            options += b" SMTPUTF8"
        if "8bitmime" in extensions and not message.content.isascii():
            options += b" BODY=8BITMIME"
        if "dsn" in extensions:
            options += b" ENVID=" + _xtext(message.dispatch_id)
        return [
            ("MAIL", b"MAIL FROM:<%b>%b\r\n" % (sender.encode(), options), (250,)),
            ("RCPT", b"RCPT TO:<%b>\r\n" % recipient.encode(), (250, 251)),
            ("DATA", b"DATA\r\n", (_GO_ON,)),
        ]

    async def _given_up(self, codes: list[int], owed: int) -> bool:
        """Have the server forget a message that it refused; return whether it did.

        `codes` are the replies so far, `owed` how many commands of the same step have none yet. A server that
        waits for content all the same gets the end of it alone (RFC 2920, 3.1), if it refused the recipient:
        else an empty message might reach them.
        """
        try:
            for _ in range(owed):
                codes.append((await self._wire.reply(self._relay.timeout_s))[0])
            if owed and codes[-1] == _GO_ON:
                if codes[-2] < 400:
                    return False
                self._wire.write(b".\r\n", 1)
                await self._wire.reply(self._relay.timeout_s)
        except Lost:
            return False
        return await self._forgotten()

    async def _forgotten(self) -> bool:
        """Have the server forget the message that it knows of; return whether it did."""
        try:
            self._wire.write(b"RSET\r\n", 1)
            code, _ = await self._wire.reply(self._relay.timeout_s)
        except Lost:
            return False
        return code == 250

    async def _body(self, content: bytes, still_wanted: Callable[[], bool]) -> None:
        """Send the content, and the line that ends it once all before has left this process.

        So what is lost or not wanted any more here has certainly not been taken.
        """
        if not still_wanted():
            raise _Unwanted
        self._wire.write(_in_lines(content))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._relay.timeout_s
        left = self._wire.unsent
        while left and self.alive:
            if loop.time() > deadline:
                raise Lost("the server takes no more of the content")
            await asyncio.sleep(_LOOK_EVERY_S)
            before, left = left, self._wire.unsent
            if left < before:
                deadline = loop.time() + self._relay.timeout_s
        if not still_wanted():
            raise _Unwanted
        self._wire.write(b".\r\n", 1)  # raises, and writes nothing, where the connection was lost meanwhile


def _in_lines(content: bytes) -> bytes:
    """Whole lines that end with CRLF, and no dot alone in one (RFC 5321, 4.5.2)."""
    breaks = content.count(b"\r\n")
    # What `models.templates` composes is so already, and to count takes a fifth of the time.
    if not (breaks == content.count(b"\r") == content.count(b"\n") and content.endswith(b"\r\n")):
        content = normalize_message_line_endings(content)
    return (b"\n" + content).replace(b"\n.", b"\n..")[1:]


def _xtext(text: str) -> bytes:
    """Encode as of RFC 3461, section 4."""
    return re.sub(r"[^!-*,-<>-~]", lambda found: f"+{ord(found[0]):02X}", text).encode("ascii")
