"""A ClickHouse server on this machine: the engine of `chdb` behind the native protocol and HTTP.

    python -m infra.embedded.chdb_server DATA_DIR --port N --http-port M

One user, `default`, without a password, on the loopback address. An insert that was acknowledged is there
after a `kill -9`. `SIGTERM` and `SIGINT` end it at once: whatever was not acknowledged may be there or not.

Not served: sessions of the HTTP interface, its forms and zstd, external tables, progress packets, a native
INSERT of JSON, Dynamic, Variant or AggregateFunction, a SELECT of one of these beside a DateTime with a time
zone, clients older than 19.16 that send settings. A result over HTTP in another format than Native is held in
memory whole.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from infra.embedded.chdb_engine import Engine, ServerError
from infra.embedded.chdb_http import HttpServer
from infra.embedded.native_protocol import NativeServer
from infra.embedded.server import HOST


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(description="A ClickHouse server on this machine.")
    parser.add_argument("data", type=Path, help="its data folder; no other process may have it open")
    parser.add_argument("--port", type=int, required=True, help="of the native protocol")
    parser.add_argument("--http-port", type=int, required=True, help="of the HTTP interface")
    arguments = parser.parse_args()

    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the engine starts its threads
    try:
        engine = Engine(arguments.data.resolve())
    except ServerError as error:
        sys.exit(
            f"{error} (code {error.code}) at {arguments.data}. Another process may have it open: end that."
        )
    servers = [
        NativeServer(HOST, arguments.port, engine),
        HttpServer(HOST, arguments.http_port, engine),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"ready: ClickHouse {engine.version}", flush=True)
    signal.sigwait(signals)
    os._exit(0)  # the engine's own shutdown crashed 2 times of 15; it loses nothing to this


if __name__ == "__main__":
    main()
