"""Where mail goes, by what is set: the sandbox, an SMTP relay, an API by HTTP, a webhook."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import ValidationError

from schemas.lanes import Lane
from schemas.settings import Settings
from schemas.units import Rate
from sinks.transports.ses import SesTransport
from sinks.transports.smtp import SmtpTransport
from sinks.transports.webhook import WebhookTransport
from streams import mail
from streams.mail import NoRelay, NoSandbox
from tests.support.peers import SECRET

LANE = Lane(rate=Rate.parse("1/s"))
API = "https://api.example.org"
AMAZON = "https://email.eu-west-1.amazonaws.com"
HOOK = "https://hooks.example.org/secret-path"


def settings(**given: Any) -> Settings:
    return Settings(**given)


@pytest.mark.parametrize(
    ("given", "kind", "shown"),
    [
        ({"relay": "mx.example.org:587"}, SmtpTransport, "mx.example.org:587"),
        ({"relay": API, "relay_password": "key"}, SesTransport, API),
        (
            {"relay": AMAZON, "relay_user": "AKID", "relay_password": "key", "relay_configuration_set": "x"},
            SesTransport,
            AMAZON,
        ),
        (
            {"webhook_url": HOOK, "webhook_secret": SECRET, "webhook_hosts": "a.example, hooks.example.org"},
            WebhookTransport,
            "webhook at hooks.example.org",
        ),
        (
            {
                "webhook_url": "http://127.0.0.1:8080/",
                "webhook_secret": SECRET,
                "webhook_hosts": "127.0.0.1",
                "webhook_private": True,
            },
            WebhookTransport,
            "webhook at 127.0.0.1",
        ),
    ],
)
def test_what_is_set_chooses_the_transport_and_is_said_loudly(
    given: dict[str, Any], kind: type, shown: str
) -> None:
    with structlog.testing.capture_logs() as logged:
        made = mail.transports(settings(**given))

    assert isinstance(made(LANE), kind)
    assert [(each["event"], each["relay"]) for each in logged] == [("real_relay", shown)]
    assert mail.address(settings(**given)) == shown
    assert settings(**given).mail_leaves


def test_without_any_the_sandbox_takes_it(tmp_path: Path) -> None:
    here = settings(state_dir=tmp_path)
    assert not here.mail_leaves
    assert mail.address(here) is None
    with pytest.raises(NoSandbox, match="opportune up"):
        mail.transports(here)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"relay": "mx.example.org"}, "neither host:port nor https"),
        ({"relay": "http://api.example.org:80"}, "neither host:port nor https"),
        ({"relay": API}, "OPPORTUNE_RELAY_PASSWORD"),
        ({"relay": API, "relay_password": "key\n"}, "line break"),
        ({"relay": API, "relay_password": "key", "relay_user": "me"}, "no relay_user"),
        ({"relay": AMAZON, "relay_password": "key"}, "id of an access key"),
        ({"relay": f"{AMAZON}/x", "relay_user": "AKID", "relay_password": "key"}, "REGION"),
        ({"relay": "https://me:hidden@api.example.org", "relay_password": "key"}, "without password"),
        ({"relay": "https://api.example.org?hidden", "relay_password": "key"}, "without password and query"),
        ({"relay": "https://[::1", "relay_password": "key"}, "no URL"),
        ({"relay": "https://", "relay_password": "key"}, "no URL"),
        ({"webhook_url": HOOK}, "webhook_hosts"),
        ({"webhook_url": HOOK, "webhook_hosts": "hooks.example.org"}, "webhook_secret"),
        ({"webhook_url": HOOK, "webhook_secret": SECRET, "webhook_hosts": "a.example"}, "not among"),
        (
            {"webhook_url": "http://a.example/", "webhook_secret": SECRET, "webhook_hosts": "a.example"},
            "https",
        ),
        ({"webhook_url": "https://[hidden", "webhook_secret": SECRET}, "no URL"),
    ],
)
def test_what_cannot_be_is_refused_with_the_setting_to_mend_and_without_secrets(
    given: dict[str, Any], why: str
) -> None:
    with pytest.raises(NoRelay, match=why) as refused:
        mail.transports(settings(**given))
    told = str(refused.value)
    assert not [secret for secret in ("hidden", "secret-path", SECRET) if secret in told]
    mail.address(settings(**given))


def test_messages_go_one_way() -> None:
    with pytest.raises(ValidationError, match="remove one"):
        settings(relay="mx.example.org:25", webhook_url=HOOK)


def test_what_is_set_is_asked_whether_it_takes_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        hook = {
            "webhook_url": f"http://127.0.0.1:{port}/",
            "webhook_secret": SECRET,
            "webhook_hosts": "127.0.0.1",
            "webhook_private": True,
        }
        ways: list[dict[str, Any]] = [
            {"relay": f"127.0.0.1:{port}"},
            {"relay": f"https://127.0.0.1:{port}", "relay_password": "key"},
            hook,
        ]
        for way in ways:
            mail.ask(settings(**way))
    for way in ways:
        with pytest.raises(NoRelay, match=r"127\.0\.0\.1.*: Connection refused"):
            mail.ask(settings(**way))
