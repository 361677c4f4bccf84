"""An HTTP service that answers what a test tells it to, and notes what it was asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """A request: its first line, its headers by their names in lower case, its body."""

    line: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    named = {"content-length": str(len(body)), **{name.replace("_", "-"): v for name, v in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} said\r\n{lines}\r\n".encode() + body


async def read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    return line, {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}


class Service:
    """`answer` gives the bytes of each answer: none of them is silence, None hangs up."""

    def __init__(self, answer: Callable[[Asked], bytes | None]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections: list[list[Asked]] = []
        self.closed = 0
        self.hangs_up_after_answers = False
        self.under_way = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def heard(self) -> list[Asked]:
        return self.asked

    @property
    def messages(self) -> int:
        return len(self.asked)

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here: list[Asked] = []
        self.connections.append(here)
        try:
            while True:
                line, headers = await read_head(reader)
                asked = Asked(line, headers, await reader.readexactly(int(headers["content-length"])))
                self.asked.append(asked)
                here.append(asked)
                self.under_way += 1
                self.most = max(self.most, self.under_way)
                await self.gate.wait()
                self.under_way -= 1
                reply = self.answer(asked)
                if reply is None:
                    break
                writer.write(reply)
                if reply and self.hangs_up_after_answers:
                    await writer.drain()
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.closed += 1
