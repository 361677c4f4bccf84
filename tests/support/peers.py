"""Every transport beside a server of its kind: what the contract of transports is held against."""

from __future__ import annotations

import asyncio
import json
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from sinks.transports import Transport
from sinks.transports.ses import SesTransport, bearer
from sinks.transports.webhook import Webhook, WebhookTransport
from tests.support import smtp
from tests.support.http import Asked, Service, answer, read_head
from tests.support.smtp import ADDRESS, LOCAL, Spoken, answering, polite

Behaviour = Literal[
    "accepts", "refuses", "knows nobody", "defers", "throttles", "hangs up", "is silent", "bars"
]
Server = Spoken | Service

NOBODY: Final = f"5.1.1 <{ADDRESS}> {LOCAL.upper()} x=mail.example@relay.example is unknown"
SECRET: Final = "whsec_" + "bm90IGEgc2VjcmV0LCBub3QgYSBzZWNyZXQh"  # noqa: S105 - a test's
HTTP_DEFAULTS: Final[dict[str, Any]] = {"repeats": False, "connections": 2, "timeout_s": 30.0}


class Peer(ABC):
    """A transport and servers for it. What they do to a whole message is their behaviour."""

    end: bytes  # of every message
    names_sender: bool = True

    @abstractmethod
    def transport(self, port: int, **changed: Any) -> Transport: ...

    @abstractmethod
    def server(self, behaviour: Behaviour) -> Server: ...

    @abstractmethod
    async def until_content(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a client in until the content of its message begins to come."""

    def behave(self, server: Any, behaviour: Behaviour) -> None:
        server.answer = self.server(behaviour).answer

    @asynccontextmanager
    async def breaking(
        self, then: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> AsyncIterator[int]:
        """A server of which `then` goes on once the content of a message begins to come."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.until_content(reader, writer)
            await then(reader, writer)

        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that most stays with the client
        server = await asyncio.start_server(talk, sock=listening, limit=1024)
        try:
            yield listening.getsockname()[1]
        finally:
            server.close()


class SmtpPeer(Peer):
    end = b"\r\n.\r\n"

    def transport(self, port: int, **changed: Any) -> Transport:
        return smtp.transport(port, **changed)

    def server(self, behaviour: Behaviour) -> Spoken:
        if behaviour == "bars":
            return Spoken(polite, b"554 5.3.2 closed\r\n")
        says: dict[Behaviour, Callable[[str], bytes | None]] = {
            "accepts": polite,
            "refuses": answering(".", b"554 5.7.1 looks like spam\r\n"),
            "knows nobody": answering("RCPT", f"550 {NOBODY}\r\n".encode()),
            "defers": answering("RCPT", b"450 4.2.2 mailbox full\r\n"),
            "throttles": answering("MAIL", b"451 4.7.0 too many messages\r\n"),
            "hangs up": answering(".", None),
            "is silent": answering(".", b""),
        }
        return Spoken(says[behaviour])

    async def until_content(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while not (await reader.readline()).startswith(b"DATA"):
            writer.write(b"250 fine\r\n")
        writer.write(b"354 go on\r\n")
        await reader.readline()


class HttpPeer(Peer):
    end = b"}"

    @abstractmethod
    def says(self, behaviour: Behaviour) -> bytes | None: ...

    def server(self, behaviour: Behaviour) -> Service:
        def reply(asked: Asked) -> bytes | None:
            return {"hangs up": None, "is silent": b""}.get(behaviour, self.says(behaviour))

        return Service(reply)

    async def until_content(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await reader.readexactly(1)


def ses_error(status: int, name: str, text: str, **headers: str) -> bytes:
    return answer(status, json.dumps({"message": text}).encode(), x_amzn_errortype=name, **headers)


class SesPeer(HttpPeer):
    def transport(self, port: int, **changed: Any) -> Transport:
        defaults = {"authorise": bearer("key"), "configuration_set": None, **HTTP_DEFAULTS}
        return SesTransport(f"http://127.0.0.1:{port}", **defaults | changed)

    def says(self, behaviour: Behaviour) -> bytes | None:
        return {
            "accepts": answer(200, b'{"MessageId": "0102-1"}'),
            "refuses": ses_error(400, "MessageRejected", "looks like spam"),
            "knows nobody": ses_error(400, "MessageRejected", NOBODY),
            "defers": ses_error(400, "SendingPausedException", "sending is paused"),
            "throttles": ses_error(429, "TooManyRequestsException", "too many messages", retry_after="7"),
            "bars": ses_error(403, "InvalidSignatureException", "go away"),
        }.get(behaviour)


class WebhookPeer(HttpPeer):
    names_sender = False

    def transport(self, port: int, **changed: Any) -> Transport:
        webhook = Webhook(f"http://127.0.0.1:{port}/mail", SECRET, {"127.0.0.1"}, private=True)
        return WebhookTransport(webhook, **HTTP_DEFAULTS | changed)

    def says(self, behaviour: Behaviour) -> bytes | None:
        return {
            "accepts": answer(204),
            "refuses": answer(422, b"looks like spam"),
            "knows nobody": answer(422, NOBODY.encode()),
            "defers": answer(503, b"a moment", retry_after="60"),
            "throttles": answer(429, b"too many messages", retry_after="7"),
            "bars": answer(401, b"go away"),
        }.get(behaviour)
