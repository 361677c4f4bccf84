"""ClickHouse's Native format: where a block ends, without decoding what is in it.

A block of an INSERT goes from the socket into a file as it is. TCP does not tell where it ends, so its values
are passed over by type. What is served is every type but those whose layout depends on their values (JSON,
Dynamic, Variant) or on code of the server (AggregateFunction).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

Column = tuple[str, str]  # name, type

_NAMES_BY_WIDTH = {
    1: "UInt8 Int8 Bool Enum8 Nothing",
    2: "UInt16 Int16 Date Enum16 BFloat16",
    4: "UInt32 Int32 Float32 Date32 DateTime Time IPv4",
    8: "UInt64 Int64 Float64 DateTime64 Time64",
    16: "UInt128 Int128 UUID IPv6",
    32: "UInt256 Int256",
}
WIDTHS = {name: width for width, names in _NAMES_BY_WIDTH.items() for name in names.split()}


class TypeNotServed(ValueError):  # noqa: N818 - says what happened
    """Values of this type cannot be passed over: use a view or a table that has it as String."""


@dataclass(frozen=True)
class Layout:
    """How the values of a type lie in a block: `width` is set for fixed ones, `inner` for nested ones."""

    kind: Literal["fixed", "string", "nullable", "array", "low", "tuple"]
    width: int = 0
    inner: tuple[Layout, ...] = ()


def varint(number: int) -> bytes:
    """Return `number` in 7-bit groups, the lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(value: str) -> bytes:
    """Return `value` as UTF-8 behind its length."""
    raw = value.encode()
    return varint(len(raw)) + raw


def empty_block(columns: Sequence[Column]) -> bytes:
    """Return a block of these columns without rows."""
    return varint(len(columns)) + b"\0" + b"".join(text(name) + text(kind) for name, kind in columns)


class Block(NamedTuple):
    """A block: its columns, how many rows they have, and its bytes."""

    columns: tuple[Column, ...]
    rows: int
    data: bytes


@cache
def layout_of(kind: str) -> Layout:
    """Return the layout of a type by its name.

    Raises
    ------
    TypeNotServed
        Its values cannot be passed over.
    """
    name, _, rest = kind.partition("(")
    parts = split_arguments(rest[:-1])
    if name in WIDTHS:
        return Layout("fixed", WIDTHS[name])
    if name == "FixedString":
        return Layout("fixed", int(parts[0]))
    if name == "Decimal":
        digits = int(parts[0])
        return Layout("fixed", next(width for most, width in _DECIMALS if digits <= most))
    if name == "String":
        return Layout("string")
    if name == "SimpleAggregateFunction":
        return layout_of(parts[1])
    if name == "LowCardinality":
        inner = layout_of(parts[0])
        return Layout("low", inner=(inner.inner[0] if inner.kind == "nullable" else inner,))
    if name in ("Nullable", "Array"):
        return Layout("nullable" if name == "Nullable" else "array", inner=(layout_of(parts[0]),))
    if name in ("Tuple", "Map", "Nested"):
        fields = Layout("tuple", inner=tuple(layout_of(_FIELD_NAME.sub("", part)) for part in parts))
        return fields if name == "Tuple" else Layout("array", inner=(fields,))
    raise TypeNotServed(f"values of type {kind} are not served here: use String")


_DECIMALS = ((9, 4), (18, 8), (38, 16), (76, 32))  # most digits, bytes
_FIELD_NAME = re.compile(r"^(?:`(?:\\.|[^`])+`|\w+) (?=\w)")
_PIECE = re.compile(r"'(?:\\.|''|[^'\\])*'|`(?:\\.|[^`\\])*`|\"(?:\\.|[^\"\\])*\"|.", re.DOTALL)


def split_arguments(arguments: str) -> list[str]:
    """Split at the commas that are in no parentheses and no quotes."""
    depth, parts = 0, [""]
    for piece in _PIECE.findall(arguments):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and not depth:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


