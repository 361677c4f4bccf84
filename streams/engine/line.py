"""A line: what the owner of a partition number holds, and how its next cut is made."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer

from schemas.layouts import Layouts
from streams import events
from streams.engine import journal, recovery
from streams.engine.batch import NOTHING, Batch, Buffer
from streams.engine.control import Control
from streams.engine.cut import Cut, Effects, Handled, Handler, uptime
from streams.engine.cutsize import CutSize
from streams.engine.failpoint import reach
from streams.engine.journal import ChangelogLost, Entry, JournalLost, OffsetOutOfRange
from streams.engine.kafka import Client, bounds
from streams.engine.plan import PlannedCut, PlanReader
from streams.engine.snapshot import NoSnapshots, Snapshot, Snapshots
from streams.engine.staged import Staged
from streams.engine.store import Store
from streams.engine.transaction import Transactions

_log = structlog.get_logger()
_DUE_EVERY_MS: Final = 1000  # of wall clock: cuts made only because something is due
# Of a plan, in one transaction.
_GROUPED_CUTS: Final = 16
_GROUPED_RECORDS: Final = 4000
# Cuts of a line with effects, unless one would be full: those give in trickles, and a transaction costs the
# broker as much for one record as for a hundred. Where one takes long, it had better hold more; but the next
# claims must be there before those run out that are made ahead (`AHEAD_S` of `streams.sending_lane`).
_EFFECTS_EVERY_S: Final = 0.1
_TIMES_WHAT_ONE_TAKES: Final = 2
_EFFECTS_GATHER_AT_MOST_S: Final = 0.2
_FULL_BYTES: Final = 8 * 1024 * 1024  # of one topic, waiting for a cut
_NO_SNAPSHOT: Final = -1  # no cut has such a number
_NO_SLOTS: Final = np.empty(0, np.int64)
_IDLE_EVERY_MS: Final = 6 * 3600 * 1000  # so that the journal never empties and the transactional id lives


@dataclass(frozen=True)
class Spec:
    """What makes a line: whose it is, what it reads in which rank, where its rows and its journal go.

    A line that does not follow plans stands still in time while the clock is told by one.
    """

    app: str
    client: Client
    sources: tuple[str, ...]
    changelog: str
    journal: str
    follows_plan: bool
    handler: Handler
    cut_records: int
    target_s: float
    new_store: Callable[[], Store]
    effects: Effects | None = None
    snapshots: Snapshots = NoSnapshots()
    layouts: Layouts | None = None  # of rows that say their version

    @property
    def role(self) -> str:
        """Name of the line's role, as in `opportune run`."""
        return self.app.removeprefix("opportune-")


