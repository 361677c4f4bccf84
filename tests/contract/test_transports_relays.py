"""Two real SMTP servers for one lane, of which the first is broken in one way or another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from aiosmtpd.smtp import SMTP, AuthResult

from sinks.transports import Message, Outcome
from sinks.transports.relays import Health, Relays
from sinks.transports.smtp import SmtpTransport
from tests.support import tls
from tests.support.smtp import Spoken, answering, message, polite, sent, transport

Broken = Callable[[Path], AbstractAsyncContextManager[SmtpTransport]]


@asynccontextmanager
async def away(folder: Path) -> AsyncIterator[SmtpTransport]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield transport(port)


@asynccontextmanager
async def untrusted(folder: Path) -> AsyncIterator[SmtpTransport]:
    """Its certificate is nobody's that this machine trusts."""
    context = tls.serving(tls.certificate(folder / "relay.pem", "127.0.0.1"))
    async with _listening(lambda: SMTP(None, tls_context=context, require_starttls=True)) as port:
        yield transport(port, tls="starttls")


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[SmtpTransport]:
    """It refuses the password, over TLS that is in order."""
    path = tls.certificate(folder / "relay.pem", "127.0.0.1")
    context = tls.serving(path)

    def session() -> SMTP:
        refused = AuthResult(success=False, handled=False)
        return SMTP(None, tls_context=context, authenticator=lambda *_: refused)

    async with _listening(session) as port:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(path))
            yield transport(port, tls="starttls", username="me", password="no")  # noqa: S106 - a test's


@asynccontextmanager
async def closing(folder: Path) -> AsyncIterator[SmtpTransport]:
    """It hangs up at every recipient."""
    async with Spoken(answering("RCPT", None)).listening() as port:
        yield transport(port)


@asynccontextmanager
async def _listening(session: Callable[[], SMTP]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("broken", "why"),
    [(away, "connect"), (untrusted, "certificate"), (locked, "5.7.8"), (closing, "closed the connection")],
)
def test_the_other_server_takes_over_and_it_is_told_why(broken: Broken, why: str, tmp_path: Path) -> None:
    told: list[str] = []

    async def run() -> tuple[list[Outcome], int]:
        other = Spoken(polite)
        async with broken(tmp_path) as first, other.listening() as port:
            rests = Health(lambda _, error: told.append(error))
            relays = Relays([(first, rests), (transport(port), Health(lambda *_: None))])
            try:
                return await sent(relays, *map(message, range(20))), other.messages
            finally:
                await relays.close()

    outcomes, taken = uvloop.run(run())
    assert [outcome.kind for outcome in outcomes] == ["accepted"] * 20
    assert taken == 20
    assert told
    assert why in told[0].lower()


def test_each_message_arrives_once_whatever_the_servers_do() -> None:
    """One hangs up at a random step of every third message, also after it has the whole of it."""
    arrived: list[str] = []

    def hanging_up(when: str) -> Callable[[str], bytes | None]:
        count = 0

        def answer(line: str) -> bytes | None:
            nonlocal count
            count += line.startswith("MAIL")
            return None if count % 3 == 0 and line.startswith(when) else polite(line)

        return answer

    async def run() -> dict[str, str]:
        first, second = Spoken(hanging_up(".")), Spoken(hanging_up("RCPT"))
        found = dict[str, str]()
        async with first.listening() as one, second.listening() as two:
            relays = Relays([(transport(port), Health(lambda *_: None)) for port in (one, two)])
            messages = [*map(message, range(60))]

            async def go(each: Message) -> None:
                found[each.dispatch_id] = (await relays.send(each, lambda: True)).kind

            for begin in range(0, 60, 4):
                await asyncio.gather(*map(go, messages[begin : begin + 4]))
            await relays.close()
        arrived.extend(["?"] * (first.messages + second.messages))
        return found

    found = uvloop.run(run())
    kinds = list(found.values())
    assert len(found) == 60
    assert {*kinds} <= {"accepted", "unknown", "deferred", "not_sent"}
    assert kinds.count("accepted") + kinds.count("unknown") == len(arrived)
