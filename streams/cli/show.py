"""How the commands print: times, bytes, JSON."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

_HEX_WIDTH: Final = 16
_LOG_WIDTH: Final = 120


def console() -> Console:
    """Make the console that commands print to: lines of 120 where nobody looks at a terminal."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_LOG_WIDTH)


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
    """Print the first `most` bytes as offset, hex and characters, sixteen a line, and how many more come."""
    lines = []
    for start in range(0, min(len(data), most), _HEX_WIDTH):
        chunk = data[start : min(start + _HEX_WIDTH, most)]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in chunk)
        lines.append(f"{start:06x}  {chunk.hex(' '):<{3 * _HEX_WIDTH}} {shown}")
    if len(data) > most:
        lines.append(f"… and {len(data) - most} more bytes")
    return "\n".join(lines)


def table(*columns: str, title: str | None = None, right: Sequence[str] = (), gap: int = 2) -> Table:
    """Make an empty table that stays readable at 80 columns: no frame, a first column that never breaks."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, gap, 0, 0))
    for place, name in enumerate(columns):
        justify: JustifyMethod = "right" if name in right else "left"
        made.add_column(name, justify=justify, no_wrap=place == 0, overflow="fold", header_style="dim")
    return made


def many(count: int, one: str) -> str:
    """Print a count and what it counts: `1 record`, `2,000 records`."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


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


def field(to: Console, name: str, value: str | Text) -> None:
    """Print one indented line, its name in a column of its own; longer text goes on below itself."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=12, style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(f"  {name}", Text(value) if isinstance(value, str) else value)
    to.print(grid)
