"""The Faust consumer whose message is a turn of cuts. Only here and in `app.py` are Faust's private names.

Faust and aiokafka keep group membership and rebalancing; the feed fetches; offsets, order and commits are the
lines'.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NoReturn, cast

import aiokafka
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams import events
from streams.engine.control import ControlReader
from streams.engine.cut import Cut, Effects, uptime
from streams.engine.failpoint import reach
from streams.engine.feed import Feed
from streams.engine.journal import Entry
from streams.engine.kafka import KafkaUnavailable
from streams.engine.line import Line, Spec
from streams.engine.transaction import Fenced
from streams.engine.turns import should_wait, turns
from streams.metrics import Metrics

_log = structlog.get_logger()
_DRAIN_S: Final = 20.0
_EFFECTS_DRAIN_S: Final = 10.0
_TICK_S: Final = 0.02  # what is due, control and effects are looked after so often, news or none
_COMPANY_S: Final = 0.04  # for so long after a turn the next may wait for lines that commit
_COMMITS_AT_ONCE: Final = 48
_TAKEOVERS_AT_ONCE: Final = 4
_EX_SOFTWARE: Final = 70


def end_worker(error: BaseException) -> NoReturn:
    """End the process at once: nothing uncommitted is visible, and a half-stopped worker is worse."""
    _log.critical(events.WORKER_FAILED, error=str(error), error_kind=type(error).__name__, exc_info=error)
    os._exit(_EX_SOFTWARE)


class CutThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread: it keeps the membership, and a partition number together; it reads nothing."""

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust sets its co-partitioning assignor only together with its own tables; it is read at start,
        # which comes later.
        self._assignor = self.app.assignor
        consumer._partition_assignment_strategy = [self._assignor]
        return consumer


