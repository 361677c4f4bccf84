"""ClickHouse's native TCP protocol in front of the engine.

Blocks are never encoded anew: at protocol revision 54440 a block on the wire is BlockInfo and then exactly
the bytes of FORMAT Native. From 54429 on settings are strings; below, a driver silently drops those that it
does not know, and with them the tokens that keep a repeated insert from counting twice. 54454 adds a byte to
every column.
"""

from __future__ import annotations

import socket
import socketserver
import struct
from collections.abc import Callable
from contextlib import closing, suppress

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128

from infra.embedded.chdb_engine import CANCELLED, NOT_IMPLEMENTED, Engine, Handle, ServerError, explained
from infra.embedded.chdb_statement import Insert, insert_of, single, without_format
from infra.embedded.native_format import Block, Reader, TypeNotServed, empty_block, text, varint

REVISION = 54440
TIMEZONE_SINCE, NAME_SINCE, PATCH_SINCE, SETTINGS_AS_TEXT_SINCE = 54058, 54372, 54401, 54429
QUOTA_KEY_SINCE = 54060
# Packets of a client, and of a server.
HELLO, QUERY, DATA, CANCEL, PING = range(5)
TO_CLIENT_HELLO, TO_CLIENT_DATA, EXCEPTION, PROGRESS, PONG, END_OF_STREAM = range(6)
BLOCK_INFO = b"\1\0\2\xff\xff\xff\xff\0"  # not an overflow row; no bucket
LZ4, UNCOMPRESSED = 0x82, 0x02
UNEXPECTED_PACKET, UNKNOWN_PACKET, UNKNOWN_METHOD = 101, 99, 89
CHUNK = 1 << 20


class OutOfStep(ServerError):  # noqa: N818 - says what happened
    """What the client sends cannot be followed any more: it is told why, and hung up on."""


def compressed(data: bytes) -> bytes:
    """Return `data` as one lz4 frame of ClickHouse's: checksum, method, sizes, bytes."""
    packed = bytes(lz4.block.compress(data, store_size=False))
    frame = struct.pack("<BII", LZ4, len(packed) + 9, len(data)) + packed
    checksum = CityHash128(frame)
    return struct.pack("<QQ", checksum >> 64, checksum & (1 << 64) - 1) + frame


def decompressed(reader: Reader) -> bytes:
    """Return what the next frame holds.

    Raises
    ------
    OutOfStep
        Another method than lz4 (code 89).
    """
    reader.skip(16)  # the checksum: this is the same machine
    method, size, plain = struct.unpack("<BII", reader.take(9))
    data = reader.take(size - 9)
    if method == LZ4:
        return bytes(lz4.block.decompress(data, uncompressed_size=plain))
    if method == UNCOMPRESSED:
        return data
    raise OutOfStep(UNKNOWN_METHOD, f"DB::Exception: compression method {method:#x} is not served: use lz4")


def gave_up(connection: socket.socket) -> Callable[[], bool]:
    """Return a function that tells whether a client that waits for us cancelled, or is gone."""

    def asked() -> bool:
        try:
            first = connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return first in (b"", bytes([CANCEL]))

    return asked


class NativeServer(socketserver.ThreadingTCPServer):
    """Listens for native clients, a thread for each."""

    allow_reuse_address = True
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
        super().__init__((host, port), NativeConnection)