class Line:
    """One owned partition number, in line: at most one transaction is in flight.

    `take_over` blocks and runs off the event loop, as does `commit`; all else is quick.
    """

    def __init__(
        self, spec: Spec, partition: int, store: Store, entry: Entry | None, offsets: Mapping[str, int]
    ) -> None:
        self.spec = spec
        self.partition = partition
        self.store = store
        self.entry = entry  # of the last cut that is staged
        self.committed = entry
        self.next_offsets = dict(offsets)
        self.buffers = {topic: Buffer() for topic in spec.sources}
        self.size = CutSize(spec.target_s, spec.cut_records)
        self.reading = 0  # what its feed calls the reading of its sources
        self.held: set[str] = set()  # topics that are not fetched, since enough of them waits
        # Topics of which it is not known yet what they hold: no cut before, or a purchase would overtake
        # the consent that was given before it.
        self.cold = set(spec.sources)
        self.in_flight: Cut | None = None
        self.fenced = False
        self.released = False  # its effects are another owner's now
        self.transactions: Transactions
        self._plan: PlanReader | None = None
        self._plan_offset = entry.plan_offset if entry else 0
        self._plan_ended = ""
        self._control_seen = entry.control_version if entry else 0
        self._indexed: object = None  # what of control rows' due times were worked out by
        self._last_cut_wall = time.time_ns() // 1_000_000
        self._standing: Counter[str] = Counter()
        self._made_at = 0.0
        self._gathers_s = _EFFECTS_EVERY_S  # how long, if it has effects
        self._resumed = True
        self._draining = False
        self._more = False  # the last cut has left something that is due
        self._staged = Staged()
        self._to_begin: list[Any] = []  # effects of what has committed

    @classmethod
    def take_over(
        cls, spec: Spec, partition: int, kept: "Line | None", control: Control, step: Callable[[], None]
    ) -> "Line":
        """Fence the former owner, find the last cut, keep or recover the rows; `step` as in `recover`.

        Raises `Fenced`, `TransactionFailed`, `KafkaUnavailable`, `ChangelogDamaged`, `ChangelogLost`,
        `JournalLost` or `OffsetOutOfRange`; the worker ends then.
        """
        transactions = Transactions(spec.client, spec.app, spec.role, partition)
        reach(spec.role, "after_fence")
        consumer = spec.client.reader()
        try:
            last = journal.last_entry(consumer, spec.journal, partition)
            entry = last[0] if last else None
            number = entry.number if entry else 0
            snapshot = None
            if kept is not None and kept.number == number:
                store, applied = kept.store, 0
            else:
                store, applied, snapshot = cls._table(spec, consumer, partition, number, step)
                if snapshot and entry and not entry.agrees(len(store)):
                    # What was on disk misled; the changelog is the table.
                    store, applied, snapshot = cls._table(spec, consumer, partition, _NO_SNAPSHOT, step)
            if entry is None and len(store):
                raise JournalLost(spec.journal, partition, len(store))
            if entry is not None and not entry.agrees(len(store)):
                raise ChangelogLost(spec.changelog, partition, entry.rows, len(store))
            store.committed(number)
            earliest = {topic: bounds(consumer, topic, partition) for topic in spec.sources}
        finally:
            consumer.close()
        offsets = {topic: low for topic, (low, _) in earliest.items()} | (
            entry.next_offsets() if entry else {}
        )
        for topic, (low, high) in earliest.items():
            if not low <= offsets[topic] <= high:
                raise OffsetOutOfRange(topic, partition, offsets[topic], low, high)
        line = cls(spec, partition, store, entry, offsets)
        line.transactions = transactions
        line._reindex(control)
        reach(spec.role, "after_recover")
        _log.info(
            events.LINE_TAKEN_OVER,
            partition=partition,
            cut=number,
            keys=len(store),
            changelog_records=applied,
            snapshot=snapshot.number or None if snapshot else None,
            kept=store is (kept.store if kept else None),
        )
        return line

    @staticmethod
    def _table(
        spec: Spec, consumer: Consumer, partition: int, at_most: int, step: Callable[[], None]
    ) -> tuple[Store, int, Snapshot | None]:
        """The rows as the changelog has them, the records read for it, and the snapshot they began from."""
        snapshot = spec.snapshots.newest(partition, at_most)
        step()
        store = snapshot.store if snapshot else spec.new_store()
        start = snapshot.changelog_offset if snapshot else OFFSET_BEGINNING
        read = recovery.reader(spec.layouts, store.dtype)
        applied = recovery.recover(consumer, spec.changelog, partition, start, store, read, step)
        return store, applied, snapshot

    def _reindex(self, control: Control) -> None:
        """Work out anew when every row is due, and the standing counts."""
        after = self.entry.now if self.entry else 0
        self._indexed = self.spec.handler.due_by(control)
        self._standing = Counter(self.spec.handler.standing(self.store.gather(_NO_SLOTS)))
        for slots, keys, rows in self.store.live():
            self.store.set_due(slots, self.spec.handler.due_at(keys, rows, after, control))
            self._standing.update(self.spec.handler.standing(rows))

    @property
    def number(self) -> int:
        """Number of the last staged cut; 0 before the first."""
        return self.entry.number if self.entry else 0

    @property
    def clean(self) -> bool:
        """Whether the rows are those of the last committed cut."""
        return not self._staged.entries

    # What to fetch, and the next cut

    def wants(self, topic: str) -> bool:
        """Whether more records of a topic should be fetched: once held, only when half has been taken."""
        buffer, most = self.buffers[topic], self.spec.cut_records
        if 2 * len(buffer) < most and 2 * buffer.size < _FULL_BYTES:
            return True
        planned = self._planned(peek_only=True)
        if planned is not None and buffer.end < planned.next_offsets.get(topic, 0):
            return True
        return topic not in self.held and len(buffer) < most and buffer.size < _FULL_BYTES

    def warm(self, topic: str, position: int) -> None:
        """Learn what a topic held at the take-over: all that was fetched of it, up to `position`.

        Where nothing was, the position has passed the transaction markers at the end of the topic. The
        journal takes it over, or retention would one day seem to have lost a record that never was.
        """
        self.cold.discard(topic)
        if not self.buffers[topic]:
            self.next_offsets[topic] = max(self.next_offsets[topic], position)

    def buffer(self, topic: str, records: Batch) -> None:
        """Take fetched records, in offset order."""
        self.buffers[topic].add(records)

    def next_cut(self, control: Control, wall: int) -> Cut | None:
        """Make the next cut if there is cause; None if not. `wall` is the wall clock, UTC ms."""
        if self.in_flight is not None or self.fenced or control.version < self._control_seen:
            return None  # the last: this worker has not yet read what the former owner knew, a pause perhaps
        before = self.entry.now if self.entry else None
        if (
            self.spec.follows_plan
            and control.clock.mode == "plan"
            and control.clock.plan_id != self._plan_ended
        ):
            return self._follow(control, before, wall)
        if any(not self.buffers[topic] for topic in self.cold):
            return None
        now = max(before or 0, control.clock.now(wall) or 0)
        if not self._cause(control, now, wall):
            return None
        most = self.size.limit(max(map(len, self.buffers.values())))
        records = {topic: buffer.take(most) for topic, buffer in self.buffers.items()}
        return self._made(control, now, before, records, None, False, wall)

    def _cause(self, control: Control, now: int, wall: int) -> bool:
        """Records, a change of control, work left, something due (at most once a second), or long silence."""
        effects = self.spec.effects
        if self._draining:
            return effects is not None and effects.wanting(self.partition, self.store, now)
        if self._more or control.version != self._control_seen:
            return True
        waiting = max(map(len, self.buffers.values()))
        if effects is not None:
            if waiting < self.spec.cut_records and uptime() - self._made_at < self._gathers_s:
                return False
            if self._resumed or effects.wanting(self.partition, self.store, now):
                return True
        if waiting:
            return True
        quiet_for = wall - self._last_cut_wall
        if quiet_for >= _DUE_EVERY_MS and self.store.next_due() <= now:
            return True
        return self.entry is not None and quiet_for >= _IDLE_EVERY_MS

    def _planned(self, peek_only: bool = False) -> PlannedCut | None:
        if self._plan is None:
            if peek_only or not self.spec.follows_plan:
                return None
            self._plan = PlanReader(self.spec.client, self.partition, self._plan_offset)
        return self._plan.peek()

    def _follow(self, control: Control, before: int | None, wall: int) -> Cut | None:
        """Make the next planned cut once its records are here; those without any effect are passed over."""
        while (planned := self._planned()) is not None:
            of_plan = planned.plan_id == control.clock.plan_id
            if of_plan and planned.now is None:
                told_before = planned.offset < self._plan_offset
                self._plan_ended = planned.plan_id
                self._advance(planned)
                self._close_plan()
                if told_before:
                    return self.next_cut(control, wall)
                # A cut without records, so that the journal says the plan was followed to its end.
                nothing = dict.fromkeys(self.spec.sources, NOTHING)
                return self._made(control, before or 0, before, nothing, None, False, wall)
            if not of_plan or planned.offset < self._plan_offset:
                self._advance(planned)
                continue
            if any(not self._arrived(topic, offset) for topic, offset in planned.next_offsets.items()):
                return None
            records = {
                topic: buffer.take_until(planned.next_offsets[topic])
                if topic in planned.next_offsets
                else buffer.take(self.spec.cut_records)
                for topic, buffer in self.buffers.items()
            }
            self._advance(planned)
            now = max(before or 0, planned.now or 0)
            if any(records.values()) or self.store.next_due() <= now or control.version != self._control_seen:
                return self._made(control, now, before, records, planned.plan_id, planned.history, wall)
        return None

    def _advance(self, planned: PlannedCut) -> None:
        if self._plan is not None:
            self._plan.advance()
        self._plan_offset = max(self._plan_offset, planned.offset + 1)

    def _arrived(self, topic: str, offset: int) -> bool:
        buffer = self.buffers[topic]
        return self.next_offsets[topic] >= offset or (bool(buffer) and buffer.end >= offset)

    def _made(
        self,
        control: Control,
        now: int,
        before: int | None,
        records: Mapping[str, Batch],
        plan_id: str | None,
        history: bool,
        wall: int,
    ) -> Cut:
        if self.entry is not None and self.spec.handler.due_by(control) != self._indexed:
            self._reindex(control)
        for topic, some in records.items():
            if some:
                self.next_offsets[topic] = int(some.offsets[-1]) + 1
        self._last_cut_wall = wall
        self._control_seen = control.version
        self._made_at = uptime()
        effects = self.spec.effects
        resumed = None if not self._resumed else {} if self.entry is None else self.entry.figures
        self._resumed = False
        self.in_flight = Cut(
            self.partition,
            self.number + 1,
            now,
            now if before is None else before,
            control,
            self._plan_offset,
            plan_id,
            history,
            records,
            dict(self.next_offsets),
            None if effects is None else effects.feedback(self.partition, resumed),
        )
        return self.in_flight

    # Handling

    def stage(self, cut: Cut, handled: Handled) -> None:
        """Make a handled cut's rows the table's, and keep what it gives for the coming transaction.

        Should that fail, the rows are ahead of the journal: the line is never kept then.
        """
        handled.apply(self.store)
        reach(self.spec.role, "after_handle")
        self._standing.update(handled.changes)
        self._more = handled.more
        self.entry = Entry(
            cut.partition,
            cut.number,
            cut.now,
            cut.control.version,
            self.spec.handler.policy(cut.control),
            cut.plan_offset,
            cut.plan_id,
            cut.history,
            handled.tallies,
            handled.figures | self._standing,
            len(self.store),
        )
        self._staged.add(handled, self.entry, self.spec.journal)

    def following(self, cut: Cut) -> Cut | None:
        """Make the next planned cut, to stand in the same transaction as `cut`; None if there is none yet.

        History is small cuts, and a transaction costs as much as several of them.
        """
        if (
            cut.plan_id is None
            or len(self._staged.entries) >= _GROUPED_CUTS
            or len(self._staged.outputs) >= _GROUPED_RECORDS
        ):
            return None
        return self._follow(cut.control, cut.now, self._last_cut_wall)

    def commit(self) -> list[Entry]:
        """Write what is staged in one transaction; returns its cuts' entries. Blocking.

        Raises `Fenced` or `TransactionFailed`.
        """
        staged = self._staged
        self.transactions.commit(staged.outputs, self.spec.changelog, staged.rows)
        reach(self.spec.role, "after_commit")
        self.store.committed(staged.entries[-1].number)
        self._to_begin, self._staged = staged.effects, Staged()
        self.committed = self.entry
        return staged.entries

    def settled(self) -> None:
        """After `commit`, in the event loop: begin what the cuts asked for, and let the next one be made."""
        effects, self._to_begin = self._to_begin, []
        if self.spec.effects is not None:
            self.spec.effects.begin(self.partition, effects, self._made_at)
        if self.in_flight is not None:
            records, took = max(map(len, self.in_flight.records.values())), uptime() - self._made_at
            self.size.settled(records, took)
            self._gathers_s = min(
                max(_EFFECTS_EVERY_S, _TIMES_WHAT_ONE_TAKES * took), _EFFECTS_GATHER_AT_MOST_S
            )
        self.in_flight = None
        self.spec.snapshots.settled(self)
        reach(self.spec.role, "after_settle")

    def drain(self) -> None:
        """Make no more cuts but those that take in what effects still give."""
        self._draining = True
        for buffer in self.buffers.values():
            buffer.clear()

    def close(self) -> None:
        """Let go of Kafka; the rows stay, in case the partition comes back."""
        self.spec.snapshots.release(self.partition)
        self._close_plan()
        for buffer in self.buffers.values():
            buffer.clear()

    def _close_plan(self) -> None:
        if self._plan is not None:
            self._plan.close()
            self._plan = None
