"""Commands that are written at once, to a server that takes them so (RFC 2920)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import uvloop

from sinks.transports import Outcome
from tests.support.smtp import Spoken, message, polite, sent, spoken, transport


def offering(answer: Callable[[str], bytes | None] = polite) -> Spoken:
    return Spoken(lambda said: b"250-here\r\n250 PIPELINING\r\n" if said.startswith("EHLO") else answer(said))


def first(replies: dict[str, bytes | None]) -> Callable[[str], bytes | None]:
    """Answers so the first time that each is said, and politely after that."""
    left = dict(replies)
    return lambda said: left.pop(said[:4], b"") if said[:4] in left else polite(said)


def test_all_before_the_content_is_said_without_waiting() -> None:
    together = {"MAIL": b"", "RCPT": b"", "DATA": b"250 fine\r\n250 fine\r\n354 go on\r\n"}
    server = offering(lambda said: together.get(said[:4], polite(said)))
    outcomes = uvloop.run(spoken(server, message(1), message(2), timeout_s=5.0))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "accepted"]
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("replies", "kind", "code", "ends"),
    [
        ({"MAIL": b"450 wait\r\n", "RCPT": b"503 no\r\n", "DATA": b"503 no\r\n"}, "deferred", 450, []),
        ({"RCPT": b"550 5.1.1 who?\r\n", "DATA": b"554 nobody\r\n"}, "bounced", 550, []),
        ({"RCPT": b"550 5.1.1 who?\r\n", ".": b"554 nobody\r\n"}, "bounced", 550, ["."]),
        ({"RCPT": b"451 wait\r\n", ".": b"250 as you like\r\n"}, "deferred", 451, ["."]),
        ({"DATA": b"451 wait\r\n"}, "deferred", 451, []),
    ],
)
def test_a_refusal_is_told_by_the_first_reply_that_is_one_nothing_is_sent_and_the_next_message_goes(
    replies: dict[str, bytes | None], kind: str, code: int, ends: list[str]
) -> None:
    heard: list[str] = []
    answer = first(replies)

    def listen(said: str) -> bytes | None:
        heard.append(said[:4])
        return answer(said)

    server = offering(listen)

    async def run() -> None:
        async with server.listening() as port:
            through = transport(port, connections=1)
            [outcome] = await sent(through, message(1))
            assert (outcome.kind, outcome.code, server.content) == (kind, code, [])
            assert heard == ["MAIL", "RCPT", "DATA", *ends, "RSET"]
            [outcome] = await sent(through, message(2))
            assert (outcome.kind, len(server.connections)) == ("accepted", 1)
            await through.close()

    uvloop.run(run())


def test_a_recipient_who_may_have_been_taken_gets_no_empty_message() -> None:
    server = offering(first({"RCPT": b"252 perhaps\r\n"}))
    outcomes = uvloop.run(spoken(server, message(1), message(2)))

    assert [outcome.kind for outcome in outcomes] == ["deferred", "accepted"]
    assert (server.messages, len(server.connections)) == (1, 2)


def test_a_recall_before_the_content_costs_the_connection_and_nothing_of_it_is_sent() -> None:
    recalled = False

    def answer(said: str) -> bytes | None:
        nonlocal recalled
        recalled = recalled or said.startswith("RCPT")
        return polite(said)

    server = offering(answer)

    async def run() -> list[Outcome]:
        async with server.listening() as port:
            through = transport(port, connections=1)
            outcomes = [await through.send(message(1), lambda: not recalled)]
            assert server.content == []
            outcomes += await sent(through, message(2))
            await through.close()
            return outcomes

    assert [outcome.kind for outcome in uvloop.run(run())] == ["vetoed", "accepted"]
    assert (server.messages, len(server.connections)) == (1, 2)


@pytest.mark.parametrize(
    ("at", "kind", "connections"),
    [("MAIL", "accepted", 2), ("RCPT", "deferred", 1), ("DATA", "deferred", 1)],
)
def test_a_kept_connection_that_is_lost_is_replaced_if_nothing_of_the_message_was_answered(
    at: str, kind: str, connections: int
) -> None:
    times = 0

    def answer(said: str) -> bytes | None:
        nonlocal times
        times += said.startswith(at)
        return None if said.startswith(at) and times == 2 else polite(said)

    server = offering(answer)
    outcomes = uvloop.run(spoken(server, message(1), message(2), connections=1))

    assert [outcome.kind for outcome in outcomes] == ["accepted", kind]
    assert (server.messages, len(server.connections)) == (1 + (kind == "accepted"), connections)


@pytest.mark.parametrize("unasked", [b"421 4.4.2 idle for too long\r\n", b"250 again\r\n"])
def test_what_a_server_says_unasked_is_no_reply_to_what_comes_next(unasked: bytes) -> None:
    server = offering(first({".": b"250 2.0.0 kept\r\n" + unasked}))
    outcomes = uvloop.run(spoken(server, message(1), message(2), connections=1))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "accepted"]
    assert len(server.connections) == 2
