"""The job of the state suite on our engine: per recipient a count, the last moment and 14 counters.

That is 128 bytes. Of the counters, six count events by kind, and eight by the part of the day, three hours
each.
"""

from collections.abc import Sequence
from typing import Final, cast

import numpy as np
import polars as pl

from schemas import codec, columns
from streams.engine.control import Control
from streams.engine.cut import Cut, Handled, Turn
from streams.engine.journal import Tally
from streams.engine.store import NEVER, UNKNOWN, Store

KINDS: Final = ("view", "click", "scroll", "search", "cart", "open")
HOUR_MS: Final = 3_600_000
_KIND: Final = pl.Enum(KINDS)
STATE: Final = np.dtype([("count", "<i8"), ("last", "<i8"), ("counters", "<i8", (14,))])
_FIGURES: Final = ("decided", "withheld", "released", "dropped")


class Counting:
    """A `streams.engine.cut.Handler`."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def handle(self, turn: Turn) -> list[Handled]:
        """See `Handler.handle`. Raises `ColumnsRefused`: the backlog holds only good records."""
        return [self._handle(cut, table) for cut, table in turn]

    def _handle(self, cut: Cut, table: Store) -> Handled:
        records = cut.records[self._topic]
        tally = Tally(self._topic, cut.next_offsets[self._topic], len(records), no_trigger=len(records))
        figures = dict.fromkeys(_FIGURES, 0)
        if not len(records):
            return Handled(tallies=[tally], figures=figures)
        all_keys = cast(list[bytes], records.keys)
        frame = columns.decode(codec.current_id(self._topic), cast(list[bytes], records.values), all_keys)
        at = frame.get_column("occurred_at").to_physical().to_numpy()
        kind = frame.get_column("kind").cast(_KIND).to_physical().to_numpy()
        place: dict[bytes, int] = {}
        whose = np.array([place.setdefault(key, len(place)) for key in all_keys])
        keys = [*place]
        slots = table.find(keys)
        rows = np.zeros(len(keys), STATE)
        known = np.flatnonzero(slots != UNKNOWN)
        rows[known] = table.gather(slots[known])
        rows["count"] += np.bincount(whose, minlength=len(keys))
        np.maximum.at(rows["last"], whose, at)
        counters = rows["counters"]
        np.add.at(counters, (whose, kind), 1)
        np.add.at(counters, (whose, len(KINDS) + at // HOUR_MS % 24 // 3), 1)
        return Handled(
            keys=keys,
            rows=rows,
            due_at=np.full(len(keys), NEVER, np.int64),
            tallies=[tally],
            figures=figures,
        )

    def policy(self, control: Control) -> str:
        """None decides."""
        return "bench"

    def due_at(self, keys: Sequence[bytes], rows: np.ndarray, after: int, control: Control) -> np.ndarray:
        """Nothing is ever due."""
        return np.full(len(rows), NEVER, np.int64)

    def due_by(self, control: Control) -> object:
        """See `Handler.due_by`: nothing."""
        return ()

    def standing(self, rows: np.ndarray) -> dict[str, int]:
        """Nothing waits."""
        return {"pending": 0}
