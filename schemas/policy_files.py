"""Policy files, read as a whole: whatever is wrong in any of them is found, with file, line and column."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import tree_sitter_toml
from pydantic import BaseModel, ValidationError
from tree_sitter import Language, Node, Parser

from schemas.lanes import Lanes, Providers
from schemas.policy import NAMING, Campaign, Contact, Policy, PolicyError, Segment, SendTime, faults, meant
from schemas.replies import NO_RULES, Replies
from schemas.routes import LaneName

_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_QUOTES: Final = ('"""', "'''")
_UNKNOWN: Final = "extra_forbidden"
# What is a list of tables, and where keys of former forms have gone.
_LISTS: Final = {"cap": 'write [[cap]], a table for each: most = 1, window = "16 h", purposes = ["mail"]'}
_QUIET: Final = 'write [quiet] default = { from = "21:00", to = "08:00" }'
_MOVED: Final[dict[tuple[str, ...], str]] = {
    ("cap_window",): _LISTS["cap"],
    ("identities",): "write it above the first [table] of lanes.toml",
    ("quiet_from",): _QUIET,
    ("quiet_to",): _QUIET,
    ("hold_out",): "not known here; of a campaign write arms = { hold_out = 0.1 }",
}
_PYDANTIC_KEY: Final = "[key]"  # in pydantic's places: a name in a table is wrong, not its value
_KEY: Final = "\x00key"  # no key of a file
_T = TypeVar("_T", bound=BaseModel)
Key = tuple[str, ...]
Position = tuple[int, int]  # line and column, from 1


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a policy file, at a line and column that count from 1."""

    path: Path
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        """Print as compilers do, so that editors find the place."""
        return f"{self.path}:{self.line}:{self.column}: {self.text}"


@dataclass(frozen=True)
class File(Generic[_T]):
    """A file, what it says, and where in it each value stands."""

    path: Path
    value: _T
    positions: Mapping[Key, Position]

    def problem(self, key: Key, text: str, line: int = 1, column: int = 1) -> Problem:
        """A problem with a value; `line` and `column` say where within the text that it is."""
        top, left = _nearest(self.positions, key)
        return Problem(self.path, top + line - 1, left + column - 1 if line == 1 else column, text)


@dataclass
class Files:
    """What could be read of a policy folder, and the problems of the rest; None: it could not be read."""

    segments: list[File[Segment]] = field(default_factory=list)
    campaigns: list[File[Campaign]] = field(default_factory=list)
    contact: File[Contact] | None = None
    send_time: File[SendTime] | None = None
    lanes: File[Lanes] | None = None
    providers: File[Providers] | None = None
    replies: File[Replies] | None = None
    problems: list[Problem] = field(default_factory=list)

    def policy(self) -> Policy:
        """Everything that decides. Raises PolicyError if there is any problem."""
        _refuse(self.problems)
        assert self.contact and self.send_time and self.lanes, "what is missing is a problem"  # noqa: S101
        return Policy(
            segments=tuple(sorted((file.value for file in self.segments), key=lambda s: s.number)),
            campaigns=tuple(sorted((file.value for file in self.campaigns), key=lambda c: c.number)),
            contact=self.contact.value,
            send_time=self.send_time.value,
            routes=self.lanes.value.routes,
        )


def read(folder: Path) -> Files:
    """Read `segments/*.toml`, `campaigns/*.toml` and the files beside them; no problem ends it."""
    files = read_deciding(folder)
    if not folder.is_dir():
        return files
    files.providers = _read(folder / "providers.toml", Providers, files.problems)
    replies = folder / "replies.toml"
    files.replies = _read(replies, Replies, files.problems) if replies.exists() else None
    if files.lanes and files.providers:
        named = {LaneName.of(name).provider: ("lane", name) for name in files.lanes.value.lane}
        files.problems += _strangers(files.lanes, named, files.providers.value)
    if files.replies and files.providers:
        files.problems += _strangers(files.replies, _named(files.replies.value), files.providers.value)
    return files


def load(folder: Path) -> Policy:
    """Read what decides: segments, campaigns, contact policy, send time, and which lanes there are.

    Raises
    ------
    PolicyError
        Files are missing, are not TOML, or hold what their types refuse; every problem is in the message.
    """
    return read_deciding(folder).policy()


def load_lanes(folder: Path) -> Lanes:
    """Read `lanes.toml`. Raises PolicyError as `load`."""
    return _only(folder / "lanes.toml", Lanes)


def load_replies(folder: Path) -> Replies:
    """Read `replies.toml`; without one there are no rules. Raises PolicyError as `load`."""
    path, problems = folder / "replies.toml", list[Problem]()
    if not path.exists():
        return NO_RULES
    file = _read(path, Replies, problems)
    if file is not None:
        problems += _strangers(file, _named(file.value), load_providers(folder))
    _refuse(problems)
    assert file is not None, "what is not read is a problem"  # noqa: S101
    return file.value


def load_providers(folder: Path) -> Providers:
    """Read `providers.toml`. Raises PolicyError as `load`."""
    return _only(folder / "providers.toml", Providers)


def read_deciding(folder: Path) -> Files:
    """Read what decides, as `load`; no problem ends it."""
    files = Files()
    if not folder.is_dir():
        files.problems.append(Problem(folder, 1, 1, "there is no such folder"))
        return files
    paths = sorted((folder / "segments").glob("*.toml"))
    for path in paths:
        files.segments += _some(_read(path, Segment, files.problems))
    for path in sorted((folder / "campaigns").glob("*.toml")):
        files.campaigns += _some(_read(path, Campaign, files.problems))
    files.contact = _read(folder / "contact.toml", Contact, files.problems)
    files.send_time = _read(folder / "sendtime.toml", SendTime, files.problems)
    files.lanes = _read(folder / "lanes.toml", Lanes, files.problems)
    files.problems += _inconsistent(files, len(paths))
    return files


def _some(file: File[_T] | None) -> list[File[_T]]:
    return [] if file is None else [file]


def _inconsistent(files: Files, segment_files: int) -> Iterator[Problem]:
    file_of: dict[int, File[Segment] | File[Campaign]] = {}
    file_of |= {id(file.value): file for file in files.segments}
    file_of |= {id(file.value): file for file in files.campaigns}
    unread = len(files.segments) < segment_files
    contact = files.contact.value if files.contact else None
    routes = files.lanes.value.routes if files.lanes else None
    segments, campaigns = [f.value for f in files.segments], [f.value for f in files.campaigns]
    for fault in faults(segments, campaigns, contact, routes):
        if unread and fault.field in NAMING:  # the segment may be in a file with a problem of its own
            continue
        yield file_of[id(fault.of)].problem(fault.field, fault.text)


def _strangers(file: File[_T], named: Mapping[str, Key], providers: Providers) -> Iterator[Problem]:
    """Mailbox providers that a file names and that do not exist: nothing would ever come of them."""
    known = providers.names
    for name, key in named.items():
        if name not in known:
            yield file.problem(key, f"no provider is called {name}{meant(name, known)}")


def _named(replies: Replies) -> dict[str, Key]:
    """Providers that rules name, and where each stands for the first time."""
    rules = reversed([*enumerate(replies.rule)])
    return {rule.provider: ("rule", str(i), "provider") for i, rule in rules if rule.provider}


def _only(path: Path, kind: type[_T]) -> _T:
    problems: list[Problem] = []
    file = _read(path, kind, problems)
    _refuse(problems)
    assert file is not None, "what is not read is a problem"  # noqa: S101
    return file.value


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise PolicyError("\n".join(map(str, sorted(problems))))


def _read(path: Path, kind: type[_T], problems: list[Problem]) -> File[_T] | None:
    """Read one file; what is wrong with it is added to `problems`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        problems.append(Problem(path, 1, 1, f"{error.strerror}; a policy folder needs this file"))
        return None
    try:
        values = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem(path, line, 1, "the file is not UTF-8"))
        return None
    except (ValueError, RecursionError) as error:  # more than TOMLDecodeError, on numbers without end
        problems.append(_syntax(path, content, str(error)))
        return None
    positions = _positions(content)
    try:
        return File(path, kind(**values), positions)
    except ValidationError as error:
        problems += [_invalid(path, kind, positions, each) for each in error.errors()]
        return None


