"""Where mail goes, to the sandbox, an SMTP relay, an API by HTTP or a webhook, and who signs it."""

import re
import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import structlog

from infra.embedded import SandboxServer
from schemas.lanes import Lane
from schemas.settings import Settings
from sinks.key_files import KeyFileRefused
from sinks.transports import Transport
from sinks.transports.dkim import Signer, load_key
from sinks.transports.ses import SesTransport, bearer, signature
from sinks.transports.smtp import SmtpTransport, Tls
from sinks.transports.webhook import Webhook, WebhookRefused, WebhookTransport
from streams import events

_log = structlog.get_logger()
_TIMEOUT_S = 30.0
_ASK_S = 5.0
_HTTPS: Final = "https://"
_AMAZON: Final = re.compile(r"https://email(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)/?")
_PRINTABLE: Final = re.compile(r"[!-~]+")


class NoSandbox(RuntimeError):
    """No relay is set, and no sandbox answers on this machine."""


class NoRelay(RuntimeError):
    """The relay that is set does not answer, or what is set of it cannot be: mend the settings it names."""


def address(settings: Settings) -> str | None:
    """Where mail goes, to be shown: of a webhook the host alone, since many have a secret in their path."""
    if settings.webhook_url is not None:
        host = re.match(r"\w+://([\w.-]+)", settings.webhook_url)
        return f"webhook at {host[1] if host else 'no host'}"
    return settings.relay


def ask(settings: Settings) -> None:
    """Ask whether what is set takes connections. Raises `NoRelay`."""
    if settings.webhook_url is not None:
        host, port = _host(_webhook(settings).url)
    elif _is_api(settings):
        host, port = _host(_api(settings))
    else:
        host, port = _relay(settings)
    try:
        socket.create_connection((host, port), _ASK_S).close()
    except OSError as error:
        raise NoRelay(f"{address(settings)}: {error.strerror or error}") from error


def transports(settings: Settings) -> Callable[[Lane], Transport]:
    """What makes the transport of a lane.

    A relay, API or webhook is only used where one is set, and that is said loudly: its mail reaches people.

    Raises
    ------
    NoSandbox
        None is set, and no sandbox runs here.
    NoRelay
        What is set cannot be used.
    """
    if not settings.mail_leaves:
        return _to_sandbox(settings)
    if settings.webhook_url is not None:
        make = _to_webhook(settings)
    elif _is_api(settings):
        make = _to_api(settings)
    else:
        make = _smtp(settings, *_relay(settings), settings.relay_tls)
    _log.warning(
        events.REAL_RELAY,
        relay=address(settings),
        message="mail goes to this relay, and through it to people",
    )
    return make


def signer(settings: Settings) -> Signer | None:
    """What signs mail; None where no key is set, and the relay signs. Raises `KeyFileRefused`."""
    if settings.dkim_key is None:
        return None
    try:
        key = load_key(settings.dkim_key)
    except KeyFileRefused as error:
        raise KeyFileRefused(f"dkim_key: {error}") from error
    return Signer(key, settings.signing_domain, settings.dkim_selector)


def _to_sandbox(settings: Settings) -> Callable[[Lane], Transport]:
    status = SandboxServer(settings.state_dir).status()
    if status.health != "ready" or status.endpoint is None:
        raise NoSandbox(
            f"no mail sandbox: the one of {settings.state_dir} is {status.health}. Run `opportune up`, "
            "or set a relay (OPPORTUNE_RELAY=host:port); its mail then reaches people."
        )
    return _smtp(settings, status.endpoint.host, status.endpoint.port, "none")


def _smtp(settings: Settings, host: str, port: int, tls: Tls) -> Callable[[Lane], Transport]:
    password = settings.relay_password.get_secret_value() if settings.relay_password else None

    def make(lane: Lane) -> Transport:
        return SmtpTransport(
            host,
            port,
            username=settings.relay_user,
            password=password,
            tls=tls,
            connections=lane.connections,
            messages_per_connection=lane.messages_per_connection,
            timeout_s=_TIMEOUT_S,
            local_hostname=settings.mail_domain,
        )

    return make


def _to_api(settings: Settings) -> Callable[[Lane], Transport]:
    url = _api(settings)
    key = settings.relay_password.get_secret_value() if settings.relay_password else ""
    if not _PRINTABLE.fullmatch(key):
        raise NoRelay(
            "relay_password must be the key of the API, without a space or line break: set it by "
            "OPPORTUNE_RELAY_PASSWORD"
        )
    amazon = _AMAZON.fullmatch(url)
    if (amazon is None) != (settings.relay_user is None):
        raise NoRelay(
            f"relay {url}: Amazon SES, at https://email.REGION.amazonaws.com, needs the id of an access key "
            "as relay_user and its secret as relay_password; another API its key as relay_password, and no "
            "relay_user"
        )
    if amazon is not None and settings.relay_user is not None:
        authorise = signature(amazon[1], settings.relay_user, key)
    else:
        authorise = bearer(key)

    def make(lane: Lane) -> Transport:
        return SesTransport(
            url,
            authorise=authorise,
            configuration_set=settings.relay_configuration_set,
            repeats=settings.http_idempotent,
            connections=lane.connections,
            timeout_s=_TIMEOUT_S,
        )

    return make


def _to_webhook(settings: Settings) -> Callable[[Lane], Transport]:
    webhook = _webhook(settings)

    def make(lane: Lane) -> Transport:
        return WebhookTransport(
            webhook,
            repeats=settings.http_idempotent,
            connections=lane.connections,
            timeout_s=_TIMEOUT_S,
        )

    return make


def _relay(settings: Settings) -> tuple[str, int]:
    host, _, port = (settings.relay or "").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise NoRelay(
            f"relay {settings.relay!r} is neither host:port nor https://…; "
            "write for example mx.example.org:587"
        )
    return host, int(port)


def _is_api(settings: Settings) -> bool:
    return (settings.relay or "").startswith(_HTTPS)


def _api(settings: Settings) -> str:
    url = settings.relay or ""
    try:
        parts = urlsplit(url)
        fits = parts.hostname and not (
            parts.query or parts.fragment or "@" in parts.netloc or parts.port == 0
        )
    except ValueError:
        fits = False
    if not fits or not _PRINTABLE.fullmatch(url):
        raise NoRelay(
            "relay is no URL of an API, without password and query; write for example https://api.example.org"
        )
    return url


def _webhook(settings: Settings) -> Webhook:
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    try:
        return Webhook(
            settings.webhook_url or "", secret, settings.webhook_hosts, private=settings.webhook_private
        )
    except WebhookRefused as error:
        raise NoRelay(
            f"webhook: {error}. Mend webhook_url, webhook_secret, webhook_hosts or webhook_private"
        ) from error


def _host(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
