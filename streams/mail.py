"""Where mail goes, to the sandbox, an SMTP relay, an API by HTTP or a webhook, and who signs it."""

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from infra.embedded import SandboxServer
from schemas.lanes import Lane
from schemas.mail_settings import MailSettings
from schemas.routes import DEFAULT_IDENTITY, LaneName
from schemas.settings import Settings
from sinks.key_files import KeyFileRefused
from sinks.transports import Transport
from sinks.transports.dkim import Signer, load_key
from sinks.transports.relays import Health, Relays
from sinks.transports.ses import SesTransport, bearer, signature
from sinks.transports.smtp import SmtpTransport, Tls
from sinks.transports.webhook import Webhook, WebhookRefused, WebhookTransport
from streams import events

_log = structlog.get_logger()
_TIMEOUT_S = 30.0
_ASK_S = 5.0
_HTTPS: Final = "https://"
_AMAZON: Final = re.compile(r"https://email(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)/?")
_HOST: Final = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]")
_PRINTABLE: Final = re.compile(r"[!-~]+")


class NoSandbox(RuntimeError):
    """No relay is set, and no sandbox answers on this machine."""


class NoRelay(RuntimeError):
    """The relay that is set does not answer, or what is set of it cannot be: mend the settings it names."""


def addresses(settings: Settings) -> list[str]:
    """Where mail goes, to be shown: of a webhook the host alone, since many have a secret in their path."""
    return [*dict.fromkeys(shown for each in settings.identities.values() for shown in _shown(each))]


def ask(settings: Settings, address: str) -> None:
    """Ask whether one of the addresses takes connections. Raises `NoRelay`."""
    mail = next(each for each in settings.identities.values() if address in _shown(each))
    if mail.webhook_url is not None:
        host, port = _host(_webhook(mail).url)
    else:
        host, port = _host(_api(address)) if _is_api(address) else _relay(address)
    try:
        socket.create_connection((host, port), _ASK_S).close()
    except OSError as error:
        raise NoRelay(f"{address}: {error.strerror or error}") from error


def transports(settings: Settings) -> Callable[[str, Lane], Transport]:
    """What makes the transport of a lane, from its name and what it may do.

    A relay, API or webhook is only used where one is set, and that is said loudly: its mail reaches people.

    Raises
    ------
    NoSandbox
        None is set for an identity, and no sandbox runs here.
    NoRelay
        What is set cannot be used.
    """
    ways = {}
    for name, each in settings.identities.items():
        with _about(name):
            ways[name] = _way_out(each, settings.state_dir)
    for shown in addresses(settings):
        _log.warning(
            events.REAL_RELAY,
            relay=shown,
            message="mail goes to this relay, and through it to people",
        )

    def make(name: str, lane: Lane) -> Transport:
        # Of an identity that is not set any more no message is ever rendered.
        return ways.get(LaneName.of(name).identity, ways[DEFAULT_IDENTITY])(lane)

    return make


def signers(settings: Settings) -> dict[str, Signer | None]:
    """What signs each identity's mail; None where the relay does. Raises `KeyFileRefused`."""
    found = {}
    for name, each in settings.identities.items():
        with _about(name):
            found[name] = _signer(each)
    return found


@contextmanager
def _about(identity: str) -> Iterator[None]:
    """Say in an error whose settings are wrong."""
    try:
        yield
    except (NoRelay, NoSandbox, KeyFileRefused) as error:
        if identity == DEFAULT_IDENTITY:
            raise
        raise type(error)(f"identity {identity}: {error}") from error


def _signer(settings: MailSettings) -> Signer | None:
    if settings.dkim_key is None:
        return None
    try:
        key = load_key(settings.dkim_key)
    except KeyFileRefused as error:
        raise KeyFileRefused(f"dkim_key: {error}") from error
    return Signer(key, settings.signing_domain, settings.dkim_selector)


def _shown(settings: MailSettings) -> list[str]:
    if settings.webhook_url is not None:
        host = re.match(r"\w+://([\w.-]+)", settings.webhook_url)
        return [f"webhook at {host[1] if host else 'no host'}"]
    return [*settings.relay]


def _way_out(settings: MailSettings, state_dir: Path) -> Callable[[Lane], Transport]:
    if not settings.mail_leaves:
        return _to_sandbox(settings, state_dir)
    if settings.webhook_url is not None:
        return _to_webhook(settings)
    made = [
        _to_api(settings, _api(each)) if _is_api(each) else _smtp(settings, *_relay(each), settings.relay_tls)
        for each in settings.relay
    ]
    return made[0] if len(made) == 1 else _shared(settings.relay, made)


def _shared(
    relays: Sequence[str], made: Sequence[Callable[[Lane], Transport]]
) -> Callable[[Lane], Transport]:
    """Several relays, whose health all lanes know."""
    health = [Health(partial(_tell_rest, relay)) for relay in relays]

    def make(lane: Lane) -> Transport:
        return Relays([(each(lane), of) for each, of in zip(made, health, strict=True)])

    return make


def _tell_rest(relay: str, seconds: float, error: str) -> None:
    _log.warning(events.RELAY_RESTS, relay=relay, seconds=seconds, error=error)


def _to_sandbox(settings: MailSettings, state_dir: Path) -> Callable[[Lane], Transport]:
    status = SandboxServer(state_dir).status()
    if status.health != "ready" or status.endpoint is None:
        raise NoSandbox(
            f"no mail sandbox: the one of {state_dir} is {status.health}. Run `opportune up`, "
            "or set a relay (OPPORTUNE_RELAY=host:port); its mail then reaches people."
        )
    return _smtp(settings, status.endpoint.host, status.endpoint.port, "none")


def _smtp(settings: MailSettings, host: str, port: int, tls: Tls) -> Callable[[Lane], Transport]:
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


def _to_api(settings: MailSettings, url: str) -> Callable[[Lane], Transport]:
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


def _to_webhook(settings: MailSettings) -> Callable[[Lane], Transport]:
    webhook = _webhook(settings)

    def make(lane: Lane) -> Transport:
        return WebhookTransport(
            webhook,
            repeats=settings.http_idempotent,
            connections=lane.connections,
            timeout_s=_TIMEOUT_S,
        )

    return make


def _relay(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not _HOST.fullmatch(host) or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise NoRelay(
            f"relay {address!r} is neither host:port nor https://…; write for example mx.example.org:587"
        )
    return host, int(port)


def _is_api(address: str) -> bool:
    return address.startswith(_HTTPS)


def _api(url: str) -> str:
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


def _webhook(settings: MailSettings) -> Webhook:
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
