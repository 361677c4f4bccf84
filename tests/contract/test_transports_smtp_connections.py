"""Connections of a transport: reused, replaced, limited in number, protected by TLS."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sinks.transports import Message, Outcome
from tests.support.smtp import (
    Spoken,
    answering,
    message,
    polite,
    sent,
    spoken,
    transport,
)

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
    outcomes = asyncio.run(spoken(server, *map(message, range(7)), messages_per_connection=3))

    assert {outcome.kind for outcome in outcomes} == {"accepted"}
    assert [sum(line == "DATA" for line in said) for said in server.connections] == [3, 3, 1]
    assert [said[-1] for said in server.connections] == ["QUIT"] * 3


def test_a_transport_has_at_most_its_connections_at_once() -> None:
    at_once = most = 0

    class Counting:
        async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.01)
            at_once -= 1
            return "250 fine"

    connections = 0

    def session() -> SMTP:
        nonlocal connections
        connections += 1
        return SMTP(Counting(), hostname="test.example", loop=asyncio.get_running_loop())

    async def run() -> list[Outcome]:
        async with listening(session) as port:
            through = transport(port, connections=3)
            outcomes = await asyncio.gather(*(through.send(message(n), lambda: True) for n in range(20)))
            await through.close()
            return outcomes

    assert {outcome.kind for outcome in asyncio.run(run())} == {"accepted"}
    assert (most, connections) == (3, 3)


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
    outcomes = asyncio.run(spoken(server, message(1), message(2)))

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
    outcomes = asyncio.run(spoken(server, message(1), message(2)))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "deferred"]
    assert len(server.connections) == 1


def test_a_send_that_is_cancelled_takes_its_connection_with_it() -> None:
    server = Spoken(polite)

    async def run() -> Outcome:
        async with server.listening() as port:
            through = transport(port, connections=1)
            server.answer = answering("RCPT", b"")
            cut = asyncio.create_task(through.send(message(1), lambda: True))
            while not any(line.startswith("RCPT") for said in server.connections for line in said):
                await asyncio.sleep(0.01)
            cut.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cut
            server.answer = polite
            [outcome] = await sent(through, message(2))
            await through.close()
            return outcome

    assert asyncio.run(run()).kind == "accepted"
    assert [said.count("DATA") for said in server.connections] == [0, 1]


# TLS and login


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PEM file with a key and a certificate of it for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "relay.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


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
    certificate: Path, tls: str, *messages: Message, **changed: Any
) -> tuple[list[Outcome], list[bool]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    taking = Taking()

    def session() -> SMTP:
        options: dict[str, Any] = {"authenticator": login, "hostname": "test.example"}
        if tls == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        return SMTP(taking, loop=asyncio.get_running_loop(), auth_require_tls=tls == "starttls", **options)

    async with listening(session, ssl=context if tls == "tls" else None) as port:
        through = transport(port, tls=tls, **changed)
        outcomes = await sent(through, *messages)
        await through.close()
        return outcomes, taking.over_tls


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_messages_go_over_tls_with_a_certificate_that_is_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    one, other = message(1), message(2, size=1 << 20)
    outcomes, protected = asyncio.run(over_tls(certificate, tls, one, other, **LOGIN))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "accepted"]
    assert protected == [True, True]


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_certificate_that_is_not_trusted_stops_everything(certificate: Path, tls: str) -> None:
    [outcome], protected = asyncio.run(over_tls(certificate, tls, message(1)))

    assert (outcome.kind, protected) == ("not_sent", [])
    assert "certificate" in outcome.detail.lower()


def test_a_wrong_password_is_not_the_message_s_fault_and_not_repeated(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    [outcome], protected = asyncio.run(
        over_tls(certificate, "starttls", message(1), **(LOGIN | {"password": "no"}))
    )

    assert (outcome.kind, outcome.code, protected) == ("not_sent", 535, [])


def test_a_server_without_starttls_is_sent_nothing_in_clear() -> None:
    server = Spoken(polite)
    [outcome] = asyncio.run(spoken(server, message(1), tls="starttls"))

    assert outcome.kind == "not_sent"
    assert "STARTTLS" in outcome.detail
    assert [line[:4] for line in server.connections[0]] == ["EHLO"]


def test_a_password_is_not_sent_in_clear() -> None:
    server = Spoken(polite)
    [outcome] = asyncio.run(spoken(server, message(1), **LOGIN))

    assert outcome.kind == "not_sent"
    assert "without TLS" in outcome.detail
    assert server.connections == []


def test_a_transport_shows_no_password() -> None:
    through = transport(25, **LOGIN, tls="tls")
    assert "secret" not in repr(through) + repr(vars(through))
