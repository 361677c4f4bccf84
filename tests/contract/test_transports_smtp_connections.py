"""Connections of SMTP: reused, replaced, protected by TLS."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from sinks.transports import Message, Outcome
from tests.support import tls
from tests.support.smtp import Spoken, message, polite, sent, spoken, transport

LOGIN = {"username": "me", "password": "secret"}


@asynccontextmanager
async def listening(protocol: Callable[[], asyncio.BaseProtocol], **options: Any) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_connections_are_reused_and_closed_after_so_many_messages() -> None:
    server = Spoken(polite)
    outcomes = uvloop.run(spoken(server, *map(message, range(7)), messages_per_connection=3))

    assert {outcome.kind for outcome in outcomes} == {"accepted"}
    assert [sum(line == "DATA" for line in said) for said in server.connections] == [3, 3, 1]
    assert [said[-1] for said in server.connections] == ["QUIT"] * 3


def test_a_kept_connection_that_the_server_closed_is_replaced_without_losing_the_message() -> None:
    """Also one that closes only when it is spoken to, so that nobody could know before."""
    mails = 0

    def answer(line: str) -> bytes | None:
        nonlocal mails
        if line.startswith("MAIL"):
            mails += 1
            if mails == 2:
                return None
        return polite(line)

    server = Spoken(answer)
    outcomes = uvloop.run(spoken(server, message(1), message(2)))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "accepted"]
    assert [sum(line == "DATA" for line in said) for said in server.connections] == [1, 1]


def test_a_kept_connection_that_is_lost_after_mail_is_not_tried_again() -> None:
    recipients = 0

    def answer(line: str) -> bytes | None:
        nonlocal recipients
        if line.startswith("RCPT"):
            recipients += 1
            if recipients == 2:
                return None
        return polite(line)

    server = Spoken(answer)
    outcomes = uvloop.run(spoken(server, message(1), message(2)))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "deferred"]
    assert len(server.connections) == 1


# TLS and login


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tls.certificate(tmp_path_factory.mktemp("tls") / "relay.pem", "127.0.0.1")


class Taking:
    """Takes mail, and notes whether it came over TLS."""

    def __init__(self) -> None:
        self.over_tls: list[bool] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.over_tls.append(server.transport.get_extra_info("sslcontext") is not None)
        return "250 2.0.0 fine"


def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data == LoginPassword(b"me", b"secret"), handled=False)


async def over_tls(
    certificate: Path, how: str, *messages: Message, **changed: Any
) -> tuple[list[Outcome], list[bool]]:
    context = tls.serving(certificate)
    taking = Taking()

    def session() -> SMTP:
        options: dict[str, Any] = {"authenticator": login, "hostname": "test.example"}
        if how == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        return SMTP(taking, loop=asyncio.get_running_loop(), auth_require_tls=how == "starttls", **options)

    async with listening(session, ssl=context if how == "tls" else None) as port:
        through = transport(port, tls=how, **changed)
        outcomes = await sent(through, *messages)
        await through.close()
        return outcomes, taking.over_tls


@pytest.mark.parametrize("how", ["starttls", "tls"])
def test_messages_go_over_tls_with_a_certificate_that_is_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    one, other = message(1), message(2, size=1 << 20)
    outcomes, protected = uvloop.run(over_tls(certificate, how, one, other, **LOGIN))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "accepted"]
    assert protected == [True, True]


@pytest.mark.parametrize("how", ["starttls", "tls"])
def test_a_certificate_that_is_not_trusted_stops_everything(certificate: Path, how: str) -> None:
    [outcome], protected = uvloop.run(over_tls(certificate, how, message(1)))

    assert (outcome.kind, protected) == ("not_sent", [])
    assert "certificate" in outcome.detail.lower()


def test_a_wrong_password_is_not_the_message_s_fault_and_not_repeated(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    [outcome], protected = uvloop.run(
        over_tls(certificate, "starttls", message(1), **(LOGIN | {"password": "no"}))
    )

    assert (outcome.kind, outcome.code, protected) == ("not_sent", 535, [])


def test_a_server_without_starttls_is_sent_nothing_in_clear() -> None:
    server = Spoken(polite)
    [outcome] = uvloop.run(spoken(server, message(1), tls="starttls"))

    assert outcome.kind == "not_sent"
    assert "STARTTLS" in outcome.detail
    assert [line[:4] for line in server.connections[0]] == ["EHLO"]


def test_a_password_is_not_sent_in_clear() -> None:
    server = Spoken(polite)
    [outcome] = uvloop.run(spoken(server, message(1), **LOGIN))

    assert outcome.kind == "not_sent"
    assert "without TLS" in outcome.detail
    assert server.connections == []


def test_a_transport_shows_no_password() -> None:
    through = transport(25, **LOGIN, tls="tls")
    assert "secret" not in repr(through) + repr(vars(through))
