"""The SQL of segments: what may be written, and what is wrong with a text, by line and column.

Allowed is what polars, ClickHouse and SQLite answer alike on every value and on NULL: a definition means the
same in the stream, over stored profiles, and in the tests' reference. `docs/segments.md` tells users. sqlglot
reads more than that, and mends what it reads: so the words are looked at first, then the tree, and polars has
the last say.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError

from models.features import FEATURES
from schemas.policy import meant

_WORDS: Final = {"AND", "OR", "NOT", "BETWEEN", "IS", "NULL", "COALESCE"}
_SIGNS: Final = {"=", "<>", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "(", ")", ","}
_NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,6})?")
_INSTEAD: Final = {
    "IN": "IN treats NULL differently from place to place: write a = 1 OR a = 2",
    "==": "write =",
    ";": "write one expression, without a semicolon",
    "TRUE": "there are no truth values: write a condition",
    "FALSE": "there are no truth values: write a condition",
}
_STRANGE: Final = re.compile(r"[^ -~\t\r\n]")
_MOST: Final = 4000  # characters
_LEAST_DIVISOR: Final = 0.001
_COMPARE: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
_COMPUTE: Final = (exp.Add, exp.Sub, exp.Mul)
_EMPTY: Final = pl.DataFrame(schema=dict.fromkeys(FEATURES, pl.Float64))


@dataclass(frozen=True, order=True)
class SqlFault:
    """What is wrong at a line and column of a text, both from 1."""

    line: int
    column: int
    text: str

    def __str__(self) -> str:
        """Print the place and what is wrong there."""
        return f"line {self.line}, column {self.column}: {self.text}"


def lint(where: str) -> list[SqlFault]:
    """What is wrong with a segment's expression, in the order of the text; nothing if it may be used."""
    if not where.strip():
        return [SqlFault(1, 1, 'is empty; write for example "clicks_7d >= 3 AND purchases_30d = 0"')]
    if len(where) > _MOST:
        return [SqlFault(1, 1, f"has more than {_MOST} characters: split it into several segments")]
    try:
        return _words(where) or _structure(where) or _compiled(where)
    except RecursionError:
        return [SqlFault(1, 1, "is nested too deeply: split it into several segments")]


def _words(where: str) -> list[SqlFault]:
    """Look at each word by itself."""
    strange = _STRANGE.search(where)
    if strange is not None:
        return [SqlFault(*_at(where, strange.start()), f"the character {strange[0]} may not be used")]
    try:
        tokens = sqlglot.tokenize(where)
    except TokenError:
        return [SqlFault(*_at(where, len(where)), "a quote or comment is not closed")]
    found = []
    for token in tokens:
        text = where[token.start : token.end + 1]
        problem = _word(text, where[token.end + 1 : token.end + 2])
        if problem is None and token.comments:
            problem = "what it is for stands in `doc`: write no comments"
        if problem is not None:
            found.append(SqlFault(*_at(where, token.start), problem))
    return found


def _word(text: str, following: str) -> str | None:
    """What is wrong with a word; None if nothing."""
    if text.upper() in _WORDS or text in _SIGNS or text in FEATURES:
        return None
    if text[0].isdigit() or (text[0] == "." and len(text) > 1):
        if _NUMBER.fullmatch(text) and not (following.isalnum() or following == "_"):
            return None
        shown = f"{text}{following.strip()}"
        return f"{shown}: write numbers as 20000 or 0.25, with at most 15 digits and 6 after the point"
    if text.upper() in _INSTEAD:
        return _INSTEAD[text.upper()]
    if text[0] == "'":
        return f"features are numbers, and {text} is text: write it without quotes"
    if text.isidentifier():
        return f"there is no feature {text}{meant(text.lower(), FEATURES)}"
    return f"{text} may not be used"


def _structure(where: str) -> list[SqlFault]:
    """Look at how the words stand together."""
    try:
        tree = sqlglot.parse_one(where)
        mended = tree.sql()
    except ParseError as error:
        return sorted({_unparsed(where, each) for each in error.errors})
    except SqlglotError as error:
        return [SqlFault(1, 1, f"no SQL: {error}")]
    if _counted(where) != _counted(mended):
        return [SqlFault(1, 1, f"may be read in several ways: write {mended}")]
    reading = _Reading(where)
    reading.condition(tree)
    return sorted(reading.faults)


