"""Messages handed to a webhook of yours, signed as https://www.standardwebhooks.com says.

The body is JSON: `dispatch_id`, `recipient` (the address) and `content` (the message as of RFC 5322, base64).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from sinks.transports import NOT_AN_ADDRESS, Message, Outcome
from sinks.transports.addresses import is_mailbox
from sinks.transports.answers import Answer, kind_of, outcome_of
from sinks.transports.http import HttpService
from sinks.transports.pinned import PublicOnly

_SECRET: Final = "whsec_"  # noqa: S105 - what a secret begins with
_SHORTEST_SECRET: Final = 24


class WebhookRefused(ValueError):
    """A URL that nothing may be sent to, or a secret that is none; it says why, and shows neither."""


@dataclass(frozen=True)
class Webhook:
    """Where messages may go, and the secret by which they are signed.

    `url` must be https, of one of `hosts`, and its host's addresses public ones; with `private` it may be
    http and at any address.

    Raises
    ------
    WebhookRefused
        The URL is not allowed, or the secret is none.
    """

    url: str = field(repr=False)  # many have a password in their path
    secret: str = field(repr=False)
    hosts: Collection[str]
    private: bool

    def __post_init__(self) -> None:
        """Check all of it."""
        _check(self.url, self.hosts, self.private)
        _bytes_of(self.secret)

    def signature(self, dispatch_id: str, at: str, body: bytes) -> str:
        """Return the signature of a body that is sent at a time, in seconds since 1970."""
        signed = f"{dispatch_id}.{at}.".encode() + body
        return "v1," + b64encode(hmac.digest(_bytes_of(self.secret), signed, hashlib.sha256)).decode()


class WebhookTransport:
    """The port `sinks.transports.Transport` over a webhook, for one lane and one event loop.

    For times, connections and `repeats` see `HttpService`. Each request carries the dispatch id as
    `Idempotency-Key` and `webhook-id`. 2xx is `accepted`, whatever the answer says.
    """

    def __init__(
        self,
        webhook: Webhook,
        *,
        repeats: bool,
        connections: int,
        timeout_s: float,
        verdict_timeout_s: float = 60.0,
    ) -> None:
        self._webhook = webhook
        self._service = HttpService(
            webhook.url,
            connections=connections,
            timeout_s=timeout_s,
            verdict_timeout_s=verdict_timeout_s,
            repeats=repeats,
            backend=None if webhook.private else PublicOnly(),
        )

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """See `Transport.send`."""
        if not is_mailbox(message.recipient):
            return NOT_AN_ADDRESS
        content = b64encode(message.content).decode()
        told = {"dispatch_id": message.dispatch_id, "recipient": message.recipient, "content": content}
        body = json.dumps(told).encode()
        return await self._service.post(
            body,
            lambda: self._headers(message.dispatch_id, body),
            still_wanted,
            lambda answer: _outcome(answer, message.recipient),
        )

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._service.close()

    def _headers(self, dispatch_id: str, body: bytes) -> dict[str, str]:
        at = str(int(time.time()))
        return {
            "idempotency-key": dispatch_id,
            "webhook-id": dispatch_id,
            "webhook-timestamp": at,
            "webhook-signature": self._webhook.signature(dispatch_id, at, body),
        }


def _outcome(answer: Answer, recipient: str) -> Outcome:
    return outcome_of(kind_of(answer), answer, answer.body.decode(errors="replace"), recipient)


def _check(url: str, hosts: Collection[str], private: bool) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not url.isascii() or not url.isprintable() or " " in url or parts.fragment:
        raise WebhookRefused("it is no URL; write for example https://hooks.example.org/mail")
    if parts.username is not None or parts.password is not None:
        raise WebhookRefused("a URL must not have a password in it; requests are signed by the secret")
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise WebhookRefused("only https is allowed, and http where private addresses are")
    if host not in {each.lower() for each in hosts}:
        raise WebhookRefused(f"{host} is not among the hosts that are allowed")


def _bytes_of(secret: str) -> bytes:
    try:
        found = b64decode(secret.removeprefix(_SECRET), validate=True)
    except ValueError:
        found = b""
    if not secret.startswith(_SECRET) or len(found) < _SHORTEST_SECRET:
        raise WebhookRefused(
            f"the secret must be {_SECRET} and at least {_SHORTEST_SECRET} random bytes in base64, as "
            f'`echo "{_SECRET}$(openssl rand -base64 32)"` writes'
        )
    return found
