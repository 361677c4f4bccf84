"""What a webhook is sent, how it knows that it is from us, and where nothing is ever sent."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore2
import pytest

from sinks.transports import Outcome
from sinks.transports.webhook import Webhook, WebhookRefused, WebhookTransport
from tests.support import tls
from tests.support.http import Service, answer
from tests.support.peers import HTTP_DEFAULTS, SECRET, WebhookPeer
from tests.support.smtp import ADDRESS, dispatch, message, sent

NAME = "hooks.example"
PUBLIC = "8.8.4.4"  # nothing is sent there: the tests' connections go to this machine


def test_a_message_goes_as_it_is_with_its_dispatch_as_key_and_a_signature_of_the_body() -> None:
    service = WebhookPeer().server("accepts")
    assert isinstance(service, Service)

    async def run() -> None:
        async with service.listening() as port:
            through = WebhookPeer().transport(port)
            await sent(through, message(1))
            await through.close()

    asyncio.run(run())
    [asked] = service.asked
    told = json.loads(asked.body)
    assert asked.line == "POST /mail HTTP/1.1"
    assert b64decode(told.pop("content")) == message(1).content
    assert told == {"dispatch_id": dispatch(1), "recipient": ADDRESS}
    assert asked.headers["idempotency-key"] == asked.headers["webhook-id"] == dispatch(1)
    signed = f"{dispatch(1)}.{asked.headers['webhook-timestamp']}.".encode() + asked.body
    expected = hmac.digest(b64decode(SECRET.removeprefix("whsec_")), signed, "sha256")
    assert asked.headers["webhook-signature"] == f"v1,{b64encode(expected).decode()}"


def test_a_signature_is_that_of_the_standard() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks, of its libraries' tests."""
    webhook = Webhook(f"https://{NAME}/", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", {NAME}, private=False)

    assert (
        webhook.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


# Where it may be


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"http://{NAME}/", "only https"),
        (f"ftp://{NAME}/", "only https"),
        ("https://other.example/", "other.example is not among"),
        (f"https://{NAME}.other.example/", "is not among"),
        (f"https://{NAME}@other.example/", "password"),
        (f"https://me:secret@{NAME}/", "password"),
        (f"https://other.example\\@{NAME}/", "password"),
        (f"https://{NAME}/#here", "no URL"),
        (f"https://{NAME}/ x", "no URL"),
        (f"https://{NAME}:port/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://", "no URL"),
        (NAME, "no URL"),
        ("", "no URL"),
    ],
)
def test_a_url_that_is_not_allowed_is_refused_without_its_password(url: str, why: str) -> None:
    with pytest.raises(WebhookRefused, match=why) as refused:
        Webhook(url, SECRET, {NAME}, private=False)
    assert "secret@" not in str(refused.value)


def test_http_is_for_private_addresses_and_hosts_are_in_any_case() -> None:
    Webhook(f"https://{NAME.upper()}/", SECRET, {NAME.title()}, private=False)
    Webhook(f"http://{NAME}/", SECRET, {NAME}, private=True)
    with pytest.raises(WebhookRefused):
        Webhook("http://other.example/", SECRET, {NAME}, private=True)


@pytest.mark.parametrize("secret", ["", "hidden", "whsec_c2hvcnQ=", "whsec_not base64!", SECRET[6:]])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(WebhookRefused, match="random bytes") as refused:
        Webhook(f"https://{NAME}/", secret, {NAME}, private=False)
    assert not secret or secret not in str(refused.value)


def test_neither_secret_nor_path_is_shown() -> None:
    webhook = Webhook(f"https://{NAME}/token", SECRET, {NAME}, private=False)
    through = WebhookTransport(webhook, **HTTP_DEFAULTS)
    assert "token" not in repr(webhook) + repr(vars(through))
    assert SECRET not in repr(webhook) + repr(vars(through))


# Where it is


