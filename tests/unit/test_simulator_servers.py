"""Mailbox providers as SMTP servers, asked by our own transport over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiosmtplib

from models.lanes import retry_at
from sinks.transports import Message, Outcome
from streams.simulator import servers
from streams.simulator.parameters import Parameter, Parameters, ServerParameters
from streams.simulator.provider import MailboxProvider
from streams.simulator.servers import Mailboxes, Said, address
from tests.support.smtp import dispatch, message, sent, transport

ASSUMED = Parameters.assumed()


def parameters(**changed: float) -> ServerParameters:
    values = {"connections": 20.0, "slow": 0.0, "slow_s": 0.0, "half_open": 0.0} | changed
    return ServerParameters(
        **{name: Parameter(value=value, source="a test") for name, value in values.items()}
    )


def box(provider: str = "gmail", **changed: float) -> MailboxProvider:
    """A provider of whose numbers some are so many times as large; no storms, and everybody exists."""
    assumed = ASSUMED
    for name, factor in {"storms": 0.0, "unknown": 0.0, "greylisted": 0.0, **changed}.items():
        assumed = assumed.scaled(provider, name, factor)
    return MailboxProvider(provider, assumed.provider[provider], 3, seed=1)


def asked(
    boxes: dict[str, MailboxProvider],
    *messages: Message,
    now: Callable[[], float] = lambda: 0.0,
    timeout_s: float = 30.0,
    **changed: float,
) -> tuple[list[Outcome], list[Said]]:
    """What is answered to messages, one after the other, and what the servers tell of it."""
    said: list[Said] = []

    async def run() -> list[Outcome]:
        async with Mailboxes(boxes, parameters(**changed), now, said.append, seed=1).listening() as port:
            through = transport(port, timeout_s=timeout_s)
            try:
                return await sent(through, *messages)
            finally:
                await through.close()

    return asyncio.run(run()), said


def test_a_server_answers_as_its_provider_and_tells_which_dispatch_was_meant() -> None:
    same = box()
    expected = [same.answer(0.0, number) for number in range(40)]
    found, said = asked(
        {"gmail": box()}, *(message(number, address("gmail", number)) for number in range(40))
    )
    assert [outcome.kind for outcome in found] == [answer.kind for answer in expected]
    assert [each.answer for each in said] == expected
    assert [each.dispatch_id for each in said] == [dispatch(number) for number in range(40)]
    refused = next(outcome for outcome in found if outcome.kind == "deferred")
    assert refused.code == 421
    assert refused.detail is not None
    assert "unusual rate" in refused.detail


def test_one_server_speaks_for_several_by_the_recipients_domain() -> None:
    whom = [address("gmail", 1), address("other", 1), "somebody@elsewhere.test"]
    found, said = asked({"gmail": box(), "other": box("other")}, *(message(1, each) for each in whom))
    assert [outcome.kind for outcome in found] == ["accepted", "accepted", "bounced"]
    assert [each.provider for each in said] == ["gmail", "other"]


def test_who_does_not_exist_is_refused_for_good_and_greylisting_ends_on_the_providers_clock() -> None:
    grey = {"other": box("other", greylisted=3.0)}
    times = iter([0.0, 1000.0, float(retry_at(0, 1)) + 1])
    found, _ = asked(grey, *[message(1, address("other", 7))] * 3, now=lambda: next(times))
    assert [outcome.kind for outcome in found] == ["deferred", "deferred", "accepted"]
    [gone], _ = asked({"other": box("other", unknown=40.0)}, message(1, address("other", 7)))
    assert (gone.kind, gone.code, gone.permanent) == ("bounced", 550, True)


def test_a_connection_too_many_is_refused_and_one_that_ends_makes_room() -> None:
    async def run() -> list[int]:
        mailboxes = Mailboxes({"gmail": box()}, parameters(connections=2), lambda: 0.0, lambda _: None, 1)
        codes = []
        async with mailboxes.listening() as port:
            clients = [aiosmtplib.SMTP(hostname=servers.HOST, port=port, use_tls=False) for _ in range(4)]
            for client in clients[:3]:
                codes.append(await _rcpt(client))
            await clients[0].quit()
            codes.append(await _rcpt(clients[3]))
            for client in clients:
                client.close()
        return codes

    assert asyncio.run(run()) == [250, 250, 421, 250]


async def _rcpt(client: aiosmtplib.SMTP) -> int:
    await client.connect()
    await client.ehlo()
    await client.mail("hello@opportune.example")
    try:
        return (await client.rcpt(address("gmail", 1))).code
    except aiosmtplib.SMTPRecipientRefused as error:
        return error.code


def test_a_half_open_connection_says_nothing_and_a_slow_one_answers_late() -> None:
    one = message(1, address("gmail", 1))
    [outcome], said = asked({"gmail": box()}, one, half_open=1.0, timeout_s=0.2)
    assert outcome.kind == "not_sent"
    assert not said
    [outcome], said = asked({"gmail": box()}, one, slow=1.0, slow_s=0.05)
    assert outcome.kind == "accepted"
    assert len(said) == 1


def test_servers_in_a_thread_take_mail_until_they_are_left() -> None:
    said: list[Said] = []
    mailboxes = Mailboxes({"gmail": box()}, parameters(), lambda: 0.0, said.append, seed=1)

    async def one(port: int) -> list[Outcome]:
        through = transport(port)
        try:
            return await sent(through, message(1, address("gmail", 1)))
        finally:
            await through.close()

    with servers.running(mailboxes) as port:
        [taken] = asyncio.run(one(port))
    assert taken.kind == "accepted"
    [refused] = asyncio.run(one(port))
    assert refused.kind == "not_sent"
    assert len(said) == 1