def _syntax(path: Path, content: bytes, said: str) -> Problem:
    at, end = _AT.search(said), content.count(b"\n") + 1
    line, column = (int(at[1]), int(at[2])) if at and at[1] else (end, 1)
    return Problem(path, line, column, f"no TOML: {_AT.sub('', said)}")


def _invalid(path: Path, kind: type[BaseModel], positions: Mapping[Key, Position], error: Any) -> Problem:
    key = tuple(map(str, error["loc"]))
    text = error["msg"].removeprefix("Value error, ")
    line, column = _nearest(positions, key)
    if key[-1:] == (_PYDANTIC_KEY,):
        key = key[:-1]
        line, column = _nearest(positions, (*key, _KEY))
    if error["type"] in ("tuple_type", "list_type"):
        text = _LISTS.get(key[-1], f'write a list: {key[-1]} = ["…"]')
    if error["type"] == _UNKNOWN:
        text = _MOVED.get(
            key[-1:] if key[-1:] == ("identities",) else key,
            "not known here" + (meant(key[-1], kind.model_fields) if len(key) == 1 else ""),
        )
        line, column = _nearest(positions, (*key, _KEY))
    elif error["type"] == "missing":
        text = "is missing"
    name = ".".join(key)
    return Problem(path, line, column, f"{name}: {text}" if name else text)


