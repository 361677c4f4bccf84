"""The port through which a rendered message leaves, and what becomes of it.

Its drivers: `smtp`, `ses` (an HTTP API in the shape of Amazon SES v2) and `webhook`.

An expected outcome, a refusal or an outage among them, is a value and never an exception.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

OutcomeKind = Literal["accepted", "deferred", "bounced", "unknown", "not_sent", "vetoed"]


@dataclass(frozen=True)
class Message:
    """One message to one recipient, rendered.

    `content` is the whole message, headers and body, as of RFC 5322; later bounces go to the address in its
    From. Address and content are not in the repr.
    """

    dispatch_id: str
    recipient: str = field(repr=False)
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What became of a message.

    `kind` says what may be done next:

    =========  ======================================================================================
    accepted   The server has it.
    deferred   Transient failure of this message: a refusal for a time, or the server dropped it before its
               end (closed the connection, did not answer, answered what its protocol does not know). The
               server does not have it; try again later, slower.
    bounced    Permanent failure: never try again. `permanent` where the address itself is bad, so that
               nothing must be sent to it any more; else it is the content, the sender or policy.
    unknown    The whole message was sent and no reply came that says what became of it: the server may
               have it.
    not_sent   No session with the server could be had (refused connection, outage, a relay that is set up
               wrongly), so not the message's fault: try again when the server is back.
    vetoed     The caller did not want it any more; the server does not have it.
    =========  ======================================================================================

    `code` is the reply's, such as SMTP's 550 or HTTP's 429; None where there was none. `detail` is the
    server's own words, its code of RFC 3463 such as 5.1.1 first if it gave one, or the cause; without any
    address, at most 200 characters. `retry_after_s` is how many seconds from now a server that deferred
    asks to be left alone; None where it did not say.
    """

    kind: OutcomeKind
    code: int | None = None
    detail: str = ""
    permanent: bool = False
    retry_after_s: float | None = None


# On a clock that runs on while the machine sleeps: whoever asked for a message may have lost it meanwhile.
_UPTIME_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BEGIN_AGAIN_WITHIN_S: Final = 1.0


@dataclass(frozen=True)
class Begun:
    """When a message was asked to be sent, of the machine's uptime in seconds."""

    at: float = field(default_factory=lambda: time.clock_gettime(_UPTIME_CLOCK))

    @property
    def lately(self) -> bool:
        """Whether it may still begin anew, over another connection: within a second, or not at all."""
        return time.clock_gettime(_UPTIME_CLOCK) - self.at <= _BEGIN_AGAIN_WITHIN_S

    def anew(self, still_wanted: Callable[[], bool]) -> Callable[[], bool]:
        """`still_wanted` for another attempt: the connection for it may have taken longer than a second."""
        begun = False

        def asked() -> bool:
            nonlocal begun
            begun = begun or self.lately
            return begun and still_wanted()

        return asked


NOT_AN_ADDRESS: Final = Outcome("bounced", detail="this is not an address", permanent=True)
NO_SENDER: Final = Outcome("bounced", detail="the message has no address in its From header")


class Transport(Protocol):
    """Hands over the messages of one lane. One event loop uses it."""

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand one message over, at most once.

        It begins within a second, also over another connection, or not at all: later, a recall may have gone
        to somebody else. `still_wanted` is asked before each step, last when only the end of the message is
        still to be sent: a server may take minutes over the steps before. It must not block. Waits while the
        lane has no free connection. May be called concurrently. If it is cancelled after the message was
        begun, its outcome is unknown.
        """
        ...

    async def close(self) -> None:
        """Close the connections. Messages under way are cut off: await them first."""
        ...