class Reader:
    """Reads what a protocol sends; `more` returns the next bytes, and none at the end.

    Every method but `drop` raises `EOFError` where the bytes end too soon.
    """

    def __init__(self, more: Callable[[], bytes]) -> None:
        """Read nothing yet."""
        self._more = more
        self._buffer = bytearray()
        self._at = 0

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        while len(self._buffer) - self._at < size:
            chunk = self._more()
            if not chunk:
                raise EOFError
            self._buffer += chunk
        self._at += size

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        self.skip(size)
        return bytes(memoryview(self._buffer)[self._at - size : self._at])

    def drop(self) -> None:
        """Forget what has been read."""
        del self._buffer[: self._at]
        self._at = 0

    def varint(self) -> int:
        """Return the next number in 7-bit groups."""
        number = shift = 0
        while True:
            self.skip(1)
            byte = self._buffer[self._at - 1]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7

    def text(self) -> str:
        """Return the next text; what is not UTF-8 in it is replaced."""
        return self.take(self.varint()).decode("utf-8", "replace")

    def block(self) -> Block:
        """Return the next block.

        Raises
        ------
        TypeNotServed
            A column's values cannot be passed over: the reader is lost in the block.
        """
        start = self._at
        columns: list[Column] = []
        width, rows = self.varint(), self.varint()
        for _ in range(width):
            name, kind = self.text(), self.text()
            columns.append((name, kind))
            self._column(kind, rows)
        return Block(tuple(columns), rows, bytes(memoryview(self._buffer)[start : self._at]))

    def column(self, kind: str, rows: int) -> bytes:
        """Return the bytes of a column's values.

        Raises
        ------
        TypeNotServed
            They cannot be passed over.
        """
        start = self._at
        self._column(kind, rows)
        return bytes(memoryview(self._buffer)[start : self._at])

    def _column(self, kind: str, rows: int) -> None:
        if rows:
            layout = layout_of(kind)
            self._prefix(layout)
            self._values(layout, rows)

    def _prefix(self, layout: Layout) -> None:
        if layout.kind == "low":
            self.skip(8)  # the version of its keys
        else:
            for inner in layout.inner:
                self._prefix(inner)

    def _values(self, layout: Layout, rows: int) -> None:
        if layout.kind == "fixed":
            self.skip(layout.width * rows)
        elif layout.kind == "string":
            self._strings(rows)
        elif layout.kind == "tuple":
            for inner in layout.inner:
                self._values(inner, rows)
        elif layout.kind == "nullable":
            self.skip(rows)
            self._values(layout.inner[0], rows)
        elif rows and layout.kind == "array":
            self.skip(8 * (rows - 1))
            self._values(layout.inner[0], int.from_bytes(self.take(8), "little"))
        elif rows:
            flags, size = struct.unpack("<QQ", self.take(16))
            self._values(layout.inner[0], size)
            self.skip(8 + (1 << (flags & 255)) * rows)

    def _strings(self, rows: int) -> None:
        # The one loop over values of a block, so it keeps the position in a local: most are short.
        buffer, at = self._buffer, self._at
        for _ in range(rows):
            if at < len(buffer) and buffer[at] < 128:
                at += 1 + buffer[at]
            else:
                self._at = at
                self.skip(0)
                self.skip(self.varint())
                at = self._at
        self._at = at
        self.skip(0)


def retyped(data: bytes, columns: Sequence[Column]) -> bytes:
    """Return the bytes of a block with the types of `columns` in place of those that it names.

    Both must lie alike: `DateTime` and `DateTime('UTC')` do.

    Raises
    ------
    TypeNotServed
        Values of a type cannot be passed over.
    """
    reader = _reader_of(data)
    width, rows = reader.varint(), reader.varint()
    parts = [varint(width), varint(rows)]
    for _, kind in columns:
        parts += text(reader.text()), text(kind)
        parts.append(reader.column(reader.text(), rows))
    return b"".join(parts)


def blocks(data: bytes) -> Iterator[Block]:
    """Split the bytes of a result in Native format into its blocks."""
    reader = _reader_of(data)
    read = 0
    while read < len(data):
        block = reader.block()
        reader.drop()
        read += len(block.data)
        yield block


def _reader_of(data: bytes) -> Reader:
    rest = [data]
    return Reader(lambda: rest.pop() if rest else b"")
