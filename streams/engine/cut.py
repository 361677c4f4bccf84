"""A cut, the turn in which it is handled, what a handler answers, and the handler's contract."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from streams.engine.batch import Batch
from streams.engine.control import Control
from streams.engine.journal import Tally
from streams.engine.store import Store


@dataclass(frozen=True)
class Cut:
    """What is handled together for one partition number.

    `now` and `before` (the previous cut's) are UTC ms; `records` holds each source topic's part in offset
    order, `next_offsets` where each goes on after this cut. `plan_offset` is the next entry of the plan.
    """

    partition: int
    number: int
    now: int
    before: int
    control: Control
    plan_offset: int
    plan_id: str | None
    history: bool
    records: Mapping[str, Batch]
    next_offsets: Mapping[str, int]
    feedback: Any = None  # of the line's effects, in the line's own type; never in the journal


@dataclass(frozen=True)
class Out:
    """A record to produce; `partition` None leaves it to the partitioner of the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Handled:
    """What a cut gives: records to produce, rows to write, when rows are due, and figures for the journal.

    `keys`, `rows` and `due_at` belong together; `forgotten` are keys whose rows go; `resting` are slots whose
    rows stay but are due at `resting_due` next. `figures` are the cut's counts, and what else its
    journal's schema names, `changes` by how much each standing count (`Handler.standing`) grew. `effects` are
    begun once the cut has committed. Where there is `more` to do, the next cut is made at once.
    """

    outputs: list[Out] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    rows: np.ndarray | None = None
    due_at: np.ndarray | None = None
    forgotten: list[bytes] = field(default_factory=list)
    resting: np.ndarray | None = None
    resting_due: np.ndarray | None = None
    tallies: list[Tally] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    effects: list[Any] = field(default_factory=list)
    more: bool = False

    def apply(self, store: Store) -> None:
        """Make the rows the table's; only once the cut has committed."""
        if self.rows is not None and self.due_at is not None:
            store.put_many(self.keys, self.rows, self.due_at)
        store.delete_many(self.forgotten)
        if self.resting is not None and self.resting_due is not None:
            store.set_due(self.resting, self.resting_due)


# Cuts with their tables, each of another partition, all with the same `now`, `control` and `history`.
Turn = Sequence[tuple[Cut, Store]]


class Handler(Protocol):
    """The pure middle of lines: cuts and their tables in, outputs and rows out; no clock, no writes."""

    def policy(self, control: Control) -> str:
        """Hash of what decides, as it is in force under a state of control."""
        ...

    def handle(self, turn: Turn) -> list[Handled]:
        """Handle the cuts of a turn; what one gives does not depend on which others are handled with it.

        Any exception ends the worker: nothing of the cuts is visible then.
        """
        ...

    def due_at(self, keys: Sequence[bytes], rows: np.ndarray, after: int, control: Control) -> np.ndarray:
        """When each row is due next, UTC ms, int64 (n,), as it stands after a cut at `after`."""
        ...

    def due_by(self, control: Control) -> object:
        """What of control it hangs on when rows are due: where it is the same, all are due as before."""
        ...

    def standing(self, rows: np.ndarray) -> dict[str, int]:
        """Counts of rows that the journal carries on from cut to cut, such as the sends that wait."""
        ...


_UPTIME_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime() -> float:
    """Seconds on a clock that never goes back and, where there is one, runs on while the machine sleeps."""
    return time.clock_gettime(_UPTIME_CLOCK)


class Effects(Protocol):
    """What a line does outside Kafka: begun after the cut that asked for it has committed, never before.

    Called from the event loop. What it gives comes back as the feedback of a later cut.
    """

    def observe(self, control: Control) -> None:
        """Take note of the latest state of control; called several times a second."""
        ...

    def wanting(self, partition: int, store: Store, now: int) -> bool:
        """Whether a cut should be made for the sake of its feedback."""
        ...

    def feedback(self, partition: int, resumed: Mapping[str, Any] | None) -> Any:
        """Hand over what has come back since the last cut.

        On the first one after a take-over `resumed` are the figures of the last entry of the journal, empty
        if there is none; else it is None.
        """
        ...

    def begin(self, partition: int, effects: Sequence[Any], since: float) -> None:
        """Begin what a committed cut asked for; the cut was made at `since` of `uptime`.

        The commit may have taken long, and the partition may have been released meanwhile.
        """
        ...

    async def drain(self, partition: int, timeout: float) -> bool:
        """Begin nothing more and wait for what is under way, `timeout` seconds at most; whether all ended."""
        ...

    def release(self, partition: int) -> None:
        """Forget a partition: another owner takes it over, or a later cut here begins anew."""
        ...