class CutConsumer(driver.Consumer):
    """Makes cuts of what it fetches; its lines are the partition numbers that this worker owns."""

    lines: dict[int, Line]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        transport = cast("CutTransport", self.transport)
        self.spec: Spec = transport.spec
        self.control = ControlReader(self.spec.client)
        self.metrics = transport.metrics
        self.lines = {}
        self._kept: dict[int, Line] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._fenced_since: dict[int, float] = {}
        self._committed: dict[TP, int] = {}
        self._taking_over: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._news = asyncio.Event()
        self._landed = asyncio.Event()  # a commit has
        self._turned_at = 0.0  # of `uptime`; when the last turn was handled
        self.feed = Feed(self.spec.client, self._wake)
        self._committing = ThreadPoolExecutor(_COMMITS_AT_ONCE, "commit")
        self._sought = 0  # the assignment that was last acted upon
        self._assignments = 0  # grows at every revocation: what was begun before it must not go live after it

    def _new_consumer_thread(self) -> CutThread:
        return CutThread(self, loop=self.loop, beacon=self.beacon)

    def _wake(self) -> None:
        """Look at the lines again; from any thread, also of a loop that has just closed."""
        if not self._news.is_set():  # else what has come is taken at the turn that is due anyway
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._news.set)

    # Membership

    async def on_start(self) -> None:
        """Start the feed."""
        await super().on_start()
        self.feed.start()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish what is in flight, make no new cut; rows are kept in case the partition stays."""
        self.stop_flow()
        reach(self.spec.role, "on_revoke")
        # A cut that is made and not yet handled finds no line any more, and nothing of it is visible.
        self._assignments += 1
        lines, self.lines = self.lines, {}
        self.feed.end(lines)
        await self._settle(lines)
        for partition, line in lines.items():
            line.released = True  # a commit that ends later than this is the journal's to tell of
            line.close()
            if line.clean and not line.fenced:
                self._kept[partition] = line
        self._fenced_since.clear()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Let go of the rows where nothing is assigned: Faust does not ask for a seek then."""
        if not assigned:
            self._sought = self._assignments
            self._kept.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Take over the assigned partition numbers; each goes live as soon as its line stands."""
        owned = {tp.partition for tp in self.assignment() if tp.topic in self.spec.sources}
        self._sought = self._assignments
        await self._thread.call_thread(self._rest)
        for partition in self._kept.keys() - owned:
            del self._kept[partition]
            _log.info(events.LINE_DROPPED, partition=partition)
        slots = asyncio.Semaphore(_TAKEOVERS_AT_ONCE)
        for partition in sorted(owned - self.lines.keys()):
            self._begin(self._take_over(partition, slots, self._assignments))

    async def _take_over(self, partition: int, slots: asyncio.Semaphore, assignment: int) -> None:
        try:
            # One at a time for a partition: a late take-over must not fence the line of a newer one.
            async with self._taking_over[partition], slots:
                if assignment != self._assignments:
                    return
                kept = self._kept.pop(partition, None)
                control = self.control.poll()
                step = cast(Any, self.app).signs.recovering  # of `CutApp`
                line = await asyncio.to_thread(Line.take_over, self.spec, partition, kept, control, step)
            if assignment == self._assignments:
                line.reading = self.feed.begin(partition, line.next_offsets)
                reach(self.spec.role, "after_seek")
                self.lines[partition] = line
                self._fenced_since.pop(partition, None)
            elif self._sought < self._assignments:
                self._kept[partition] = line  # the partition may stay; the coming assignment tells
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # as in `handle`
            if assignment == self._assignments:
                end_worker(error)
            _log.info(events.LINE_DROPPED, partition=partition, error=str(error))

    async def _rest(self) -> None:
        """Let Faust's own consumer fetch nothing: the feed does. Runs in the consumer's thread."""
        consumer = self._thread._ensure_consumer()
        consumer.pause(*(TopicPartition(*tp) for tp in consumer.assignment()))

    async def wait_empty(self) -> None:
        """Finish what is in flight and make no new cut: Faust asks for it before it stops."""
        lines, self.lines = self.lines, {}
        self.feed.end(lines)
        await self._settle(lines)

    async def _settle(self, lines: Mapping[int, Line]) -> None:
        """Wait until no commit and no take-over is under way, then take in what effects still give."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=_DRAIN_S)
        if self.spec.effects is not None:
            await asyncio.gather(*(self._drain(self.spec.effects, line) for line in lines.values()))

    async def _drain(self, effects: Effects, line: Line) -> None:
        """End a line's effects, and write down what became of them in a last cut."""
        try:
            if line.clean and not line.fenced:
                # Made and never handled: what came back is in it. One that has just committed is no such cut.
                if line.in_flight is not None and line.in_flight.number > line.number:
                    await self._finish_now(line, line.in_flight)
                line.drain()
                await effects.drain(line.partition, _EFFECTS_DRAIN_S)
                cut = line.next_cut(self.control.poll(), time.time_ns() // 1_000_000)
                if cut is not None:
                    await self._finish_now(line, cut)
        except Fenced:
            line.fenced = True
        except Exception as error:
            end_worker(error)
        line.released = True
        effects.release(line.partition)

    async def _finish_now(self, line: Line, cut: Cut) -> None:
        [handled] = self.spec.handler.handle([(cut, line.store)])
        line.stage(cut, handled)
        began = time.perf_counter()
        self.metrics.committed(await self._commit_of(line), time.perf_counter() - began)
        line.settled()

    async def _commit_of(self, line: Line) -> list[Entry]:
        return await asyncio.get_running_loop().run_in_executor(self._committing, line.commit)

    # Cuts

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Take in what has come and yield the cuts of all lines that have cause for one, turn by turn."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout)
        self._news.clear()
        self._stay_a_member()
        self._take_in()
        control = self.control.poll()
        if control.clock.mode != "plan":
            await self._gather_company()
        generation = self.app.consumer_generation_id
        if self.spec.effects is not None:
            self.spec.effects.observe(control)
        self.metrics.serving(len(self.lines))
        lines = iter(list(self.lines.values()))
        while self._goes_on(generation) and (some := turns(lines, control)):
            for cuts in some:
                if not self._goes_on(generation):
                    return
                yield self._message(cuts, generation)
        self._end_if_fenced_for_long()

    def _goes_on(self, generation: int) -> bool:
        """Whether the lines are still those of this generation, and may make cuts."""
        return bool(self.flow_active) and self.app.consumer_generation_id == generation

    async def _gather_company(self) -> None:
        """While little waits, let the lines that commit join the next turn."""
        until = self._turned_at + _COMPANY_S
        while should_wait(self.lines.values()) and (left := until - uptime()) > 0:
            self._landed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._landed.wait(), left)
            self._take_in()

    def _stay_a_member(self) -> None:
        """Tell aiokafka that this loop turns: a consumer that does not fetch for long leaves its group."""
        with self._thread._ensure_consumer()._subscription.fetch_context():
            pass

    def _take_in(self) -> None:
        """Give the lines what the feed has read, and tell it what to read no more for now, or again."""
        try:
            arrived = self.feed.take()
        except KafkaUnavailable as error:
            end_worker(error)
        for part in arrived:
            line = self.lines.get(part.partition)
            if line is None or line.reading != part.reading:
                continue
            line.buffer(part.topic, part.batch)
            if part.topic in line.cold:
                line.warm(part.topic, line.next_offsets[part.topic] if part.end is None else part.end)
        if arrived:
            reach(self.spec.role, "after_fetch")
        hold: list[tuple[str, int]] = []
        go_on: list[tuple[str, int]] = []
        for partition, line in self.lines.items():
            for topic in self.spec.sources:
                held = topic in line.held
                if line.wants(topic) == held:
                    (go_on if held else hold).append((topic, partition))
                    line.held ^= {topic}
        if hold:
            self.feed.hold(hold)
        if go_on:
            self.feed.go_on(go_on)

    def _message(self, cuts: Sequence[Cut], generation: int) -> tuple[TP, ConsumerMessage]:
        cut = cuts[0]
        tp = TP(self.spec.sources[0], cut.partition)
        content: Any = cuts  # Faust hands a message's value on as it is
        message = ConsumerMessage(
            tp.topic,
            tp.partition,
            cut.number,
            cut.now / 1000,
            0,
            None,
            b"",
            content,
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )
        return tp, message

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                async for _, message in self.getmany(_TICK_S):
                    await self.wait_first(self.callback(message), self.suspend_flow.wait())
        except Exception as error:
            if not self.app.should_stop:
                end_worker(error)

    # Handling

    async def handle(self, cuts: Sequence[Cut]) -> None:
        """Handle the cuts of a turn and commit each off the loop; its line goes on when that is done."""
        # Of a partition that has moved since the cut was made nothing will be visible.
        mine = [
            (line, cut)
            for cut in cuts
            if (line := self.lines.get(cut.partition)) is not None and line.in_flight is cut
        ]
        if not mine:
            return
        began = time.perf_counter()
        reach(self.spec.role, "before_handle")
        try:
            found = self.spec.handler.handle([(cut, line.store) for line, cut in mine])
            for (line, cut), handled in zip(mine, found, strict=True):
                line.stage(cut, handled)
                self._follow(line, cut)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of polars is no Exception, and must not stall the line
            end_worker(error)
        self.metrics.handled(time.perf_counter() - began)
        self._turned_at = uptime()
        for line, _ in mine:
            self._begin(self._finish(line))

    def _follow(self, line: Line, cut: Cut) -> None:
        """Handle the planned cuts after `cut` that stand in its transaction."""
        planned = line.following(cut)
        while planned is not None:
            [handled] = self.spec.handler.handle([(planned, line.store)])
            line.stage(planned, handled)
            planned = line.following(planned)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _finish(self, line: Line) -> None:
        try:
            began = time.perf_counter()
            entries = await self._commit_of(line)
            if not line.released:
                line.settled()
            self._news.set()
            self._landed.set()
            self.metrics.committed(entries, time.perf_counter() - began)
        except Fenced:
            line.fenced = True
            if self.lines.get(line.partition) is line:
                self._fenced_since[line.partition] = time.monotonic()
            _log.warning(events.LINE_FENCED, partition=line.partition, cut=line.number)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # as in `handle`
            if self.lines.get(line.partition) is line:
                end_worker(error)
            # The partition was lost meanwhile: its journal knows whether this was committed.
            _log.warning(events.LINE_DROPPED, partition=line.partition, error=str(error))

    def _end_if_fenced_for_long(self) -> None:
        """A fenced line that no rebalance took away is owned twice: end this worker, the other goes on."""
        patience = 2 * self.app.conf.broker_session_timeout
        for partition, since in self._fenced_since.items():
            if time.monotonic() - since > patience:
                end_worker(Fenced(f"partition {partition} is owned here and was fenced by another owner"))

    # Offsets: the journal is the offset store; the group's are for lag tools

    def ack(self, message: ConsumerMessage) -> bool:  # type: ignore[override]
        """Forget the message; nothing is stored."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Tell the group how far the lines are, for lag tools only."""
        places = {
            TP(tally.topic, partition): tally.next_offset
            for partition, line in self.lines.items()
            if line.committed is not None
            for tally in line.committed.topics
        }
        news = {tp: offset for tp, offset in places.items() if self._committed.get(tp) != offset}
        if not news or self.app.rebalancing:
            return True
        try:
            await self._thread.call_thread(
                self._thread._ensure_consumer().commit,
                {TopicPartition(*tp): offset for tp, offset in news.items()},
            )
            self._committed.update(news)
        except KafkaError as error:
            _log.info(events.OFFSETS_NOT_COMMITTED, error=str(error))
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's stuck-consumer warnings assume its own commits; they say nothing here."""

    async def on_stop(self) -> None:
        """Drain, then leave."""
        await super().on_stop()
        await asyncio.to_thread(self.feed.close)
        self._committing.shutdown(wait=False)
        self.control.close()


class CutTransport(driver.Transport):
    """Faust's transport with the consumer of cuts."""

    Consumer = CutConsumer

    def __init__(self, spec: Spec, url: Iterable[Any], app: Any) -> None:
        super().__init__(list(url), app)
        self.spec = spec
        self.metrics = Metrics()
