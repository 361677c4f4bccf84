"""Messages handed over by HTTP, a POST each, over connections that are kept for the next ones.

httpcore2 is used, and not the client that is made of it (httpx2): that one has no public way to choose the
address that is connected to, and redirects and proxies of its own to be switched off. It is named only here
and in `pinned`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Final

import httpcore2

from sinks.transports import Outcome
from sinks.transports.answers import Answer
from sinks.transports.replies import without_addresses

# Shorter than the 5 s after which the least patient servers hang up: over a connection that they close just
# then, it would not be known whether they have the message.
_IDLE_S: Final = 4.0
_MOST_OF_AN_ANSWER: Final = 64 << 10
_UNREACHED: Final = (httpcore2.NetworkError, OSError)  # its words are of this machine
_BROKEN: Final = (*_UNREACHED, httpcore2.ProtocolError, ValueError)


class _Unwanted(Exception):
    """The caller does not want the message any more, and the service does not have the end of it."""


class _Sent:
    """A request's body on its way; how far it has got tells what may have become of the message.

    Its last byte is kept back until all before it has left this process and it is asked once more whether it
    is wanted. Without that byte no service has a request, so what is lost before it has not been taken.
    """

    def __init__(self, content: bytes, still_wanted: Callable[[], bool], ends: Callable[[], None]) -> None:
        self._content, self._still_wanted, self._ends = content, still_wanted, ends
        self.begun = self.whole = False

    async def parts(self) -> AsyncIterator[bytes]:
        """Give the body, and note how much of it was taken."""
        self._ask()
        self.begun = True
        yield self._content[:-1]
        self._ask()
        self.whole = True
        self._ends()
        yield self._content[-1:]

    def _ask(self) -> None:
        if not self._still_wanted():
            raise _Unwanted


class HttpService:
    """A service that takes messages at a URL, for one lane and one event loop.

    It has at most `connections` at once; waiting for a free one has no limit. `timeout_s` is for connecting
    and sending, `verdict_timeout_s` for the whole answer. Redirects are not followed, and no proxy is used.
    https requires a certificate that this machine trusts.

    `repeats`: the service takes a request once for each Idempotency-Key, so one whose answer was lost, or
    says that the service broke, is sent once more.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        timeout_s: float,
        verdict_timeout_s: float,
        repeats: bool,
        backend: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._url, self._repeats = url, repeats
        self._timeout_s, self._verdict_timeout_s = timeout_s, verdict_timeout_s
        self._free = asyncio.Semaphore(connections)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=connections,
            keepalive_expiry=_IDLE_S,
            network_backend=backend,
        )

    async def post(
        self,
        body: bytes,
        headers: Callable[[], Mapping[str, str]],
        still_wanted: Callable[[], bool],
        read: Callable[[Answer], Outcome],
    ) -> Outcome:
        """Hand one message over: `body` with what `headers` gives for each request, the answer as `read`.

        `still_wanted` is asked as `Transport.send` says: before connecting, before the body, and before its
        last byte.
        """
        async with self._free:
            outcome = await self._request(body, headers(), still_wanted, read)
            if outcome.kind != "unknown" or not self._repeats or not still_wanted():
                return outcome
            again = await self._request(body, headers(), still_wanted, read)
            # Only these say what became of the message: of a repetition that was not looked at, or got lost
            # as well, the first may have been taken all the same.
            return again if again.kind in ("accepted", "bounced") else outcome

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._pool.aclose()

    async def _request(
        self,
        body: bytes,
        headers: Mapping[str, str],
        still_wanted: Callable[[], bool],
        read: Callable[[Answer], Outcome],
    ) -> Outcome:
        if not still_wanted():
            return Outcome("vetoed")
        loop, status = asyncio.get_running_loop(), 0
        limit = asyncio.timeout(self._timeout_s)
        sent = _Sent(body, still_wanted, lambda: limit.reschedule(loop.time() + self._verdict_timeout_s))
        named = {**headers, "content-type": "application/json", "content-length": str(len(body))}
        request = self._pool.stream("POST", self._url, headers=list(named.items()), content=sent.parts())
        try:
            async with limit, request as response:
                status = response.status
                content = await _beginning(response)
        except _Unwanted:
            return Outcome("vetoed")
        except _BROKEN as error:
            return _lost(error, sent, status)
        if not sent.whole and not 300 <= status < 500:
            return Outcome("deferred", status, "the answer came before the whole message was sent")
        told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return read(Answer(status, told, content, time.time()))


async def _beginning(response: httpcore2.Response) -> bytes:
    found = bytearray()
    async with aclosing(response.aiter_stream()) as parts:
        async for part in parts:
            found += part
            if len(found) >= _MOST_OF_AN_ANSWER:
                break
    return bytes(found[:_MOST_OF_AN_ANSWER])


def _lost(error: Exception, sent: _Sent, status: int) -> Outcome:
    """Return what may have become of a message whose answer is missing, or stops after its `status`."""
    # Of an error of HTTP no more than its name: it quotes what the service wrote, or a header of ours.
    what = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    if not sent.begun:
        words = f"{what}: {error}" if isinstance(error, _UNREACHED) else what
        return Outcome("not_sent", detail=without_addresses(words, "").rstrip(": "))
    if sent.whole and not 300 <= status < 500:
        return Outcome("unknown", status or None, f"{what} after the whole message was sent")
    when = "within the answer" if status else "before the whole message was sent"
    return Outcome("deferred", status or None, f"{what} {when}")
