"""What HTTP adds to the contract: each status, answers that break off, requests that are repeated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from sinks.transports import Message, Outcome
from tests.support.http import Asked, Service, answer, read_head
from tests.support.peers import HttpPeer, SesPeer, WebhookPeer, ses_error
from tests.support.smtp import ADDRESS, dispatch, message, sent


@pytest.fixture(params=[SesPeer, WebhookPeer], ids=["ses", "webhook"])
def peer(request: pytest.FixtureRequest) -> HttpPeer:
    made: HttpPeer = request.param()
    return made


def post(peer: HttpPeer, service: Service, *messages: Message, **changed: Any) -> list[Outcome]:
    async def run() -> list[Outcome]:
        async with service.listening() as port:
            through = peer.transport(port, **changed)
            try:
                return await sent(through, *messages)
            finally:
                await through.close()

    return uvloop.run(run())


def saying(*replies: bytes | None) -> Service:
    """A service that gives these answers, one after another."""
    left: Iterator[bytes | None] = iter(replies)
    return Service(lambda asked: next(left))


def raw(peer: HttpPeer, then: Callable[[asyncio.StreamWriter], Awaitable[None]], **changed: Any) -> Outcome:
    """Send a message to a service that answers a whole request as `then` writes it."""

    over = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, headers = await read_head(reader)
        await reader.readexactly(int(headers["content-length"]))
        with suppress(ConnectionError):
            await then(writer)
        writer.close()
        over.set()

    async def run() -> Outcome:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        through = peer.transport(server.sockets[0].getsockname()[1], **changed)
        outcome = await through.send(message(), lambda: True)
        await over.wait()
        await through.close()
        server.close()
        return outcome

    return uvloop.run(run())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, "not_sent"),
        (307, "not_sent"),
        (400, "bounced"),
        (401, "not_sent"),
        (403, "not_sent"),
        (404, "not_sent"),
        (405, "not_sent"),
        (408, "deferred"),
        (409, "unknown"),
        (413, "bounced"),
        (415, "not_sent"),
        (421, "deferred"),
        (422, "bounced"),
        (425, "deferred"),
        (429, "deferred"),
        (500, "unknown"),
        (502, "unknown"),
        (503, "unknown"),
        (504, "unknown"),
    ],
)
def test_each_status_says_whether_the_message_may_have_gone(peer: HttpPeer, status: int, kind: str) -> None:
    elsewhere = saying(answer(status, location="http://127.0.0.1:1/"), peer.says("accepts"))
    first, second = post(peer, elsewhere, message(1), message(2))

    assert (first.kind, first.code, first.permanent, first.retry_after_s) == (kind, status, False, None)
    assert second.kind == "accepted"
    assert len(elsewhere.asked) == 2, "no redirect was followed, nothing repeated"


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_says_when_to_come_back_did_not_take_the_message(peer: HttpPeer, status: int) -> None:
    [outcome] = post(peer, saying(answer(status, retry_after="120")), message())

    assert (outcome.kind, outcome.retry_after_s) == ("deferred", 120.0)


@pytest.mark.parametrize(
    ("status", "kind"), [(200, "unknown"), (404, "deferred"), (422, "deferred"), (500, "unknown")]
)
def test_an_answer_that_breaks_off_says_no_more_than_its_status(
    peer: HttpPeer, status: int, kind: str
) -> None:
    async def breaks_off(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status, b"half of it", content_length="20"))

    outcome = raw(peer, breaks_off)
    assert (outcome.kind, outcome.code) == (kind, status)


def test_an_answer_that_does_not_end_is_waited_for_no_longer_than_another(peer: HttpPeer) -> None:
    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 said\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    assert raw(peer, drips, verdict_timeout_s=0.5) == Outcome(
        "unknown", 500, "no answer in time after the whole message was sent"
    )


def test_of_an_answer_no_more_than_64_kb_are_read(peer: HttpPeer) -> None:
    taken = 0

    async def floods(writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.write(b"HTTP/1.1 422 said\r\ncontent-length: 1000000000\r\n\r\n")
        while taken < 100 << 20:
            writer.write(b"jane.doe@mail.example" * 1000)
            taken += 21_000
            await writer.drain()

    outcome = raw(peer, floods)
    assert outcome.kind == "bounced"
    assert "jane" not in outcome.detail
    assert taken < 100 << 20


@pytest.mark.parametrize(
    "words", [b"what?\r\n\r\n", b"HTTP/1.1 jane.doe@mail.example\r\n\r\n", b"220 mail.example ESMTP\r\n"]
)
def test_an_answer_that_is_none_of_http_leaves_unknown_and_is_not_quoted(
    peer: HttpPeer, words: bytes
) -> None:
    async def speaks(writer: asyncio.StreamWriter) -> None:
        writer.write(words)

    assert raw(peer, speaks) == Outcome(
        "unknown", detail="RemoteProtocolError after the whole message was sent"
    )


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (answer(413, connection="close"), "bounced", 413),
        (answer(500, connection="close"), "deferred", 500),
        (answer(200, b'{"MessageId": "1"}', connection="close"), "deferred", 200),
    ],
)
def test_a_message_that_is_answered_before_its_end_was_not_taken(
    peer: HttpPeer, reply: bytes, kind: str, code: int
) -> None:
    async def run() -> Outcome:
        async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(reply)
            await writer.drain()
            writer.close()

        async with peer.breaking(then) as port:
            through = peer.transport(port)
            outcome = await through.send(message(size=16 << 20), lambda: True)
            await through.close()
            return outcome

    outcome = uvloop.run(run())
    # The connection may be reset before the answer is read: the message was not taken either way.
    assert (outcome.kind, outcome.code) in [(kind, code), ("deferred", None)]


def test_a_kept_connection_that_the_service_closed_is_replaced(peer: HttpPeer) -> None:
    service = saying(peer.says("accepts"), peer.says("accepts"))
    service.hangs_up_after_answers = True

    async def run() -> list[Outcome]:
        async with service.listening() as port:
            through = peer.transport(port)
            found = await sent(through, message(1))
            async with asyncio.timeout(30):
                while not service.closed:
                    await asyncio.sleep(0.005)
            found += await sent(through, message(2))
            await through.close()
            return found

    assert [outcome.kind for outcome in uvloop.run(run())] == ["accepted", "accepted"]
    assert len(service.connections) == 2


# Repeating


def test_without_being_told_so_no_request_is_repeated(peer: HttpPeer) -> None:
    service = saying(None, peer.says("accepts"))
    assert [outcome.kind for outcome in post(peer, service, message())] == ["unknown"]
    assert len(service.asked) == 1


@pytest.mark.parametrize("lost", [None, answer(500), answer(502), answer(409)])
@pytest.mark.parametrize(
    ("again", "kind"),
    [
        ("accepts", "accepted"),
        ("refuses", "bounced"),
        ("defers", "unknown"),
        ("throttles", "unknown"),
        ("bars", "unknown"),
        ("hangs up", "unknown"),
    ],
)
def test_what_was_lost_is_sent_once_more_where_the_service_takes_each_key_once(
    peer: HttpPeer, lost: bytes | None, again: Any, kind: str
) -> None:
    service = saying(lost, peer.says(again), peer.says("accepts"))
    [outcome] = post(peer, service, message(1), repeats=True)

    assert outcome.kind == kind
    first, second = service.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == dispatch(1)
    assert first.body == second.body


def test_what_was_refused_or_recalled_is_not_sent_once_more(peer: HttpPeer) -> None:
    recalled = False

    def reply(asked: Asked) -> bytes | None:
        nonlocal recalled
        recalled = True
        return None

    async def run(service: Service) -> Outcome:
        async with service.listening() as port:
            through = peer.transport(port, repeats=True)
            outcome = await through.send(message(), lambda: not recalled)
            await through.close()
            return outcome

    lost = Service(reply)
    assert uvloop.run(run(lost)).kind == "unknown"
    refused = saying(peer.says("defers"), peer.says("accepts"))
    recalled = False
    assert uvloop.run(run(refused)).kind == "deferred"
    assert (len(lost.asked), len(refused.asked)) == (1, 1)


# Amazon's names


@pytest.mark.parametrize(
    ("status", "name", "text", "kind"),
    [
        (400, "MessageRejected", "looks like spam", "bounced"),
        (400, "MessageRejected", f"Email address is not verified. In region X: {ADDRESS}", "not_sent"),
        (400, "BadRequestException", "Illegal address", "bounced"),
        (400, "LimitExceededException", "too many", "deferred"),
        (400, "SendingPausedException", "paused", "deferred"),
        (400, "ThrottlingException", "Rate exceeded", "deferred"),
        (429, "TooManyRequestsException", "Maximum sending rate exceeded.", "deferred"),
        (400, "MailFromDomainNotVerifiedException", "no", "not_sent"),
        (400, "AccountSuspendedException", "no", "not_sent"),
        (404, "NotFoundException", "Configuration set x does not exist.", "not_sent"),
        (403, "SignatureDoesNotMatch", "no", "not_sent"),
        (500, "InternalFailure", "no", "unknown"),
        (503, "ServiceUnavailable", "no", "unknown"),
    ],
)
def test_an_error_of_amazon_says_more_than_its_status(status: int, name: str, text: str, kind: str) -> None:
    [outcome] = post(SesPeer(), saying(ses_error(status, name, text)), message())

    assert (outcome.kind, outcome.code, outcome.permanent) == (kind, status, False)
    assert outcome.detail == f"{name}: {text.replace(ADDRESS, '[address]')}"


@pytest.mark.parametrize(
    "told",
    [
        {"__type": "com.amazonaws.sesv2#SendingPausedException", "Message": "paused"},
        {"__type": "SendingPausedException:http://internal.amazon.com/", "message": "paused"},
        {"code": "SendingPausedException", "message": "paused"},
    ],
)
def test_the_name_of_an_error_is_found_wherever_services_put_it(told: dict[str, str]) -> None:
    [outcome] = post(SesPeer(), saying(answer(400, json.dumps(told).encode())), message())
    assert outcome == Outcome("deferred", 400, "SendingPausedException: paused")


@pytest.mark.parametrize("body", [b"", b"fine", b"[]", b'{"MessageId": null}', b"\xff"])
def test_a_yes_that_is_none_of_that_api_leaves_unknown(body: bytes) -> None:
    [outcome] = post(SesPeer(), saying(answer(200, body)), message())
    assert (outcome.kind, outcome.code) == ("unknown", 200)


def test_the_id_that_amazon_gives_a_message_is_kept() -> None:
    assert post(SesPeer(), saying(SesPeer().says("accepts")), message()) == [
        Outcome("accepted", 200, "0102-1")
    ]
