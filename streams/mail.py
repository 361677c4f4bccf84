"""Where mail goes, the sandbox of this machine or the relay that is set, and who signs it."""

import socket
from collections.abc import Callable

import structlog

from infra.embedded import SandboxServer
from schemas.lanes import Lane
from schemas.settings import Settings
from sinks.transports import Transport
from sinks.transports.dkim import Signer, load_key
from sinks.transports.smtp import SmtpTransport, Tls
from streams import events

_log = structlog.get_logger()
_TIMEOUT_S = 30.0
_ASK_S = 5.0


class NoSandbox(RuntimeError):
    """No relay is set, and no sandbox answers on this machine."""


class NoRelay(RuntimeError):
    """The relay that is set does not answer, or its address is none."""


def ask(settings: Settings) -> None:
    """Ask whether the set relay takes connections. Raises `NoRelay`."""
    host, port = _relay(settings)
    try:
        socket.create_connection((host, port), _ASK_S).close()
    except OSError as error:
        raise NoRelay(f"relay {settings.relay}: {error.strerror or error}") from error


def transports(settings: Settings) -> Callable[[Lane], Transport]:
    """What makes the transport of a lane.

    A relay is only used where one is set, and that is said loudly: its mail reaches people.

    Raises
    ------
    NoSandbox
        No relay is set, and no sandbox runs here.
    NoRelay
        The relay's address is not host:port.
    """
    if settings.relay is None:
        status = SandboxServer(settings.state_dir).status()
        if status.health != "ready" or status.endpoint is None:
            raise NoSandbox(
                f"no mail sandbox: the one of {settings.state_dir} is {status.health}. Run `opportune up`, "
                "or set a relay (OPPORTUNE_RELAY=host:port); its mail then reaches people."
            )
        return _smtp(settings, status.endpoint.host, status.endpoint.port, "none")
    host, port = _relay(settings)
    _log.warning(
        events.REAL_RELAY, relay=settings.relay, message="mail goes to this relay, and through it to people"
    )
    return _smtp(settings, host, port, settings.relay_tls)


def signer(settings: Settings) -> Signer | None:
    """What signs mail; None where no key is set, and the relay signs. Raises `KeyFileRefused`."""
    if settings.dkim_key is None:
        return None
    return Signer(load_key(settings.dkim_key), settings.signing_domain, settings.dkim_selector)


def _relay(settings: Settings) -> tuple[str, int]:
    host, _, port = (settings.relay or "").rpartition(":")
    if not host or not port.isdigit():
        raise NoRelay(f"relay {settings.relay!r} is not host:port; write for example mx.example.org:587")
    return host, int(port)


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
