"""How long it took, on the brokers' clocks: differences between timestamps that Kafka gave records.

Topics have `LogAppendTime`: a broker stamps a record when it appends it, within the transaction that the
record is part of. The commit, after which readers see it, follows by some milliseconds and is not counted.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from streams.explain import Record, kind_of
from streams.figures.delivery import Deliveries

EVENT_TO_DECISION: Final = "source event → decision"
EVENT_TO_COMMAND: Final = "source event → command sent at once"
COMMAND_TO_OUTCOME: Final = "command → outcome"
RELEASE_TO_DELIVERED: Final = "released → delivered"
_ANSWERED: Final = ("delivered", "bounced")


@dataclass(frozen=True)
class Latency:
    """Percentiles of `count` durations in ms, each one that occurred; None where there was none."""

    what: str
    count: int
    p50: int | None = None
    p95: int | None = None
    p99: int | None = None
    most: int | None = None

    @classmethod
    def of(cls, what: str, durations: Sequence[int] | np.ndarray) -> "Latency":
        """Percentiles of durations in ms."""
        if not len(durations):
            return cls(what, 0)
        found = np.percentile(durations, (50, 95, 99, 100), method="inverted_cdf")
        return cls(what, len(durations), *(int(each) for each in found))


@dataclass(frozen=True)
class Latencies:
    """How long things took: on the brokers' wall clock, and in stream time.

    Wall clock, from one record's timestamp to another's:

    - event to decision: from the source event that set a decision off to that decision's audit record, in
      live cuts. What the event waited for a worker counts; decisions that a moment set off have no event.
    - event to command: the same event to the command, for decisions that were released in their own cut.
    - command to outcome: from a live command to the audit record that says delivered or bounced. The wait in
      the lane counts, at the speed of the clock; so do later attempts.

    Stream time: from a message's release to the server's answer, as DELIVER wrote both down. It is what the
    recipient waited; on a scaled clock it is so many times longer than on the wall.
    """

    wall: list[Latency]
    stream: list[Latency]


@dataclass
class Stamps:
    """Brokers' timestamps of source records, found again by topic, partition and offset."""

    _found: defaultdict[tuple[str, int], list[tuple[np.ndarray, np.ndarray]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, topic: str, partition: int, offsets: Sequence[int], stamps: Sequence[int]) -> None:
        """Take in records of one partition, in their order."""
        self._found[topic, partition].append((np.array(offsets, np.int64), np.array(stamps, np.int64)))

    def of(self, topic: str, partition: int, offsets: np.ndarray) -> np.ndarray:
        """Timestamps of records, UTC ms; -1 for those that are not there."""
        parts = self._found.get((topic, partition))
        if not parts or not len(offsets):
            return np.full(len(offsets), -1, np.int64)
        known, stamps = (np.concatenate(each) for each in zip(*parts, strict=True))
        place = np.minimum(np.searchsorted(known, offsets), len(known) - 1)
        return np.where(known[place] == offsets, stamps[place], -1)


@dataclass(frozen=True)
class _Decided:
    """A decision that an event set off: the event's place, and when its audit record was written."""

    topic: str
    partition: int
    offset: int
    cut: tuple[int, int]
    written_at: int


@dataclass
class Decided:
    """Decisions that events set off, and which of them were released in their own cut."""

    _decisions: dict[str, _Decided] = field(default_factory=dict)
    _at_once: dict[str, str] = field(default_factory=dict)  # dispatch to decision

    def add(self, record: Record, written_at: int) -> None:
        """Take in a decoded audit record of DECIDE, written at so many UTC ms on the brokers' clock."""
        body, cut = record["body"], (record["partition"], record["cut"])
        kind = kind_of(body)
        if kind == "decision" and body["cause"]["topic"] is not None:
            cause = body["cause"]
            self._decisions[body["decision_id"]] = _Decided(
                cause["topic"], cause["partition"], cause["offset"], cut, written_at
            )
        elif kind == "release" and body["outcome"] == "released":
            decided = self._decisions.get(body["decision_id"])
            if decided is not None and decided.cut == cut:
                self._at_once[body["dispatch_id"]] = body["decision_id"]

    def latencies(self, stamps: Stamps, historic: set[tuple[int, int]], deliveries: Deliveries) -> Latencies:
        """Put everything together; `historic` are DECIDE's cuts of history, by partition and number."""
        live = {name: each for name, each in self._decisions.items() if each.cut not in historic}
        began = _began(live, stamps)
        commands, ends = deliveries.commands, deliveries.ends
        at_once = [
            commands[dispatch].written_at - began[decision]
            for dispatch, decision in self._at_once.items()
            if decision in began and dispatch in commands
        ]
        outcomes = [
            end.written_at - commands[dispatch].written_at
            for dispatch, end in ends.items()
            if end.kind in _ANSWERED and dispatch in commands
        ]
        return Latencies(
            [
                Latency.of(EVENT_TO_DECISION, [live[name].written_at - at for name, at in began.items()]),
                Latency.of(EVENT_TO_COMMAND, at_once),
                Latency.of(COMMAND_TO_OUTCOME, outcomes),
            ],
            [Latency.of(RELEASE_TO_DELIVERED, deliveries.waits())],
        )


def _began(decisions: dict[str, _Decided], stamps: Stamps) -> dict[str, int]:
    """When the event behind each decision was written, where the event is still there."""
    by_part: defaultdict[tuple[str, int], list[tuple[int, str]]] = defaultdict(list)
    for name, each in decisions.items():
        by_part[each.topic, each.partition].append((each.offset, name))
    found: dict[str, int] = {}
    for (topic, partition), places in by_part.items():
        at = stamps.of(topic, partition, np.array([offset for offset, _ in places], np.int64)).tolist()
        found |= {name: when for (_, name), when in zip(places, at, strict=True) if when >= 0}
    return found
