"""Which cuts are handled together, and when it is worth a moment's waiting for more."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Final

from streams.engine.control import Control
from streams.engine.cut import Cut
from streams.engine.line import Line

FULL: Final = 4000  # records


def turns(lines: Iterator[Line], control: Control) -> list[list[Cut]]:
    """Cuts of the next lines, until there is enough for a turn; those of one moment together.

    Alone are a large cut, for which the others would wait, a planned one, which many more follow, and one of
    a line with effects: those go on between two turns.
    """
    found: defaultdict[tuple[int, int | None], list[Cut]] = defaultdict(list)
    records, wall = 0, time.time_ns() // 1_000_000
    for line in lines:
        cut = line.next_cut(control, wall)
        if cut is not None:
            size = sum(map(len, cut.records.values()))
            alone = cut.plan_id is not None or size >= FULL
            found[cut.now, cut.partition if alone else None].append(cut)
            records += size
            if line.spec.effects is not None:
                break
        if records >= FULL:
            break
    return [*found.values()]


def should_wait(lines: Collection[Line]) -> bool:
    """Whether lines commit, and little waits for the others: a turn of few costs as much as one of all."""
    free = [line for line in lines if line.in_flight is None]
    if sum(len(buffer) for line in free for buffer in line.buffers.values()) >= FULL:
        return False
    return any(line.in_flight is not None and not line.fenced for line in lines)
