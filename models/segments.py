"""Segments: SQL boolean expressions over features, evaluated for all states of a cut at once by polars."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from models import features, segment_sql
from models.features import Feature
from schemas.policy import PolicyError, Segment


def bit(words: np.ndarray, number: int | np.ndarray) -> np.ndarray:
    """Membership bits (n, 2) u8 of a number as bool (n,), or of s numbers as bool (n, s)."""
    word, place = number // 64, np.uint64(number % 64)
    return np.asarray((words[:, word] >> place) & np.uint64(1), np.bool_)


@dataclass(frozen=True)
class Segments:
    """The segment definitions in force."""

    definitions: tuple[Segment, ...]
    features: tuple[Feature, ...]
    expressions: tuple[pl.Expr, ...]

    @classmethod
    def compile(cls, definitions: Sequence[Segment]) -> "Segments":
        """Compile every definition. Raises PolicyError where an expression may not be used."""
        problems = [
            f"segment {segment.name}: {fault}"
            for segment in definitions
            for fault in segment_sql.lint(segment.where)
        ]
        if problems:
            raise PolicyError("\n".join(problems))
        # The linter has let polars compile each: none fails here.
        expressions = tuple(
            pl.sql_expr(segment.where).fill_null(False).alias(segment.name) for segment in definitions
        )
        used = features.named_in(segment.where for segment in definitions)
        return cls(tuple(definitions), used, expressions)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Bit numbers of the definitions, int64 (s,)."""
        return np.array([segment.number for segment in self.definitions], np.int64)

    def column(self, name: str) -> int:
        """Column of a segment in `holds`."""
        return next(i for i, segment in enumerate(self.definitions) if segment.name == name)

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Membership by definition.

        `values` is float64 (n, f), one column per `self.features`, NaN for NULL. Returns bool (n, s).
        """
        if not len(self.definitions) or not len(values):
            return np.zeros((len(values), len(self.definitions)), np.bool_)
        frame = pl.DataFrame(
            {f.name: pl.Series(values[:, i], nan_to_null=True) for i, f in enumerate(self.features)}
        )
        return frame.select(self.expressions).to_numpy().astype(np.bool_).reshape(len(values), -1)

    def members(self, words: np.ndarray) -> np.ndarray:
        """Membership bits of rows (n, 2) u8 as bool (n, s)."""
        return bit(words, self.numbers)

    def packed(self, members: np.ndarray) -> np.ndarray:
        """Bool (n, s) as membership bits (n, 2) u8. Bits of segments no longer defined become 0."""
        words = np.zeros((len(members), 2), np.uint64)
        for column, number in enumerate(self.numbers.tolist()):
            words[:, number // 64] |= members[:, column].astype(np.uint64) << np.uint64(number % 64)
        return words
