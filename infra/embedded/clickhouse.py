"""A real ClickHouse engine behind ClickHouse's own protocols, for a machine without a ClickHouse server.

The child is `infra.embedded.chdb_server`, which tells what it serves. On two cores it answers after about a
second.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.process import Child, EmbeddedError, Progress, listens, silent
from infra.embedded.server import HOST, Endpoint, Server


@dataclass(frozen=True)
class ClickHouseEndpoint(Endpoint):
    """Where clients connect: `port` speaks the native protocol, `http_port` HTTP."""

    http_port: int


class ClickHouseServer(Server[ClickHouseEndpoint]):
    """One ClickHouse with its state in `state/clickhouse/`: user `default`, no password, on the loopback."""

    name = "ClickHouse server"
    folder_name = "clickhouse"
    log_name = "clickhouse.log"
    port_names = ("native", "http")

    def __init__(self, state: Path, *, on_progress: Progress = silent, start_seconds: float = 60.0) -> None:
        """Look at the folder only; nothing is started or written.

        Raises
        ------
        EmbeddedError
            The engine would take the path for a pattern, or its end for options.
        """
        super().__init__(state, on_progress=on_progress, start_seconds=start_seconds)
        if found := set("?*{}") & set(str(self.folder)):
            raise EmbeddedError(f"choose a folder without {' '.join(sorted(found))}: {self.folder}")

    def _command(self) -> tuple[Sequence[str], str]:
        self.data.mkdir(parents=True, exist_ok=True)
        ports = self._take_ports()
        program = [sys.executable, "-m", "infra.embedded.chdb_server", str(self.data)]
        return [*program, "--port", str(ports["native"]), "--http-port", str(ports["http"])], str(self.data)

    def _at(self, ports: Mapping[str, int]) -> ClickHouseEndpoint:
        return ClickHouseEndpoint(HOST, int(ports["native"]), int(ports["http"]))

    def _probe(self, child: Child, endpoint: ClickHouseEndpoint) -> Callable[[float], bool]:
        # Both ports are open before either answers, so one answer speaks for both.
        return lambda seconds: listens(child, endpoint.port) and pings(endpoint, seconds=seconds)


def pings(endpoint: ClickHouseEndpoint, *, seconds: float) -> bool:
    """Tell whether a ClickHouse answers `GET /ping`."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.http_port, timeout=seconds)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().read() == b"Ok.\n"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
