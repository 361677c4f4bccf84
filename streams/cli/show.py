"""How the commands print: times, bytes, JSON."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

_HEX_WIDTH: Final = 16


def moment(at: datetime | int | None) -> str:
    """Print a time as `2017-02-03 17:12 UTC`; an int is UTC milliseconds, None gives a dash."""
    if at is None:
        return "–"
    when = datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int) else at.astimezone(UTC)
    return when.strftime("%Y-%m-%d %H:%M UTC")


def printable(data: bytes | str | None) -> str:
    r"""Text of bytes that anyone may have written: what is no printable character shows as `\x1b`."""
    if data is None:
        return "–"
    text = data.decode(errors="backslashreplace") if isinstance(data, bytes) else data
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """As `printable`, line by line."""
    return "\n".join(map(printable, text.split("\n")))


def iso(at: int) -> str:
    """ISO 8601 form of UTC milliseconds, for machines."""
    return str(_plain(datetime.fromtimestamp(at / 1000, UTC)))


def hex_dump(data: bytes, most: int) -> str:
    """Print the first `most` bytes as offset, hex and characters, sixteen a line, and how many more follow."""
    lines = []
    for start in range(0, min(len(data), most), _HEX_WIDTH):
        chunk = data[start : min(start + _HEX_WIDTH, most)]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in chunk)
        lines.append(f"{start:06x}  {chunk.hex(' '):<{3 * _HEX_WIDTH}} {shown}")
    if len(data) > most:
        lines.append(f"… and {len(data) - most} more bytes")
    return "\n".join(lines)


def counts(found: Mapping[str, int]) -> str:
    """Print counts by name as `12 (no_consent 9, cooldown 3)`, the largest first."""
    total = sum(found.values())
    if not total:
        return "0"
    parts = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return f"{total:,} ({', '.join(f'{name} {number:,}' for name, number in parts)})"


def as_json(value: Any) -> str:
    """JSON for machines: times in ISO 8601, bytes in hex."""
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=1)


def _plain(value: Any) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def field(console: Console, name: str, value: str | Text) -> None:
    """Print one indented line, its name in a column of its own; longer text goes on below itself."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=12, style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(f"  {name}", Text(value) if isinstance(value, str) else value)
    console.print(grid)