class NativeConnection(socketserver.BaseRequestHandler):
    """One client, from its hello to its end."""

    server: NativeServer
    request: socket.socket

    def handle(self) -> None:
        """Answer packets until the client goes, or is out of step."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # SELECT 1 takes 44 ms without
        self._raw = Reader(lambda: self.request.recv(CHUNK))
        self._unpacked = Reader(lambda: decompressed(self._raw))
        self._compressed = False
        with suppress(EOFError, ConnectionError):
            try:
                handle = self._hello()
                if handle is not None:
                    with closing(handle):
                        while True:
                            self._packet(handle)
            except ServerError as error:  # refused, or out of step: say why and hang up
                self._fail(error)

    def _hello(self) -> Handle | None:
        raw = self._raw
        if raw.varint() != HELLO:
            return None  # no ClickHouse client
        raw.text(), raw.varint(), raw.varint()
        self._revision = min(raw.varint(), REVISION)
        database, user, password = raw.text(), raw.text(), raw.text()
        handle = self.server.engine.login(user, password, database)
        major, minor, patch = map(int, self.server.engine.version.split(".")[:3])
        self._send(
            varint(TO_CLIENT_HELLO) + text("ClickHouse") + varint(major) + varint(minor) + varint(REVISION),
            text("UTC") if self._revision >= TIMEZONE_SINCE else b"",
            text("embedded") if self._revision >= NAME_SINCE else b"",
            varint(patch) if self._revision >= PATCH_SINCE else b"",
        )
        return handle

    def _packet(self, handle: Handle) -> None:
        self._raw.drop()
        kind = self._raw.varint()
        if kind == PING:
            self._send(varint(PONG))
        elif kind == QUERY:
            self._query(handle)
        elif kind != CANCEL:  # that one came after its query had ended
            raise OutOfStep(
                UNKNOWN_PACKET, f"DB::Exception: Unknown packet {kind}. (UNKNOWN_PACKET_FROM_CLIENT)"
            )

    def _query(self, handle: Handle) -> None:
        """Read a query and answer it; an error ends the query, not the connection."""
        sql, settings = self._read_query()
        try:
            self._refuse_external_tables()
            sql = single(sql)
            handle.apply(settings)
            insert = insert_of(sql)
            if insert is None:
                self._answer(handle, without_format(sql)[0])
            else:
                self._insert(handle, insert)
        except OutOfStep:
            raise
        except (ServerError, ValueError) as error:
            self._fail(explained(error))
        else:
            self._send(varint(END_OF_STREAM))

    def _read_query(self) -> tuple[str, dict[str, str]]:
        raw, settings = self._raw, {}
        raw.text()  # the query's id
        if raw.take(1) != b"\0":  # who asks
            raw.text(), raw.text(), raw.text(), raw.take(1), raw.text(), raw.text(), raw.text()
            raw.varint(), raw.varint(), raw.varint()
            if self._revision >= QUOTA_KEY_SINCE:
                raw.text()
            if self._revision >= PATCH_SINCE:
                raw.varint()
        while name := raw.text():
            if self._revision < SETTINGS_AS_TEXT_SINCE:  # binary, by the type of each: the reader is lost
                raise OutOfStep(NOT_IMPLEMENTED, "DB::Exception: settings of so old a client are not served")
            raw.skip(1)  # whether it is important
            settings[name] = raw.text()
        raw.varint()  # the stage: always complete
        self._compressed = bool(raw.varint())
        return raw.text(), settings

    def _refuse_external_tables(self) -> None:
        """Read up to the empty block that ends them, so that client and server stay in step."""
        refused = False
        while True:
            name, block = self._read_block()
            if not (name or block.rows):
                break
            refused = True
        if refused:
            raise ServerError(NOT_IMPLEMENTED, "DB::Exception: external tables are not served")

    def _answer(self, handle: Handle, sql: str) -> None:
        with self.server.engine.watched(handle, gave_up(self.request)) as watched:
            try:
                with closing(handle.blocks(sql)) as blocks:
                    for block in blocks:
                        if watched.ended:
                            return
                        self._send_block(block)
            except ServerError as error:
                if not (error.code == CANCELLED and watched.ended):
                    raise

    def _insert(self, handle: Handle, insert: Insert) -> None:
        self._send_block(empty_block(handle.awaited(insert)))
        with self.server.engine.incoming() as rows:
            while (block := self._read_block()[1]).rows:
                rows.write(block.data)
            if rows.tell():
                handle.insert(insert, rows, "Native")

    def _read_block(self) -> tuple[str, Block]:
        """Return the table that the next block is for, and the block."""
        self._raw.drop()
        if self._raw.varint() != DATA:
            raise OutOfStep(
                UNEXPECTED_PACKET, "DB::Exception: expected a block. (UNEXPECTED_PACKET_FROM_CLIENT)"
            )
        name = self._raw.text()
        reader = self._unpacked if self._compressed else self._raw
        while field := reader.varint():  # BlockInfo
            reader.skip(1 if field == 1 else 4)
        try:
            block = reader.block()
        except TypeNotServed as error:
            raise OutOfStep(NOT_IMPLEMENTED, f"DB::Exception: {error}") from error
        self._unpacked.drop()
        return name, block

    def _send_block(self, block: bytes) -> None:
        block = BLOCK_INFO + block
        self._send(varint(TO_CLIENT_DATA), text(""), compressed(block) if self._compressed else block)

    def _fail(self, error: ServerError) -> None:
        self._send(
            varint(EXCEPTION) + struct.pack("<i", error.code) + text("DB::Exception"),
            text(str(error)) + text("") + b"\0",
        )

    def _send(self, *parts: bytes) -> None:
        self.request.sendall(b"".join(parts))
