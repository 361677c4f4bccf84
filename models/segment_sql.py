"""The SQL of segments: what may be written, and what is wrong with a text, by line and column.

Allowed is what polars and ClickHouse answer alike on every value and on NULL: a definition runs in the stream
and over stored profiles, and must hold for the same recipients in both. `docs/segments.md` tells it to users.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from models.features import FEATURES
from schemas.policy import meant

_COMPARE: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
_COMPUTE: Final = (exp.Add, exp.Sub, exp.Mul)
_LARGEST: Final = 2.0**53


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
    try:
        tokens = sqlglot.tokenize(where)
    except TokenError as error:
        return [SqlFault(*_end(where), f"no SQL: {str(error).splitlines()[0]}; is a quote open?")]
    if not tokens:
        return [SqlFault(1, 1, 'is empty; write for example "clicks_7d >= 3 AND purchases_30d = 0"')]
    for token in tokens:
        if token.text == ";":
            return [SqlFault(*_at(where, token.start), "one expression only, without a semicolon")]
        if token.comments:
            return [SqlFault(*_at(where, token.start), "has a comment: what it is for stands in `doc`")]
    try:
        tree = sqlglot.parse_one(where)
    except ParseError as error:
        return sorted({_unparsed(where, each) for each in error.errors})
    reading = _Reading(where)
    reading.condition(tree)
    if not reading.faults and not reading.named:
        reading.refuse(tree, "names no feature, so it holds for everybody or for nobody")
    return sorted(reading.faults)


@dataclass
class _Reading:
    """A walk through a tree: every part is a condition or a number, and is asked for as one of them."""

    where: str
    faults: list[SqlFault] = field(default_factory=list)
    named: bool = False

    def condition(self, node: exp.Expr) -> None:
        if isinstance(node, exp.And | exp.Or):
            self.condition(node.left)
            self.condition(node.right)
        elif isinstance(node, exp.Not | exp.Paren):
            self.condition(node.this)
        elif isinstance(node, _COMPARE):
            self.numbers((node.left, node.right))
        elif isinstance(node, exp.Between):
            self.numbers((node.this, node.args["low"], node.args["high"]))
        elif isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            self.number(node.this)
        elif isinstance(node, exp.In):
            self.refuse(node, "IN treats NULL differently from place to place: write a = 1 OR a = 2")
        elif isinstance(node, exp.Column):
            self.number(node)
            self.refuse(node, f"{node.name} is a number, not a condition: write {node.name} > 0, for example")
        else:
            self.refuse(node, f"{_shown(node)} is not a condition on a recipient's features")

    def numbers(self, nodes: Iterable[exp.Expr]) -> None:
        for node in nodes:
            self.number(node)

    def number(self, node: exp.Expr) -> None:
        if isinstance(node, exp.Column):
            self._feature(node)
        elif isinstance(node, exp.Literal):
            if node.is_string:
                self.refuse(node, f"features are numbers, and {node.sql()} is text: write it without quotes")
            elif not float(node.this) <= _LARGEST:
                self.refuse(node, f"{node.sql()} is larger than any feature can be")
        elif isinstance(node, exp.Paren | exp.Neg):
            self.number(node.this)
        elif isinstance(node, _COMPUTE):
            self.numbers((node.left, node.right))
        elif isinstance(node, exp.Div):
            self._quotient(node)
        elif isinstance(node, exp.Coalesce):
            self.numbers((node.this, *node.expressions))
        else:
            self.refuse(
                node, f"{_shown(node)} may not be used: there are features, numbers, + - * / and COALESCE"
            )

    def refuse(self, node: exp.Expr, text: str) -> None:
        """Take down what is wrong with a node, where its text begins."""
        starts = [part.meta["start"] for part in node.walk() if "start" in part.meta]
        found = max(
            0, self.where.upper().find(node.sql().upper())
        )  # NULL and TRUE do not know where they are
        self.faults.append(SqlFault(*_at(self.where, min(starts, default=found)), text))

    def _feature(self, node: exp.Column) -> None:
        self.named = True
        name = node.sql()
        if name not in FEATURES:
            self.refuse(node, f"there is no feature {name}{meant(name.lower(), FEATURES)}")

    def _quotient(self, node: exp.Div) -> None:
        self.number(node.left)
        divisor = node.right
        if not isinstance(divisor, exp.Literal) or divisor.is_string or not float(divisor.this):
            self.refuse(divisor, "divide by a number other than 0 only: what x / 0 is differs")
        elif not node.left.find(exp.Column):
            self.refuse(node, "the quotient of two numbers may be rounded: write the result")


def _shown(node: exp.Expr) -> str:
    return node.sql().splitlines()[0][:60]


def _unparsed(where: str, error: dict[str, object]) -> SqlFault:
    said, near = str(error["description"]).split(" for <class")[0], str(error["highlight"] or "")
    text = str(error["start_context"]) + near
    # Its column is that of the last character, and the context before it may be cut short.
    place = where.find(text) + len(str(error["start_context"])) if text and text in where else len(where)
    return SqlFault(*_at(where, place), f"no SQL: {said}" + (f", at {near}" if near else ""))


def _end(where: str) -> tuple[int, int]:
    return _at(where, len(where))


def _at(where: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset."""
    before = where[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
