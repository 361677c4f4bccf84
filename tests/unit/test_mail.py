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
from sinks.transports.relays import Relays
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
NEWS = {
    "mail_from": "Shop News <news@news.shop.example>",
    "relay": "mx1.example.org:587, mx2.example.org:587",
}


def settings(**given: Any) -> Settings:
    return Settings(**given)


def ask(way: dict[str, Any]) -> None:
    [address] = mail.addresses(settings(**way))
    mail.ask(settings(**way), address)


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
        made = mail.transports(settings(**given))("gmail", LANE)

    assert isinstance(made, kind)
    assert [(each["event"], each["relay"]) for each in logged] == [("real_relay", shown)]
    assert mail.addresses(settings(**given)) == [shown]
    assert settings(**given).mail_leaves


def test_without_any_the_sandbox_takes_it(tmp_path: Path) -> None:
    here = settings(state_dir=tmp_path)
    assert not here.mail_leaves
    assert mail.addresses(here) == []
    with pytest.raises(NoSandbox, match="opportune up"):
        mail.transports(here)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"relay": "mx.example.org"}, "neither host:port nor https"),
        ({"relay": "http://api.example.org:80"}, "neither host:port nor https"),
        ({"relay": "mx1.example.org:25; mx2.example.org:25"}, "neither host:port nor https"),
        ({"relay": "mx1.example.org:99999"}, "neither host:port nor https"),
        ({"identity": {"news": NEWS | {"relay": "mx"}}, "relay": "mx:25"}, "^identity news: relay 'mx'"),
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
    mail.addresses(settings(**given))


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
            ask(way)
    for way in ways:
        with pytest.raises(NoRelay, match=r"127\.0\.0\.1.*: Connection refused"):
            ask(way)


def test_an_identity_inherits_what_it_does_not_set_but_no_way_out_beside_its_own() -> None:
    made = settings(
        relay="mx.example.org:25",
        relay_user="opportune",
        relay_password="hidden",  # noqa: S106 - a test's
        unsubscribe_mailto="stop@shop.example",
        identity={"news": NEWS, "shop": {"mail_from": "Shop <hello@shop.example>"}},
    )
    news, shop = made.identities["news"], made.identities["shop"]
    assert news.relay == ("mx1.example.org:587", "mx2.example.org:587")
    assert (news.relay_user, news.relay_password) == (None, None)
    assert news.unsubscribe_mailto == "stop@shop.example"
    assert (shop.relay, shop.relay_user) == (("mx.example.org:25",), "opportune")
    assert made.identities["default"] is made
    assert "hidden" not in repr(made)


def test_an_identity_s_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPPORTUNE_IDENTITY__NEWS__RELAY", "mx1.example.org:587,mx2.example.org:587")
    monkeypatch.setenv("OPPORTUNE_IDENTITY__NEWS__RELAY_PASSWORD", "hidden")
    news = settings(identity={"news": {"mail_from": NEWS["mail_from"]}}).identities["news"]
    assert (news.mail_from, len(news.relay)) == (NEWS["mail_from"], 2)
    assert news.relay_password is not None
    assert news.relay_password.get_secret_value() == "hidden"


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        ({"News": NEWS}, "small letters"),
        ({"default": NEWS}, "at the top"),
        ({"news": {"relay": "mx.example.org:25"}}, "mail_from of its own"),
        ({"news": {"mail_from": "nobody"}}, "names no mailbox"),
        ({"news": NEWS | {"partitions": 3}}, "not permitted"),
        ({"news": NEWS | {"webhook_url": HOOK}}, "remove one"),
    ],
)
def test_an_identity_that_cannot_be_is_refused(identity: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        settings(identity=identity)


def test_a_lane_goes_by_the_way_of_its_identity() -> None:
    made = mail.transports(settings(relay=API, relay_password="key", identity={"news": NEWS}))  # noqa: S106
    assert isinstance(made("gmail#2", LANE), SesTransport)
    assert isinstance(made("news/gmail", LANE), Relays)
    assert isinstance(made("gone/gmail", LANE), SesTransport)  # nothing is ever rendered for it
    assert mail.addresses(settings(relay=API, identity={"news": NEWS})) == [
        API,
        "mx1.example.org:587",
        "mx2.example.org:587",
    ]
