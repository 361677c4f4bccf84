"""What has to be known of a statement before the engine gets it: how many there are, and of which kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from infra.embedded.native_format import split_arguments

# As the engine reads it: a word has `$` within, `//` and `# ` begin a comment too, quotes may be curly.
_PIECE = re.compile(
    r"(?P<comment>--[^\n]*|//[^\n]*|#[ !][^\n]*|/\*.*?\*/)|(?P<end>;)|(?P<space>\s+)"
    r"|(?P<string>'(?:\\.|''|[^'\\])*'|‘[^’]*’)|`(?:\\.|[^`\\])*`|\"(?:\\.|[^\"\\])*\"|“[^”]*”"
    r"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|\w[\w$]*|.",
    re.DOTALL,
)
_HEX = re.compile(r"\\x([0-9a-fA-F]{2})")
_SELECT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*$", re.IGNORECASE)
_INSERT = re.compile(
    r"\s*INSERT\s+INTO\s+(?:TABLE\s+)?"
    r"(?P<table>(?:`[^`]+`|\"[^\"]+\"|[^\s(`\"])+)\s*(?P<names>\([^)]*\))?"
    r"\s*(?P<settings>SETTINGS\s[^()]*?)?\s*(?:VALUES|FORMAT\s+(?P<format>\w+))",
    re.IGNORECASE | re.DOTALL,
)
# Only one line end: the next byte may be the first of a Native block, and ten columns begin with 0x0a.
_BEFORE_ROWS = re.compile(r"[ \t\f]*;?[ \t\f]*\r?\n?")


class SeveralStatements(ValueError):  # noqa: N818 - says what happened
    """The text has more than one statement: send each by itself."""


class NestedComment(ValueError):  # noqa: N818 - says what happened
    """A comment has another in it: leave it out."""


@dataclass(frozen=True)
class Insert:
    """An INSERT whose rows come after it; `names` are its columns, none for all of the table's."""

    table: str
    names: tuple[str, ...]
    settings: str
    form: str | None

    @property
    def target(self) -> str:
        """The table and its columns as SQL."""
        return self.table + (f" ({', '.join(map(identifier, self.names))})" if self.names else "")


def single(sql: str) -> str:
    """Return a text's only statement without its semicolon.

    The engine would run them all, and answer with the last one's result.

    Raises
    ------
    SeveralStatements
        There is more than one.
    """
    end = None
    for piece in _PIECE.finditer(sql):
        if piece["end"] and end is None:
            end = piece.start()
        elif end is not None and not (piece["end"] or piece["comment"] or piece["space"]):
            raise SeveralStatements("several statements in one query are not served: send each by itself")
    return sql[:end]


def words(sql: str) -> Iterator[str]:
    """Yield the words of a statement in small letters, names without their quotes, but not its strings.

    Raises
    ------
    NestedComment
        It has a comment in a comment, of which one cannot tell where it ends.
    """
    for piece in _PIECE.finditer(sql):
        if piece["comment"]:
            if "/*" in piece[0][2:] and piece[0].startswith("/*"):
                raise NestedComment("a comment in a comment is not served: leave it out")
        elif not (piece["string"] or piece["space"]):
            name = _HEX.sub(lambda found: chr(int(found[1], 16)), piece[0])
            yield from (word.lower() for word in re.findall(r"\w+", name))


def streams(sql: str) -> bool:
    """Tell whether the engine can hand out the result of a statement block by block."""
    return _SELECT.match(sql) is not None


def without_format(sql: str) -> tuple[str, str | None]:
    """Return a statement without its trailing FORMAT clause, and the name of that format."""
    found = _FORMAT.search(sql)
    return (sql[: found.start()], found[1]) if found else (sql, None)


def insert_of(sql: str) -> Insert | None:
    """Return the INSERT that `sql` is, all of it; None for another statement, or if its rows are in it."""
    found = _INSERT.fullmatch(sql.strip())
    return _insert(found) if found else None


def insert_before_rows(body: bytes) -> tuple[Insert, int] | None:
    """Return the INSERT that `body` begins with, and where its rows begin; None if it does not."""
    head = body.decode("latin-1")  # one character a byte
    found = _INSERT.match(head)
    if found is None:
        return None
    rows = _BEFORE_ROWS.match(head, found.end())
    named = _INSERT.match(body[: found.end()].decode("utf-8", "replace"))
    return _insert(named or found), rows.end() if rows else found.end()


def _insert(found: re.Match[str]) -> Insert:
    names = split_arguments(found["names"][1:-1]) if found["names"] else []
    return Insert(found["table"], tuple(map(_bare, names)), found["settings"] or "", found["format"])


def _bare(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name[1:-1]) if name[:1] in '`"' else name


def identifier(name: str) -> str:
    """Return `name` in backquotes."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(value: str) -> str:
    """Return `value` as a string of SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
