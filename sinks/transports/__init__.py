"""The port through which a rendered message leaves, and what becomes of it.

An expected outcome, a refusal or an outage among them, is a value and never an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

OutcomeKind = Literal["accepted", "deferred", "bounced", "unknown", "not_sent", "vetoed"]


@dataclass(frozen=True)
class Message:
    """One message to one recipient, rendered.

    `lane` says which connections it may use. `content` is the whole message, headers and body, as of
    RFC 5322; later bounces go to the address in its From. Address and content are not in the repr.
    """

    dispatch_id: str
    lane: str
    recipient: str = field(repr=False)
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What became of a message.

    `kind` says what may be done next:

    =========  ======================================================================================
    accepted   The server has it.
    deferred   Transient failure (4xx): the server does not have it; try again later, slower.
    bounced    Permanent failure (5xx): never try again. `permanent` where the address itself is bad, so
               that nothing must be sent to it any more; else it is the content, the sender or policy.
    unknown    The whole message was sent and no reply to it came: the server may have it.
    not_sent   The server cannot have it (refused connection, outage, a relay that is set up wrongly): safe
               to try again.
    vetoed     The caller did not want it any more; nothing was sent.
    =========  ======================================================================================

    `code` is the reply's, such as 550, and `enhanced` its code of RFC 3463, such as 5.1.1; None where there
    was none. `detail` is the server's own words, or the cause, without any address, at most 200 characters.
    """

    kind: OutcomeKind
    code: int | None = None
    enhanced: str | None = None
    detail: str = ""
    permanent: bool = False


class Transport(Protocol):
    """Hands messages over. One event loop uses it."""

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand one message over, at most once.

        `still_wanted` is asked at the last moment before anything of the message is sent, possibly twice.
        It must not block. Waits while the lane has no free connection. May be called concurrently.
        If it is cancelled after the message was begun, its outcome is unknown.
        """
        ...

    async def close(self) -> None:
        """Close the connections. Messages under way are cut off: await them first."""
        ...