class Names:
    """Answers of a resolver, one after another; what is then connected to is noted, and is this machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self.connected: list[str] = []
        self._answers: Iterator[list[str]] = iter(answers)
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", self._resolve)
        self._connect = httpcore2.AnyIOBackend.connect_tcp
        monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", lambda _, *given: self._open(*given))

    async def _resolve(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in next(self._answers)
        ]

    async def _open(self, address: str, *given: Any) -> httpcore2.AsyncNetworkStream:
        self.connected.append(address)
        if address == "2001:4860:4860::8844":
            raise httpcore2.ConnectError("no route")
        return await self._connect(httpcore2.AnyIOBackend(), "127.0.0.1", *given)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tls.certificate(tmp_path / "hooks.pem", NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


async def sent_to(service: Service, certificate: Path, count: int = 1) -> list[Outcome]:
    async with service.listening(tls.serving(certificate)) as port:
        webhook = Webhook(f"https://{NAME}:{port}/", SECRET, {NAME}, private=False)
        through = WebhookTransport(webhook, **HTTP_DEFAULTS)
        found = await sent(through, *map(message, range(count)))
        await through.close()
        return found


def accepting(close: bool = False) -> Service:
    return Service(lambda asked: answer(204, connection="close" if close else "keep-alive"))


def test_the_address_that_was_looked_at_is_connected_to_under_the_name(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, service = Names(monkeypatch, [PUBLIC]), accepting()
    outcomes = asyncio.run(sent_to(service, certificate, 2))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "accepted"]
    assert (names.asked, names.connected) == ([NAME], [PUBLIC])
    assert service.asked[0].headers["host"].startswith(f"{NAME}:")


def test_a_name_that_leads_elsewhere_for_the_next_connection_is_looked_at_anew(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, service = Names(monkeypatch, [PUBLIC], ["127.0.0.1"]), accepting(close=True)
    outcomes = asyncio.run(sent_to(service, certificate, 2))

    assert [outcome.kind for outcome in outcomes] == ["accepted", "not_sent"]
    assert outcomes[1].detail.endswith(f"{NAME} is 127.0.0.1, which is no public address")
    assert names.connected == [PUBLIC]


def test_a_name_of_which_one_address_is_private_is_refused(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, [PUBLIC, "10.0.0.1"])
    [outcome] = asyncio.run(sent_to(accepting(), certificate))

    assert (outcome.kind, names.connected) == ("not_sent", [])


def test_of_several_addresses_the_first_that_answers_is_taken(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["2001:4860:4860::8844", PUBLIC])
    [outcome] = asyncio.run(sent_to(accepting(), certificate))

    assert (outcome.kind, names.connected) == ("accepted", ["2001:4860:4860::8844", PUBLIC])


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_an_address_in_the_place_of_a_name_is_looked_at_too(address: str) -> None:
    service = accepting()

    async def run() -> Outcome:
        async with service.listening() as port:
            webhook = Webhook(f"https://{address}:{port}/", SECRET, {address.strip("[]")}, private=False)
            through = WebhookTransport(webhook, **HTTP_DEFAULTS)
            [outcome] = await sent(through, message())
            await through.close()
            return outcome

    outcome = asyncio.run(run())
    assert (outcome.kind, service.connections) == ("not_sent", [])
    assert "no public address" in outcome.detail


def test_a_certificate_of_another_name_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tls.certificate(tmp_path / "other.pem", "other.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    Names(monkeypatch, [PUBLIC])
    service = accepting()
    [outcome] = asyncio.run(sent_to(service, other))

    assert (outcome.kind, service.asked) == ("not_sent", [])
    assert "certificate" in outcome.detail.lower()


def test_a_name_without_an_address_was_sent_nothing(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    [outcome] = asyncio.run(sent_to(accepting(), certificate))
    assert outcome.kind == "not_sent"
    assert "cannot be resolved" in outcome.detail


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    service = accepting()

    async def run() -> Outcome:
        async with service.listening() as port:
            through = WebhookPeer().transport(port)
            [outcome] = await sent(through, message())
            await through.close()
            return outcome

    assert asyncio.run(run()).kind == "accepted"
    assert len(service.asked) == 1