def _nearest(positions: Mapping[Key, Position], key: Key) -> Position:
    """Where a value stands, or the table that should hold it, or the file's begin."""
    while key and key not in positions:
        key = key[:-1]
    return positions.get(key, (1, 1))


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_toml.language()))


def _positions(content: bytes) -> dict[Key, Position]:
    """Where the values of a TOML document begin; of a string, its first character within the quotes."""
    found: dict[Key, Position] = {}
    _walk(_parser().parse(content).root_node, (), found, content.splitlines())
    return found


def _walk(node: Node, within: Key, found: dict[Key, Position], lines: Sequence[bytes]) -> None:
    """Take down where values stand, and keys: a key's place is that of `(key, _KEY)`."""
    tables: Counter[Key] = Counter()  # of arrays: each has its number in its key, as pydantic counts
    for child in node.named_children:
        # What this parser cannot read, and tomllib can, has no place; its table's is told then.
        if child.type not in ("table", "table_array_element", "pair") or child.has_error:
            continue
        name, words = child.named_children[0], _words(child.named_children[0])
        for depth in range(1, len(words) + 1):
            found.setdefault((*within, *words[:depth]), _begin(name, lines))
            found.setdefault((*within, *words[:depth], _KEY), _begin(name, lines))
        key = (*within, *words)
        if child.type == "table_array_element":
            tables[key] += 1
            key = (*key, str(tables[key] - 1))
            found[key] = _begin(name, lines)
        if child.type != "pair":
            _walk(child, key, found, lines)
            continue
        value = child.named_children[1]
        found[key] = _begin(value, lines)
        if value.type == "inline_table":
            _walk(value, key, found, lines)


def _words(key: Node) -> Key:
    """The words of a bare, quoted or dotted key."""
    if key.type == "dotted_key":
        return tuple(word for part in key.named_children for word in _words(part))
    return ((key.text or b"").decode().strip("\"'"),)


def _begin(node: Node, lines: Sequence[bytes]) -> Position:
    line, offset = node.start_point
    column = len(lines[line][:offset].decode(errors="replace"))  # counted in characters, as editors do
    if node.type != "string":
        return line + 1, column + 1
    text = (node.text or b"").decode()
    if not text.startswith(_QUOTES):
        return line + 1, column + 2
    return (line + 2, 1) if text[3:].startswith(("\n", "\r\n")) else (line + 1, column + 4)
