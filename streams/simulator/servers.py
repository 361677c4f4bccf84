"""The mailbox providers as SMTP servers on loopback: their answers, and what only a server has.

A server speaks for one provider or, like a relay that passes answers on, for several: by the domain of the
recipient, which is the provider's name under `.example`. The number in a recipient's address is who it is.
"""

import asyncio
import logging
import re
import threading
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from aiosmtpd.smtp import SMTP, Envelope, Session

from infra.embedded.smtp_sandbox import Conversation, hang_up
from streams.simulator.parameters import ServerParameters
from streams.simulator.provider import Answer, MailboxProvider

HOST: Final = "127.0.0.1"
_DOMAIN: Final = ".example"
_DIGITS: Final = re.compile(r"\d+")
_CLOSING: Final = 421


@dataclass(frozen=True)
class Said:
    """What a provider answered to a message for a recipient, and when (ms since its beginning)."""

    provider: str
    recipient: int
    at: float
    dispatch_id: str | None
    answer: Answer


def address(provider: str, recipient: int) -> str:
    """The address of a provider's recipient."""
    return f"r{recipient}@{provider}{_DOMAIN}"


class Mailboxes:
    """What aiosmtpd asks: the answers of some providers, given in one event loop.

    `now` tells the time in ms since their beginning; `tell` is called with each answer. The shares of
    `parameters` are drawn by `seed`.
    """

    def __init__(
        self,
        providers: Mapping[str, MailboxProvider],
        parameters: ServerParameters,
        now: Callable[[], float],
        tell: Callable[[Said], None],
        seed: int,
    ) -> None:
        self._providers, self._parameters, self._now, self._tell = providers, parameters, now, tell
        self._chance = np.random.default_rng([seed, 2])
        self._connected: defaultdict[str, set[SMTP]] = defaultdict(set)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Take mail on a free port, which is given."""
        server = await asyncio.get_running_loop().create_server(self._conversation, HOST, 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    def _conversation(self) -> asyncio.Protocol:
        if self._happens(self._parameters.half_open.value):
            return asyncio.Protocol()  # takes the connection, and never says a word
        return _Conversation(self)

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Say what is spoken here."""
        session.host_name = hostname
        return [*responses[:-1], "250-DSN", responses[-1]]

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: Conversation, session: Session, envelope: Envelope, address: str, options: Sequence[str]
    ) -> str:
        """Answer `RCPT TO`; whoever is accepted here has the whole message accepted."""
        if envelope.rcpt_tos:
            return "452 4.5.3 one recipient a message"
        who, _, domain = address.rpartition("@")
        provider = self._providers.get(domain.lower().removesuffix(_DOMAIN))
        if provider is None:
            return "550 5.1.2 no such domain here"
        connected = self._connected[provider.name]
        connected.add(server)
        if len(connected) > self._parameters.connections.value:
            await _refuse(server, f"{_CLOSING} 4.7.0 too many connections from you")
        now, recipient = self._now(), _number(who)
        answer = provider.answer(now, recipient)
        self._tell(Said(provider.name, recipient, now, server.envelope_id, answer))
        reply = f"{answer.code} {answer.text}"
        if answer.code == _CLOSING:
            await _refuse(server, reply)
        if answer.kind == "accepted":
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Answer the end of a message."""
        if self._happens(self._parameters.slow.value):
            await asyncio.sleep(self._parameters.slow_s.value)
        return "250 2.0.0 OK"

    def left(self, server: SMTP) -> None:
        """A connection is over."""
        for connected in self._connected.values():
            connected.discard(server)

    def _happens(self, share: float) -> bool:
        return bool(self._chance.random() < share)


class _Conversation(Conversation):
    def __init__(self, mailboxes: Mailboxes) -> None:
        super().__init__(mailboxes, hostname="mx.example", ident="simulator", enable_SMTPUTF8=True)
        self._mailboxes = mailboxes

    def connection_lost(self, error: Exception | None) -> None:
        """The client or the server has hung up."""
        self._mailboxes.left(self)
        super().connection_lost(error)


async def _refuse(server: SMTP, reply: str) -> None:
    """Say why, and hang up, as RFC 5321 has it of 421."""
    await server.push(reply)
    hang_up(server)


def _number(who: str) -> int:
    digits = _DIGITS.search(who)
    return int(digits[0]) if digits else zlib.crc32(who.encode())


@contextmanager
def running(mailboxes: Mailboxes) -> Iterator[int]:
    """Have servers run in a thread of their own; gives their port."""
    for name in ("mail.log", "asyncio"):  # they write every address, and a trace of each client that hangs up
        logging.getLogger(name).setLevel(logging.CRITICAL)
    loop, ending = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        listening = ending.enter_async_context(mailboxes.listening())
        yield asyncio.run_coroutine_threadsafe(listening, loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(ending.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
