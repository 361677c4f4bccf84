"""The stages suite: what each stage of DECIDE costs an event, by the size of a cut and of the crowd.

One process and one partition, without a worker: each cut is handled, produced and committed by hand.
Stage functions are wrapped from outside; a stage's time is its own, without that of the stages inside it.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import results, rig
from benchmarks.decide_events import Crowd, Record, Skew
from models import decide as rules
from models import profile, triggers
from models.rounds import Rounds
from models.segments import Segments
from models.sendtime.model import HourModel
from schemas import policy_files, topics
from schemas.profile import HOUR_MS, ROW
from streams.agents import decide, intake
from streams.agents.decide import Decider
from streams.engine.batch import Batch
from streams.engine.control import Control
from streams.engine.cut import Cut, Handled
from streams.engine.kafka import Record as Taken
from streams.engine.store import SlabStore
from streams.engine.transaction import Transactions

POLICY: Final = Path(__file__).parent / "policy"
SIZES: Final = (20, 200, 2000)
RECIPIENTS: Final = (1_000, 100_000, 1_000_000)  # of all partitions
_CUTS: Final = 60
_WARM_UP: Final = 10
_PARTITION: Final = 0

_REST: Final = "the rest of the handler"
# Whose function, its name, and the stage that it is.
STAGES: Final[Sequence[tuple[Any, str, str]]] = (
    (intake, "take", "decode and judge"),
    (Decider, "_part", "find and place"),
    (decide, "_gather", "gather"),
    (profile, "roll", "profile"),
    (profile, "accept", "profile"),
    (profile, "additions", "profile"),
    (profile, "add", "profile"),
    (profile, "add_activity", "profile"),
    (triggers, "states", "features after each event"),
    (Segments, "holds", "segments' SQL"),
    (rules, "_transitions", "transitions"),
    (Rounds, "run", "gates"),
    (HourModel, "choose", "send time"),
    (Decider, "_outputs", "encode outputs"),
    (Handled, "apply", "scatter"),
    (Transactions, "commit", "produce"),
    (Transactions, "_commit", "commit"),
)


@dataclass
class Watch:
    """Seconds by stage; `inner` sums what the stages inside each running one took."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    inner: list[float] = field(default_factory=lambda: [0.0])

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its own time counted."""

        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            self.inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                took = time.perf_counter() - began
                self.seconds[stage] += took - self.inner.pop()
                self.inner[-1] += took

        return call

    @contextmanager
    def wrapping(self) -> Iterator[None]:
        """Wrap the stages' functions, and put them back at the end."""
        kept = [(owner, name, vars(owner)[name]) for owner, name, _ in STAGES]
        try:
            for owner, name, stage in STAGES:
                setattr(owner, name, self.timed(stage, vars(owner)[name]))
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)


def run() -> None:
    """Time cuts of several sizes by Zipf's law, then of several crowds evenly drawn; medians."""
    table = Table("stage", *(f"cut of {size:,}" for size in SIZES), title="DECIDE, µs an event (medians)")
    with rig.running() as bench:
        bench.create((topics.AUDIT, topics.COMMANDS, topics.RECALLS, topics.PROFILES, topics.JOURNAL))
        producer = Transactions(bench.client, "stages", "decide", _PARTITION)
        crowd = _crowd(100_000)
        found = [_sized(producer, cuts(crowd, "zipf", size), size) for size in SIZES]
        scaled = {
            count: _sized(producer, cuts(_crowd(count), "even", SIZES[-1]), SIZES[-1])["all"]
            for count in RECIPIENTS
        }
    stages = [*dict.fromkeys(stage for _, _, stage in STAGES), _REST, "all"]
    for stage in stages:
        table.add_row(stage, *(f"{each[stage]:.2f}" for each in found))
    Console().print(table)
    by_count = Table("recipients", "µs an event", title=f"evenly drawn, cut of {SIZES[-1]:,}")
    for count, cost in scaled.items():
        by_count.add_row(f"{count:,}", f"{cost:.2f}")
    Console().print(by_count)
    by_size = {str(size): each for size, each in zip(SIZES, found, strict=True)}
    figures = {"microseconds": by_size, "by_recipients": {str(count): cost for count, cost in scaled.items()}}
    results.write("stages", {"machine": results.machine(), **figures})


def _crowd(recipients: int) -> Crowd:
    """Those of so many recipients that are on the one partition."""
    return Crowd(recipients // rig.PARTITIONS, rig.PARTITIONS, on=_PARTITION)


def _sized(transactions: Transactions, made: Iterable[Cut], size: int) -> dict[str, float]:
    """Microseconds an event by stage, medians over cuts of `size` events."""
    decider, store = Decider(policy_files.load(POLICY), rig.PARTITIONS), SlabStore(ROW)
    timed: defaultdict[str, list[float]] = defaultdict(list)
    for number, cut in enumerate(made):
        watch = Watch()
        with watch.wrapping():
            began = time.perf_counter()
            [handled] = decider.handle([(cut, store)])
            handled.apply(store)
            rows = {} if handled.rows is None else _rows(handled)
            transactions.commit(handled.outputs, topics.PROFILES.name, rows)
            whole = time.perf_counter() - began
        watch.seconds[_REST] = whole - sum(watch.seconds.values())
        watch.seconds["all"] = whole
        if number >= _WARM_UP:
            for stage in {*(stage for _, _, stage in STAGES), _REST, "all"}:
                timed[stage].append(watch.seconds[stage] / size * 1e6)
    return {stage: statistics.median(each) for stage, each in timed.items()}


def _rows(handled: Handled) -> dict[bytes, bytes | None]:
    """What a line would write to the changelog."""
    values = [] if handled.rows is None else [row.tobytes() for row in handled.rows]
    return dict(zip(handled.keys, values, strict=True))


def cuts(crowd: Crowd, skew: Skew, size: int) -> Iterator[Cut]:
    """Cuts of one partition, ten seconds apart: what is known of everybody, then behaviour."""
    now = time.time_ns() // HOUR_MS // 1_000_000 * HOUR_MS
    behaviour = crowd.behaviour(skew, size * (_CUTS + _WARM_UP), now)
    offsets = dict.fromkeys((topic.name for topic in topics.SOURCES), 0)
    yield _cut(1, now, now, list(crowd.known(now)), offsets)
    before = now
    for number in range(2, _CUTS + _WARM_UP + 2):
        now = before + 10_000
        yield _cut(number, now, before, list(islice(behaviour, size)), offsets)
        before = now


def _cut(number: int, now: int, before: int, records: Sequence[Record], offsets: dict[str, int]) -> Cut:
    taken: dict[str, list[Taken]] = {topic.name: [] for topic in topics.SOURCES}
    for record in records:
        taken[record.topic].append(Taken(offsets[record.topic], now, record.key, record.value, ()))
        offsets[record.topic] += 1
    batches = {topic: Batch.of(some) for topic, some in taken.items()}
    return Cut(_PARTITION, number, now, before, Control(), 0, None, False, batches, dict(offsets))
