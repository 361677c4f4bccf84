"""ClickHouse's HTTP interface in front of the engine: queries, inserts, settings, parameters.

What clickhouse-connect and dashboards need of it. Every request has a handle of its own, so there are no
sessions: temporary tables and `SET` end with their request.
"""

from __future__ import annotations

import base64
import http.server
import re
import secrets
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from email.message import Message
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import lz4.frame

from infra.embedded.chdb_engine import NOT_IMPLEMENTED, Engine, Handle, ServerError, explained
from infra.embedded.chdb_statement import Insert, insert_before_rows, insert_of, single, without_format, words
from infra.embedded.native_protocol import gave_up

NOT_SETTINGS = re.compile(
    r"query|database|default_format|user|password|role|quota_key|query_id|session_\w+|(de)?compress"
    r"|client_protocol_version|wait_end_of_query|buffer_size|enable_http_compression|param_\w+"
    r"|send_progress_in_http_headers|http_headers_progress_interval_ms"
    r"|cancel_http_readonly_queries_on_client_close"
)
READING = frozenset({"select", "with", "show", "describe", "desc", "exists", "explain"})
READONLY = 164
# A page on the web can have a name of its own point here, and its reader's browser ask us.
OUR_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
STATUS = {516: 403, 497: 403, 60: 404, 81: 404}
DEFAULT_FORMAT = "TabSeparated"
CANNOT_DECOMPRESS = 271
ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
CHUNK = 1 << 20
STATEMENT_MAX = 1 << 18  # an INSERT and its columns, where rows follow


class HttpServer(http.server.ThreadingHTTPServer):
    """Listens for HTTP clients, a thread for each."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, engine: Engine) -> None:
        """Take the port; `serve_forever` serves it.

        Raises
        ------
        OSError
            The port is taken.
        """
        self.engine = engine
        super().__init__((host, port), HttpConnection)

    def server_bind(self) -> None:
        """Take the port without asking the name service what this machine is called."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", self.socket.getsockname()[1]