def _compiled(where: str) -> list[SqlFault]:
    """Let polars compile it."""
    try:
        kind = _EMPTY.select(pl.sql_expr(where).alias("holds")).schema["holds"]
    except BaseException as error:  # polars may panic, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        return [SqlFault(1, 1, f"polars refuses it: {str(error).splitlines()[0]}")]
    return [] if kind == pl.Boolean else [SqlFault(1, 1, f"gives {kind}, not a condition")]


@dataclass
class _Reading:
    """A walk through a tree: every part is a condition or a number, and is asked for as one of them."""

    where: str
    faults: list[SqlFault] = field(default_factory=list)

    def condition(self, node: exp.Expr) -> None:
        """Take down what keeps a part from being true or false of a recipient."""
        if isinstance(node, exp.And | exp.Or):
            self.condition(node.left)
            self.condition(node.right)
        elif isinstance(node, exp.Not | exp.Paren):
            self.condition(node.this)
        elif isinstance(node, _COMPARE):
            self.numbers((node.left, node.right))
            if not node.find(exp.Column):
                self.refuse(node, "names no feature, so it holds for everybody or for nobody")
        elif isinstance(node, exp.Between):
            self.numbers((node.this, node.args["low"], node.args["high"]))
            if not node.this.find(exp.Column):
                self.refuse(node, "there must be a feature before BETWEEN")
        elif isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            self.number(node.this)
        elif isinstance(node, exp.Column):
            self.refuse(node, f"{node.name} is a number, not a condition: write {node.name} > 0, for example")
        else:
            self.refuse(node, f"{_shown(node)} is not a condition on a recipient's features")

    def numbers(self, nodes: Iterable[exp.Expr]) -> None:
        """As `number`, for several."""
        for node in nodes:
            self.number(node)

    def number(self, node: exp.Expr) -> None:
        """Take down what keeps a part from being the same number everywhere."""
        if isinstance(node, exp.Column | exp.Literal):
            return
        if isinstance(node, exp.Paren | exp.Neg):
            self.number(node.this)
            if isinstance(node, exp.Paren) or isinstance(node.this, exp.Literal):
                return
        elif isinstance(node, _COMPUTE):
            self.numbers((node.left, node.right))
        elif isinstance(node, exp.Div):
            self._quotient(node)
        elif isinstance(node, exp.Coalesce):
            self.numbers((node.this, *node.expressions))
            if not node.expressions:
                self.refuse(node, "COALESCE needs what to take instead: COALESCE(hours_since_click, 1000)")
        else:
            self.refuse(node, f"{_shown(node)} may not stand here: a number must")
            return
        if not node.find(exp.Column):
            # Types and rounding of constants differ from place to place.
            self.refuse(node, f"{_shown(node)} names no feature: write the result")

    def refuse(self, node: exp.Expr, text: str) -> None:
        """Take down what is wrong with a node, at the first of its words that knows where it is."""
        starts = [part.meta["start"] for part in node.walk() if "start" in part.meta]
        found = max(0, self.where.upper().find(node.sql().upper()))  # NULL does not know where it is
        self.faults.append(SqlFault(*_at(self.where, min(starts, default=found)), text))

    def _quotient(self, node: exp.Div) -> None:
        self.number(node.left)
        divisor = node.right
        if not isinstance(divisor, exp.Literal) or float(divisor.this) < _LEAST_DIVISOR:
            self.refuse(divisor, f"divide by a number of {_LEAST_DIVISOR} or more: what x / 0 is differs")
        elif node.left.find(exp.Coalesce):
            self.refuse(node, "the quotient may be rounded: write COALESCE around it, not within")


def _shown(node: exp.Expr) -> str:
    return node.sql().splitlines()[0][:60]


def _counted(text: str) -> Counter[str]:
    """How often each word stands in a text; both signs of inequality are one."""
    return Counter(token.text.upper().replace("!=", "<>") for token in sqlglot.tokenize(text))


def _unparsed(where: str, error: dict[str, object]) -> SqlFault:
    said, near = str(error["description"]).split(" for <class")[0], str(error["highlight"] or "")
    text = str(error["start_context"]) + near
    # Its column is that of the last character, and the context before it may be cut short.
    place = where.find(text) + len(str(error["start_context"])) if text and text in where else len(where)
    return SqlFault(*_at(where, place), f"no SQL: {said}" + (f", at {near}" if near else ""))


def _at(where: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset."""
    before = where[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
