"""Messages handed to an HTTP API in the shape of Amazon SES v2: `SendEmail` with raw content.

https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from aws_request_signer import AwsRequestSigner

from sinks.transports import NO_SENDER, NOT_AN_ADDRESS, Message, Outcome
from sinks.transports.addresses import is_mailbox, sender_of
from sinks.transports.answers import Answer, kind_of, outcome_of
from sinks.transports.http import HttpService

PATH: Final = "/v2/email/outbound-emails"

# Errors that say more than their status, which is 400 for most. The account may not send now:
_LATER: Final = (
    *("TooManyRequestsException", "LimitExceededException", "SendingPausedException"),
    *("ThrottlingException", "Throttling"),
)
# The account may not send at all, or not so; it is no message's fault:
_SET_UP_WRONGLY: Final = (
    *("AccountSuspendedException", "MailFromDomainNotVerifiedException", "AccessDeniedException"),
    *("ExpiredTokenException", "RequestExpired", "UnrecognizedClientException"),
)
_NOT_VERIFIED: Final = "Email address is not verified"

# Gets URL and body of a request; gives the headers that let it in.
Authorise = Callable[[str, bytes], Mapping[str, str]]


def bearer(key: str) -> Authorise:
    """Let requests in by an API key, as `Authorization: Bearer`."""
    return lambda url, body: {"authorization": f"Bearer {key}"}


def signature(region: str, key_id: str, secret: str) -> Authorise:
    """Let requests in by a signature of Amazon's (SigV4) with an access key that does not expire."""
    signer = AwsRequestSigner(region, key_id, secret, "ses")
    return lambda url, body: signer.sign_with_headers("POST", url, content_hash=sha256(body).hexdigest())


class SesTransport:
    """The port `sinks.transports.Transport` over HTTP, for one lane and one event loop.

    `url` is where the API is, without `PATH`; for times, connections and `repeats` see `HttpService`. Each
    request carries the dispatch id as `Idempotency-Key`, and each message as a tag.
    """

    def __init__(
        self,
        url: str,
        *,
        authorise: Authorise,
        configuration_set: str | None,
        repeats: bool,
        connections: int,
        timeout_s: float,
        verdict_timeout_s: float = 60.0,
    ) -> None:
        self._url = url.rstrip("/") + PATH
        self._authorise, self._configuration_set = authorise, configuration_set
        self._service = HttpService(
            self._url,
            connections=connections,
            timeout_s=timeout_s,
            verdict_timeout_s=verdict_timeout_s,
            repeats=repeats,
        )

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        """See `Transport.send`."""
        sender = sender_of(message.content)
        if sender is None:
            return NO_SENDER
        if not is_mailbox(message.recipient):
            return NOT_AN_ADDRESS
        body = self._body(message, sender)
        return await self._service.post(
            body,
            lambda: {"idempotency-key": message.dispatch_id, **self._authorise(self._url, body)},
            still_wanted,
            lambda answer: _outcome(answer, message.recipient),
        )

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._service.close()

    def _body(self, message: Message, sender: str) -> bytes:
        wanted: dict[str, object] = {
            "FromEmailAddress": sender,
            "Destination": {"ToAddresses": [message.recipient]},
            "Content": {"Raw": {"Data": b64encode(message.content).decode()}},
            "EmailTags": [{"Name": "dispatch_id", "Value": message.dispatch_id}],
        }
        if self._configuration_set is not None:
            wanted["ConfigurationSetName"] = self._configuration_set
        return json.dumps(wanted).encode()


def _outcome(answer: Answer, recipient: str) -> Outcome:
    told = _object(answer.body)
    name = answer.headers.get("x-amzn-errortype") or str(told.get("__type") or told.get("code") or "")
    name = name.partition(":")[0].rpartition("#")[2]
    text = str(told.get("message") or told.get("Message") or "")
    kind = kind_of(answer)
    if kind == "accepted":
        message_id = told.get("MessageId")
        if not isinstance(message_id, str):
            return Outcome("unknown", answer.status, "the answer has no MessageId, as one of Amazon SES has")
        return outcome_of(kind, answer, message_id, recipient)
    if name in _SET_UP_WRONGLY or (name == "MessageRejected" and text.startswith(_NOT_VERIFIED)):
        kind = "not_sent"
    elif name in _LATER:
        kind = "deferred"
    return outcome_of(kind, answer, text, recipient, name)


def _object(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
