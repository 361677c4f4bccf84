"""A transport of a test's own, the sandbox, and servers that say what a test tells them to."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import uvloop

from infra.embedded import SandboxServer
from sinks.transports import Message, Outcome, Transport
from sinks.transports.smtp import SmtpTransport

LOCAL = "jane.doe"
ADDRESS = f"{LOCAL}@mail.example"


def dispatch(number: int) -> str:
    return str(uuid5(NAMESPACE_DNS, str(number)))


def message(number: int = 1, recipient: str = ADDRESS, lane: str = "gmail", size: int = 0) -> Message:
    headers = f"X-Opportune-Dispatch: {dispatch(number)}\r\nX-Opportune-Lane: {lane}\r\nSubject: hello\r\n"
    content = f"From: Opportune <hello@opportune.example>\r\n{headers}\r\n.hidden\r\nhello\r\n".encode()
    return Message(dispatch(number), recipient, content + b"0123456789abcde\r\n" * (size // 17))


def transport(port: int, **changed: Any) -> SmtpTransport:
    settings: dict[str, Any] = {
        "username": None,
        "password": None,
        "tls": "none",
        "connections": 2,
        "messages_per_connection": 100,
        "timeout_s": 30.0,
        "local_hostname": "opportune.example",
    }
    return SmtpTransport("127.0.0.1", port, **settings | changed)


async def sent(through: Transport, *messages: Message) -> list[Outcome]:
    return [await through.send(one, lambda: True) for one in messages]


def send(port: int, *messages: Message, **changed: Any) -> list[Outcome]:
    """Send one message after another through a transport of their own."""

    async def run() -> list[Outcome]:
        through = transport(port, **changed)
        try:
            return await sent(through, *messages)
        finally:
            await through.close()

    return uvloop.run(run())


class Spoken:
    """A server that says what it is told to, and notes what was said to it on each connection."""

    def __init__(self, answer: Callable[[str], bytes | None], greeting: bytes = b"220 here\r\n") -> None:
        self.answer = answer
        self.greeting = greeting
        self.connections: list[list[str]] = []
        self.content: list[bytes] = []  # lines of messages
        self.messages = self.under_way = self.most = 0  # whole ones; those without a reply, now and at most
        self.gate = asyncio.Event()  # before it is set, no whole message gets its reply
        self.gate.set()

    @property
    def heard(self) -> list[str]:
        """What was said of messages."""
        return [line for said in self.connections for line in said if line[:4] not in ("EHLO", "QUIT")]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said: list[str] = []
        self.connections.append(said)
        writer.write(self.greeting)
        try:
            while line := await reader.readline():
                said.append(line.decode().strip())
                reply = self.answer(said[-1])
                if reply is None:
                    break
                writer.write(reply)
                if b"354 " in reply:
                    while (content := await reader.readline()) not in (b".\r\n", b""):
                        self.content.append(content)
                    if not content:
                        break
                    self.messages += 1
                    self.under_way += 1
                    self.most = max(self.most, self.under_way)
                    await self.gate.wait()
                    self.under_way -= 1
                    reply = self.answer(".")
                    if reply is None:
                        break
                    writer.write(reply)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def polite(line: str) -> bytes | None:
    return {"DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"}.get(line, b"250 2.0.0 fine\r\n")


def answering(when: str, reply: bytes | None) -> Callable[[str], bytes | None]:
    return lambda line: reply if line.startswith(when) else polite(line)


async def spoken(server: Spoken, *messages: Message, **changed: Any) -> list[Outcome]:
    async with server.listening() as port:
        through = transport(port, **changed)
        try:
            return await sent(through, *messages)
        finally:
            await through.close()


class Answers:
    """A sandbox with a script, and what it keeps."""

    def __init__(self, server: SandboxServer) -> None:
        self.server = server
        self.port = server.up().port

    def script(self, text: str) -> None:
        new = self.server.folder / "script.new"
        new.write_text(text)
        new.rename(self.server.folder / "script.toml")

    def kept(self, number: int) -> int:
        return len(list(self.server.folder.glob(f"mail/*/{dispatch(number)}.*.eml")))

    def kill(self) -> None:
        pid = self.server.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
