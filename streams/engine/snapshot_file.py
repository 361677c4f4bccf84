"""One snapshot in one file: a header, keys and rows in compressed parts, a checksum over all of it."""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import cramjam
import lz4.block
import numpy as np
from xxhash import xxh3_64, xxh3_64_hexdigest

from schemas.layouts import Layouts
from streams.engine.failpoint import reach
from streams.engine.store import Frozen, SlabStore

SUFFIX: Final = ".snapshot"
UNFINISHED: Final = ".part"
_MAGIC: Final = b"opportune snapshot\n"
_FORMAT: Final = 1
_LENGTH: Final = struct.Struct("<I")
_PART: Final = struct.Struct("<III")  # keys, bytes of the compressed keys, bytes of the compressed rows
_LARGEST: Final = 1 << 28  # of a part; what claims more is damaged


class Unfit(ValueError):
    """A snapshot is not to be used; the next older one, or the changelog, gives the same rows."""


@dataclass(frozen=True)
class Header:
    """What a snapshot says of itself.

    `number` is the cut's, `changelog_offset` as in `Snapshot`, `topic_id` the changelog's (a topic that was
    made anew has another), `layout` a fingerprint of the rows' layout, `taken_at` UTC ms.
    """

    app: str
    partition: int
    number: int
    changelog_offset: int
    topic_id: str
    version: int
    layout: str
    keys: int
    taken_at: int
    format: int = _FORMAT


def fingerprint(dtype: np.dtype) -> str:
    """Tells layouts apart: fields, their types and places."""
    return xxh3_64_hexdigest(f"{dtype.descr} {dtype.itemsize}".encode())


def write(path: Path, header: Header, frozen: Frozen) -> int:
    """Write a snapshot; under its name it is whole. Returns its size in bytes. Raises OSError."""
    unfinished = path.with_suffix(UNFINISHED)
    half = len(frozen) // 2
    with open(unfinished, "wb", opener=_private) as file:
        out = _Summed(file)
        described = json.dumps(asdict(header)).encode()
        out.write(_MAGIC + _LENGTH.pack(len(described)) + described)
        written = 0
        for keys, rows in frozen.parts():
            _write_part(out, keys, rows)
            if written <= half < written + len(keys):
                reach("snapshot", "mid_write")
            written += len(keys)
        out.write(_PART.pack(0, 0, 0))
        file.write(out.sum.digest())
        file.flush()
        os.fsync(file.fileno())
        size = int(file.tell())
    reach("snapshot", "before_rename")
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or a power cut may take the name back
    finally:
        os.close(folder)
    return size


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_part(out: "_Summed", keys: list[bytes], rows: np.ndarray) -> None:
    lengths = np.fromiter(map(len, keys), "<u4", len(keys)).tobytes()
    names = lz4.block.compress(lengths + b"".join(keys))
    values = lz4.block.compress(rows.view(np.uint8).data)
    out.write(_PART.pack(len(keys), len(names), len(values)) + names + values)


def head(path: Path) -> Header:
    """Read only what a snapshot says of itself. Raises Unfit."""
    with _opened(path) as file:
        return _header(_Summed(file))


def read(path: Path, layouts: Layouts, store: SlabStore) -> Header:
    """Read a whole snapshot into an empty store, rows of older versions brought to this program's.

    Raises
    ------
    Unfit
        It is damaged, unreadable, or of a layout that this program does not know. What is in the store then
        is of no use.
    """
    with _opened(path) as file:
        data = _Summed(file)
        header = _header(data)
        dtype = _layout(header, layouts)
        for keys, body in _parts(data):
            store.append(keys, partial(_fill, body, header.version, dtype, layouts))
        if file.read(9) != data.sum.digest() or len(store) != header.keys:
            raise Unfit("is damaged: its checksum is wrong")
        return header


def _layout(header: Header, layouts: Layouts) -> np.dtype:
    if not 1 <= header.version <= layouts.newest:
        raise Unfit(f"holds rows of version {header.version}, this program knows {layouts.newest}")
    dtype = layouts.of(header.version)
    if fingerprint(dtype) != header.layout:
        raise Unfit("holds rows of another layout")
    return dtype


def _parts(data: "_Summed") -> Iterator[tuple[list[bytes], bytes]]:
    while True:
        count, of_names, of_rows = _PART.unpack(data.read(_PART.size))
        if not count:
            return
        names, body = _decompressed(data.read(of_names)), data.read(of_rows)
        if len(names) < 4 * count:
            raise Unfit("is damaged: keys are missing")
        ends = np.frombuffer(names, "<u4", count).cumsum(dtype=np.int64) + 4 * count
        if ends[-1] != len(names):
            raise Unfit("is damaged: keys are missing")
        starts = [4 * count, *ends[:-1].tolist()]
        yield [names[a:b] for a, b in zip(starts, ends.tolist(), strict=True)], body


def _fill(body: bytes, version: int, dtype: np.dtype, layouts: Layouts, rows: np.ndarray) -> None:
    """Decompress rows to where they stand; those of an older version are brought up to date on the way."""
    stored = rows if version == layouts.newest else np.empty(len(rows), dtype)
    if len(body) < _LENGTH.size or _LENGTH.unpack_from(body)[0] != stored.nbytes:
        raise Unfit("is damaged: rows and keys do not match")
    try:
        cramjam.lz4.decompress_block_into(body, stored.view(np.uint8).data)
    except cramjam.DecompressionError as error:
        raise Unfit(f"is damaged: {error}") from error
    if stored is not rows:
        rows[:] = layouts.bring(version, stored)


def _decompressed(data: bytes) -> bytes:
    if len(data) < 4 or _LENGTH.unpack_from(data)[0] > _LARGEST:
        raise Unfit("is damaged: a part has no sensible length")
    try:
        return bytes(lz4.block.decompress(data))
    except lz4.block.LZ4BlockError as error:
        raise Unfit(f"is damaged: {error}") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise Unfit(f"cannot be read: {error.strerror}") from error


def _header(data: "_Summed") -> Header:
    if data.read(len(_MAGIC)) != _MAGIC:
        raise Unfit("is no snapshot")
    try:
        fields: dict[str, Any] = json.loads(data.read(*_LENGTH.unpack(data.read(_LENGTH.size))))
        if fields.get("format") != _FORMAT:
            raise Unfit(f"has format {fields.get('format')}, this program knows {_FORMAT}")
        return Header(**fields)
    except (ValueError, TypeError, AttributeError) as error:
        raise error if isinstance(error, Unfit) else Unfit(f"is damaged: {error}") from error


class _Summed:
    """A file whose bytes are summed as they pass."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = os.fstat(file.fileno()).st_size
        self.sum = xxh3_64()

    def write(self, data: bytes) -> None:
        self.sum.update(data)
        self._file.write(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises Unfit."""
        if size > self._left:
            raise Unfit("is damaged: it ends too soon")
        self._left -= size
        try:
            data = self._file.read(size)
        except OSError as error:
            raise Unfit(f"cannot be read: {error.strerror}") from error
        self.sum.update(data)
        return data
