"""The mail sandbox: an SMTP server that keeps what it is sent and delivers none of it.

The child is `infra.embedded.smtp_sandbox`.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from infra.embedded.process import Child, listens
from infra.embedded.server import HOST, Endpoint, Server


class SandboxServer(Server[Endpoint]):
    """One mail sandbox with its state, and the mail that it was sent, in `state/sandbox/`."""

    name = "mail sandbox"
    folder_name = "sandbox"
    data_name = "."
    log_name = "sandbox.log"
    port_names = ("smtp",)

    def _command(self) -> tuple[Sequence[str], str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = self._take_ports()
        program = [sys.executable, "-m", "infra.embedded.smtp_sandbox", str(self.folder)]
        return [*program, "--port", str(ports["smtp"])], str(self.folder)

    def _at(self, ports: Mapping[str, int]) -> Endpoint:
        return Endpoint(HOST, int(ports["smtp"]))

    def _probe(self, child: Child, endpoint: Endpoint) -> Callable[[float], bool]:
        return lambda seconds: listens(child, endpoint.port) and greets(endpoint, seconds=seconds)


def greets(endpoint: Endpoint, *, seconds: float) -> bool:
    """Tell whether an SMTP server greets who connects."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=seconds) as client:
            greeting = client.recv(512)
            client.sendall(b"QUIT\r\n")
            client.recv(512)  # its farewell: hanging up first would be an error in its log
    except OSError:
        return False
    return greeting.startswith(b"220")