class HttpConnection(http.server.BaseHTTPRequestHandler):
    """One client's requests."""

    server: HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        """Answer `/ping`, or a statement that reads; any other is refused (code 164)."""
        if urlsplit(self.path).path == "/ping":
            self._respond(200, b"Ok.\n")
        else:
            self._serve(reading=True)

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        """Answer a query, or take an insert."""
        self._serve(reading=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: queries name recipients."""

    def _serve(self, *, reading: bool) -> None:
        self._answering = False
        if not from_here(self.headers):
            self.close_connection = True
            self._respond(403, b"Refused: a web page asks. Ask from this machine, at 127.0.0.1.\n")
            return
        arguments = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self._body()
        try:
            if self.headers.get_content_maintype() == "multipart":
                raise ServerError(NOT_IMPLEMENTED, "DB::Exception: forms and external tables are not served")
            settings = {name: value for name, value in arguments.items() if not NOT_SETTINGS.fullmatch(name)}
            query = unpacked(body, self.headers.get("Content-Encoding", ""))
            if reading:
                settings["readonly"] = "2"  # last: the address must not lift it
                arguments["query"] = arguments.get("query", "") + b"".join(query).decode()
                query = iter(())
                if next(words(arguments["query"]), "") not in READING:
                    raise ServerError(READONLY, "DB::Exception: GET only reads: use POST. (READONLY)")
            with closing(self._login(arguments)) as handle:
                handle.apply(settings)
                self._run(handle, arguments, query)
            _read_out(body)
        except (EOFError, ConnectionError):
            self.close_connection = True
        except Exception as error:
            self._refuse(explained(error), body)

    def _login(self, arguments: Mapping[str, str]) -> Handle:
        user = self.headers.get("X-ClickHouse-User") or arguments.get("user", "")
        password = self.headers.get("X-ClickHouse-Key") or arguments.get("password", "")
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            user, _, password = base64.b64decode(credentials).decode().partition(":")
        return self.server.engine.login(user, password, arguments.get("database", ""))

    def _run(self, handle: Handle, arguments: Mapping[str, str], body: Iterator[bytes]) -> None:
        sql, insert, rows = statement(arguments.get("query", ""), body)
        if insert is not None:
            with self.server.engine.incoming() as file:
                for chunk in rows:
                    file.write(chunk)
                if file.tell():
                    handle.insert(insert, file, insert.form or "Values")
            self._respond(200, b"")
            return
        sql, form = without_format(single(sql))
        form = form or arguments.get("default_format", DEFAULT_FORMAT)
        parameters = {
            name.removeprefix("param_"): value
            for name, value in arguments.items()
            if name.startswith("param_")
        }
        with self.server.engine.watched(handle, gave_up(self.connection)):
            if form != "Native":
                self._respond(200, handle.run(sql, form, parameters), form)
                return
            with closing(handle.blocks(sql, parameters)) as blocks:
                # A block without rows only where nothing follows: over HTTP no client expects both.
                columns = next(blocks, b"")
                self._stream(chain([next(blocks, columns)], blocks))

    def _respond(self, status: int, data: bytes, form: str = DEFAULT_FORMAT, code: int = 0) -> None:
        self._head(status, form, code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, blocks: Iterable[bytes]) -> None:
        self._head(200, "Native", 0)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for block in blocks:
            if block:
                self._chunk(block)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _head(self, status: int, form: str, code: int) -> None:
        self._answering = True
        self._tag = secrets.token_hex(8)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("X-ClickHouse-Exception-Tag", self._tag)
        self.send_header("X-ClickHouse-Format", form)
        self.send_header("X-ClickHouse-Query-Id", str(uuid4()))
        self.send_header("X-ClickHouse-Server-Display-Name", "embedded")
        self.send_header("X-ClickHouse-Summary", "{}")
        self.send_header("X-ClickHouse-Timezone", "UTC")
        if code:
            self.send_header("X-ClickHouse-Exception-Code", str(code))

    def _refuse(self, error: ServerError, body: Iterator[bytes]) -> None:
        said = f"Code: {error.code}. {error}\n".encode()
        if self._answering:  # too late for a status; and without its end an answer is not taken for whole
            self.close_connection = True
            tag = self._tag.encode()
            self._chunk(
                b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (tag, said, len(said), tag)
            )
        else:
            _read_out(body)
            self._respond(STATUS.get(error.code, 400), said, code=error.code)

    def _body(self) -> Iterator[bytes]:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            left = int(self.headers.get("Content-Length", 0))
            while left:
                left -= len(chunk := self._exactly(min(left, CHUNK)))
                yield chunk
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self._exactly(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise EOFError
        return data


def from_here(headers: Message) -> bool:
    """Tell whether a request came from a client of this machine, and not from a web page in its browser."""
    return (
        OUR_NAMES.fullmatch(headers.get("Host", "")) is not None
        and "Origin" not in headers
        and headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
    )


def unpacked(body: Iterator[bytes], coding: str) -> Iterator[bytes]:
    """Yield a request's body without its compression; it may be several frames, one after another.

    Raises
    ------
    ServerError
        It is none of lz4, gzip and deflate, or ends within a frame.
    """
    if not coding or coding == "identity":
        yield from body
        return
    if coding not in ("lz4", "gzip", "deflate"):
        raise ServerError(NOT_IMPLEMENTED, f"DB::Exception: {coding} is not served: use lz4 or gzip")

    def frame() -> Any:
        return lz4.frame.LZ4FrameDecompressor() if coding == "lz4" else zlib.decompressobj(ZLIB_OR_GZIP)

    current = frame()
    for chunk in body:
        rest: bytes | None = chunk
        while rest:
            if current.eof:
                current = frame()
            yield current.decompress(rest)
            rest = current.unused_data if current.eof else None
    if not current.eof:
        raise ServerError(CANNOT_DECOMPRESS, f"DB::Exception: the {coding} body is cut short: send it again")


def _read_out(body: Iterator[bytes]) -> None:
    """Read what is left of a body: it would be taken for the next request."""
    with suppress(EOFError, ConnectionError, ValueError):
        for _ in body:
            pass


def statement(query: str, body: Iterator[bytes]) -> tuple[str, Insert | None, Iterator[bytes]]:
    """Return a request's statement, the INSERT that it is if it is one, and the rows of that.

    `query` is what the address says; without it, and after it, comes the body.
    """
    if query and (insert := insert_of(single(query))):
        return query, insert, body
    head = b""
    if not query:
        while len(head) < STATEMENT_MAX and (chunk := next(body, None)) is not None:
            head += chunk
        if found := insert_before_rows(head):
            insert, rows = found
            return "", insert, chain([head[rows:]], body)
    return query + (head + b"".join(body)).decode(), None, iter(())
