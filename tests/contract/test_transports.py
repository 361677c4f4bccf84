"""What every transport promises: by SMTP, by an API in the shape of Amazon SES, by a webhook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from sinks.transports import Message, Outcome
from tests.support.peers import Peer, Server, SesPeer, SmtpPeer, WebhookPeer
from tests.support.smtp import ADDRESS, dispatch, message, sent

LARGE = 16 << 20  # more than what lies between two processes of one machine


@pytest.fixture(params=[SmtpPeer, SesPeer, WebhookPeer], ids=["smtp", "ses", "webhook"])
def peer(request: pytest.FixtureRequest) -> Peer:
    made: Peer = request.param()
    return made


def outcomes(peer: Peer, server: Server, *messages: Message, **changed: Any) -> list[Outcome]:
    """Send one message after another to a server."""

    async def run() -> list[Outcome]:
        async with server.listening() as port:
            through = peer.transport(port, **changed)
            try:
                return await sent(through, *messages)
            finally:
                await through.close()

    return uvloop.run(run())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


# What the server says


def test_what_the_server_takes_is_accepted_over_a_connection_that_is_kept(peer: Peer) -> None:
    server = peer.server("accepts")
    found = outcomes(peer, server, *map(message, range(3)))

    assert [(outcome.kind, outcome.permanent, outcome.retry_after_s) for outcome in found] == [
        ("accepted", False, None)
    ] * 3
    assert {200 <= (outcome.code or 0) < 300 for outcome in found} == {True}
    assert (server.messages, len(server.connections)) == (3, 1)


def test_what_is_refused_for_good_is_bounced_and_the_address_is_not_blamed(peer: Peer) -> None:
    [outcome] = outcomes(peer, peer.server("refuses"), message())

    assert (outcome.kind, outcome.permanent) == ("bounced", False)
    assert outcome.code
    assert "looks like spam" in outcome.detail


def test_a_bad_address_is_a_permanent_bounce_and_is_not_shown(peer: Peer) -> None:
    [outcome] = outcomes(peer, peer.server("knows nobody"), message())

    assert (outcome.kind, outcome.permanent) == ("bounced", True)
    assert outcome.detail.startswith("5.1.1 ")
    assert outcome.detail.endswith("[address] [address] [address] is unknown")
    assert "jane" not in repr((message(), outcome)).lower()


@pytest.mark.parametrize(("behaviour", "words"), [("defers", ""), ("throttles", "too many messages")])
def test_what_is_refused_for_a_time_is_deferred_and_the_next_message_goes(
    peer: Peer, behaviour: Any, words: str
) -> None:
    async def run() -> list[Outcome]:
        server = peer.server(behaviour)
        async with server.listening() as port:
            through = peer.transport(port)
            found = await sent(through, message(1))
            peer.behave(server, "accepts")
            found += await sent(through, message(2))
            await through.close()
            return found

    first, second = uvloop.run(run())
    assert (first.kind, second.kind) == ("deferred", "accepted")
    assert first.code
    assert words in first.detail


def test_for_how_long_a_server_asks_to_be_left_alone_is_told_where_it_can_say_so(peer: Peer) -> None:
    [outcome] = outcomes(peer, peer.server("throttles"), message())

    assert outcome.retry_after_s == (None if isinstance(peer, SmtpPeer) else 7.0)


def test_a_server_that_does_not_let_us_in_was_sent_nothing_for_which_the_message_is_to_blame(
    peer: Peer,
) -> None:
    [outcome] = outcomes(peer, peer.server("bars"), message())

    assert outcome.kind == "not_sent"
    assert outcome.code
    assert outcome.detail


def test_an_address_that_is_none_is_a_permanent_bounce_and_the_server_hears_nothing_of_it(peer: Peer) -> None:
    server = peer.server("accepts")
    wrong = [
        "jane",
        "jane doe@mail.example",
        "a@b.example> SIZE=1",
        "a@b.example\r\nDATA",
        "a@b.example, c@d.example",
        "Jane <a@b.example>",
        "",
        "\x00@b.example",
        "\udcff@b.example",
    ]
    found = outcomes(peer, server, *(message(recipient=each) for each in wrong))

    assert {(outcome.kind, outcome.permanent) for outcome in found} == {("bounced", True)}
    assert server.heard == []


@pytest.mark.parametrize("sender", ["Opportune", "Opportune <hello>", "<a\x00@b.example>", ""])
def test_a_message_without_a_sender_is_a_bounce_for_which_the_recipient_is_not_blamed(
    peer: Peer, sender: str
) -> None:
    content = f"From: {sender}\r\nSubject: hello\r\n\r\nhello\r\n".encode()
    [outcome] = outcomes(peer, peer.server("accepts"), Message(dispatch(1), ADDRESS, content))

    if peer.names_sender:
        assert outcome == Outcome("bounced", detail="the message has no address in its From header")
    else:
        assert outcome.kind == "accepted"


# Where no answer comes


@pytest.mark.parametrize("behaviour", ["hangs up", "is silent"])
def test_a_whole_message_without_a_reply_is_unknown_and_the_next_one_goes_over_another_connection(
    peer: Peer, behaviour: Any
) -> None:
    server = peer.server(behaviour)

    async def run() -> list[Outcome]:
        async with server.listening() as port:
            through = peer.transport(port, connections=1, verdict_timeout_s=0.5)
            found = await sent(through, message(1))
            peer.behave(server, "accepts")
            await through.close()
            through = peer.transport(port, connections=1)
            found += await sent(through, message(2))
            await through.close()
            return found

    first, second = uvloop.run(run())
    assert (first.kind, second.kind) == ("unknown", "accepted")
    assert first.detail.endswith("after the whole message was sent")
    assert (server.messages, len(server.connections)) == (2, 2)


def test_the_reply_to_a_whole_message_has_a_time_limit_of_its_own(peer: Peer) -> None:
    async def run() -> Outcome:
        server = peer.server("accepts")
        server.gate.clear()
        async with server.listening() as port:
            through = peer.transport(port, timeout_s=1.0)
            slow = asyncio.create_task(through.send(message(), lambda: True))
            await until(lambda: server.under_way == 1)
            await asyncio.sleep(1.5)
            server.gate.set()
            outcome = await slow
            await through.close()
            return outcome

    assert uvloop.run(run()).kind == "accepted"


@pytest.mark.parametrize("hangs", [True, False])
def test_a_message_of_which_the_end_has_not_left_was_not_taken(peer: Peer, hangs: bool) -> None:
    async def run() -> Outcome:
        over = asyncio.Event()

        async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if hangs:
                await over.wait()
            writer.transport.abort()

        async with peer.breaking(then) as port:
            through = peer.transport(port, timeout_s=2.0)
            outcome = await through.send(message(size=LARGE), lambda: True)
            over.set()
            await through.close()
            return outcome

    assert uvloop.run(run()).kind == "deferred"


def test_where_nobody_listens_nothing_was_sent(peer: Peer) -> None:
    async def run() -> list[Outcome]:
        async with peer.server("accepts").listening() as port:
            pass
        through = peer.transport(port)
        found = await sent(through, message())
        await through.close()
        return found

    [outcome] = uvloop.run(run())
    assert (outcome.kind, outcome.code) == ("not_sent", None)
    assert outcome.detail


# Recalls


def test_what_is_not_wanted_any_more_is_vetoed_before_anything_of_it_is_said(peer: Peer) -> None:
    server = peer.server("accepts")

    async def run() -> list[Outcome]:
        async with server.listening() as port:
            through = peer.transport(port)
            found = [await through.send(message(1), lambda: False)]
            assert server.heard == []
            found += await sent(through, message(2))
            await through.close()
            return found

    assert [outcome.kind for outcome in uvloop.run(run())] == ["vetoed", "accepted"]
    assert server.messages == 1


def test_a_recall_while_the_content_is_on_its_way_keeps_its_end_back(peer: Peer) -> None:
    async def run() -> tuple[Outcome, bytes]:
        recalled, end = False, b""
        gone = asyncio.Event()

        async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal recalled, end
            recalled = True  # and the rest is read only now
            with suppress(ConnectionError):
                while some := await reader.read(1 << 20):
                    end = (end + some)[-5:]
            writer.close()
            gone.set()

        async with peer.breaking(then) as port:
            through = peer.transport(port)
            outcome = await through.send(message(size=LARGE), lambda: not recalled)
            await gone.wait()
            await through.close()
            return outcome, end

    outcome, end = uvloop.run(run())
    assert outcome == Outcome("vetoed")
    assert not end.endswith(peer.end)


# Many at once


def test_a_transport_has_at_most_its_connections_at_once(peer: Peer) -> None:
    server = peer.server("accepts")
    server.gate.clear()

    async def run() -> list[Outcome]:
        async with server.listening() as port:
            through = peer.transport(port, connections=3)
            under_way = [asyncio.create_task(through.send(message(n), lambda: True)) for n in range(20)]
            await until(lambda: server.under_way == 3)
            server.gate.set()
            found = await asyncio.gather(*under_way)
            await through.close()
            return found

    assert {outcome.kind for outcome in uvloop.run(run())} == {"accepted"}
    assert (server.messages, server.most, len(server.connections)) == (20, 3, 3)


def test_a_send_that_is_cancelled_takes_its_connection_with_it(peer: Peer) -> None:
    server = peer.server("is silent")

    async def run() -> list[Outcome]:
        async with server.listening() as port:
            through = peer.transport(port, connections=1)
            cut = asyncio.create_task(through.send(message(1), lambda: True))
            await until(lambda: server.messages == 1)
            cut.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cut
            peer.behave(server, "accepts")
            found = await sent(through, message(2))
            await through.close()
            return found

    assert [outcome.kind for outcome in uvloop.run(run())] == ["accepted"]
    assert len(server.connections) == 2


def test_closing_twice_is_closing(peer: Peer) -> None:
    async def run() -> list[Outcome]:
        async with peer.server("accepts").listening() as port:
            through = peer.transport(port)
            await through.close()
            await through.close()
            other = peer.transport(port)
            found = await sent(other, message())
            await other.close()
            await other.close()
            return found

    assert [outcome.kind for outcome in uvloop.run(run())] == ["accepted"]
