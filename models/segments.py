"""Segments: SQL boolean expressions over features, evaluated for all states of a cut at once by polars."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl

from models import features
from models.features import Feature
from schemas.policy import PolicyError, Segment

# Extremes of counters, sums and hours, and NULL; each feature has each of them in some row.
_PROBED: Final = (None, 0.0, 1.0, 2.0, 127.0, 255.0, 40_000.0, 4_294_967_295.0, -0.05, 0.5, 87_600.0)


def _probe(segment: Segment, expression: pl.Expr) -> None:
    """Refuse an expression that fails on some values, or whose answer depends on other recipients."""
    columns = {
        name: [_PROBED[(row * (1 + number % 3) + number) % len(_PROBED)] for row in range(len(_PROBED))]
        for number, name in enumerate(features.FEATURES)
    }
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64))
    try:
        whole = frame.select(expression.alias("holds")).get_column("holds").to_list()
        backwards = frame.reverse().select(expression.alias("holds")).get_column("holds").to_list()
        singly = [
            value
            for row in range(frame.height)
            for value in frame.slice(row, 1).select(expression.alias("holds")).get_column("holds").to_list()
        ]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise PolicyError(
            f"segment {segment.name}: {segment.where!r} fails on some values: {error}"
        ) from error
    if not whole == backwards[::-1] == singly or len(whole) != frame.height:
        raise PolicyError(
            f"segment {segment.name}: {segment.where!r} must be about one recipient: it names no feature, or "
            "uses an aggregate or a window over others"
        )


@dataclass(frozen=True)
class Segments:
    """The segment definitions in force.

    Raises
    ------
    PolicyError
        On construction by `compile`: an expression is not SQL, names an unknown feature, or is not boolean.
    """

    definitions: tuple[Segment, ...]
    features: tuple[Feature, ...]
    expressions: tuple[pl.Expr, ...]

    @classmethod
    def compile(cls, definitions: Sequence[Segment]) -> "Segments":
        """Check and compile every definition."""
        schema = dict.fromkeys(features.FEATURES, pl.Float64)
        empty = pl.DataFrame(schema=schema)
        expressions = []
        for segment in definitions:
            try:
                expression = pl.sql_expr(segment.where)
                dtype = empty.select(expression.alias("holds")).schema["holds"]
            except BaseException as error:  # polars may panic, which is no Exception
                if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                    raise
                raise PolicyError(f"segment {segment.name}: {segment.where!r}: {error}") from error
            if dtype != pl.Boolean:
                raise PolicyError(f"segment {segment.name}: {segment.where!r} gives {dtype}, not a boolean")
            _probe(segment, expression)
            expressions.append(expression.fill_null(False).alias(segment.name))
        used = features.named_in(segment.where for segment in definitions)
        return cls(tuple(definitions), used, tuple(expressions))

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
        word, bit = self.numbers // 64, (self.numbers % 64).astype(np.uint64)
        return np.asarray((words[:, word] >> bit) & np.uint64(1), np.bool_)

    def packed(self, members: np.ndarray) -> np.ndarray:
        """Bool (n, s) as membership bits (n, 2) u8. Bits of segments no longer defined become 0."""
        words = np.zeros((len(members), 2), np.uint64)
        for column, number in enumerate(self.numbers.tolist()):
            words[:, number // 64] |= members[:, column].astype(np.uint64) << np.uint64(number % 64)
        return words
