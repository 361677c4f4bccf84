"""One SMTP connection: opened, used for one message after another, closed.

aiosmtplib is named only here. Its connection and its commands are used and not its `sendmail`: that does not
tell how far a message had got when the connection was lost, and so whether the server may have it.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol, normalize_message_line_endings

from sinks.transports import NO_SENDER, NOT_AN_ADDRESS, Message, Outcome
from sinks.transports.addresses import is_mailbox, sender_of
from sinks.transports.replies import Stage, outcome_of, without_addresses

Tls = Literal["none", "starttls", "tls"]

_LOOK_EVERY_S: Final = 0.01
_QUIT_S: Final = 1.0
_LINE_STARTS_WITH_DOT: Final = re.compile(rb"(?m)^\.")


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


class Lost(Exception):
    """The connection was lost, or the reply is not there in time or is no reply of SMTP; it says which."""


class _Unwanted(Exception):
    """The caller does not want the message any more, and the server does not have the end of it."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Lost("no reply in time") from error
    except OSError as error:
        raise Lost("the server closed the connection") from error
    except aiosmtplib.SMTPException as error:
        raise Lost("the reply is none of SMTP") from error


def _why(error: Exception) -> str:
    return without_addresses(f"{type(error).__name__}: {error}", "")


class Session:
    """An open connection for one message at a time; `used` counts those that were begun."""

    def __init__(self, client: aiosmtplib.SMTP, relay: Relay) -> None:
        """Take an open client; `Session.open` makes one."""
        self._client = client
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
        return cls(client, relay)

    @property
    def alive(self) -> bool:
        """Whether the connection is open as far as anyone knows."""
        return self._client.is_connected

    async def hand_over(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """Send one message. Afterwards the session is ready for the next one, or not `alive`.

        `still_wanted` is asked as `Transport.send` says. A message that is not wanted any more costs the
        connection if its content was begun: there is no other way out of it.

        Raises
        ------
        ClosedBefore
            The connection was lost before there was a reply to MAIL.
        """
        if not still_wanted():
            return Outcome("vetoed")
        self.used += 1
        stage: Stage = "MAIL"
        done = False
        try:
            envelope = self._envelope(message)
            if isinstance(envelope, Outcome):
                done = True
                return envelope
            for stage, command, expected in envelope:
                if stage != "MAIL" and not still_wanted():
                    done = await self._reset()
                    return Outcome("vetoed")
                code, text = await self._command(command)
                if code not in expected:
                    done = await self._reset()
                    return outcome_of(stage, code, text, message.recipient)
            protocol = await self._body(message.content, still_wanted)
            stage = "content"
            code, text = await self._verdict(protocol)
            done = code != 421
            return outcome_of(stage, code, text, message.recipient)
        except _Unwanted:
            return Outcome("vetoed")
        except Lost as lost:
            if stage == "content":
                return Outcome("unknown", detail=f"{lost} after the whole message was sent")
            if stage == "MAIL" and not self.alive:
                raise ClosedBefore(f"{lost} at MAIL") from lost
            return Outcome("deferred", detail=f"{lost} at {stage}")
        finally:
            if not done:
                self._drop()

    async def close(self) -> None:
        """Say goodbye and close."""
        if self.alive:
            with suppress(aiosmtplib.SMTPException, OSError):
                await self._client.quit(timeout=_QUIT_S)
        self._client.close()

    def _drop(self) -> None:
        """Close at once: what a plain close would still write is not wanted any more."""
        if self._client.transport is not None:
            cast(asyncio.WriteTransport, self._client.transport).abort()
        self._client.close()

    def _envelope(self, message: Message) -> list[tuple[Stage, bytes, tuple[int, ...]]] | Outcome:
        """Return the commands before the content and the replies that let it go on, or why there are none."""
        sender, recipient = sender_of(message.content), message.recipient
        if sender is None:
            return NO_SENDER
        if not is_mailbox(recipient):
            return NOT_AN_ADDRESS
        extensions = self._client.esmtp_extensions
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
            ("MAIL", f"MAIL FROM:<{sender}>".encode() + options, (250,)),
            ("RCPT", f"RCPT TO:<{recipient}>".encode(), (250, 251)),
            ("DATA", b"DATA", (354,)),
        ]

    async def _command(self, command: bytes) -> tuple[int, str]:
        with _translated():
            reply = await self._client.execute_command(command)
        return reply.code, reply.message

    async def _reset(self) -> bool:
        """Have the server forget a message that it refused; return whether it did."""
        try:
            code, _ = await self._command(b"RSET")
        except Lost:
            return False
        return code == 250

    async def _body(self, content: bytes, still_wanted: Callable[[], bool]) -> SMTPProtocol:
        """Send the content, and the line that ends it once all before has left this process.

        So what is lost or not wanted any more here has certainly not been taken.
        """
        if not still_wanted():
            raise _Unwanted
        lines = _LINE_STARTS_WITH_DOT.sub(b"..", normalize_message_line_endings(content))
        protocol = self._client.protocol
        if protocol is None or self._client.transport is None:
            raise Lost("the server closed the connection")
        transport = cast(asyncio.WriteTransport, self._client.transport)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._relay.timeout_s
        with _translated():
            protocol.write(lines)
        await asyncio.sleep(0)  # uvloop writes in its next round
        left = transport.get_write_buffer_size()
        while left and not transport.is_closing():
            if loop.time() > deadline:
                raise Lost("the server takes no more of the content")
            await asyncio.sleep(_LOOK_EVERY_S)
            before, left = left, transport.get_write_buffer_size()
            if left < before:
                deadline = loop.time() + self._relay.timeout_s
        if not still_wanted():
            raise _Unwanted
        with _translated():
            protocol.write(b".\r\n")  # raises, and writes nothing, where the connection was lost meanwhile
        return protocol

    async def _verdict(self, protocol: SMTPProtocol) -> tuple[int, str]:
        with _translated():
            reply = await protocol.read_response(timeout=self._relay.verdict_timeout_s)
        return reply.code, reply.message


def _xtext(text: str) -> bytes:
    """Encode as of RFC 3461, section 4."""
    return re.sub(r"[^!-*,-<>-~]", lambda found: f"+{ord(found[0]):02X}", text).encode("ascii")
