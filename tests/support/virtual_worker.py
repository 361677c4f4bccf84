"""One process of DELIVER in virtual time: real lines, handler, table and sender, no Kafka and no SMTP.

A worker that is killed loses what it held in memory, at any of its awaits or at a failpoint; what has
committed stays, and so does what the server has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from models.order import Ranks
from schemas import dispatch, topics
from schemas.scopes import Scopes
from sinks.transports import Message, Outcome
from streams.agents.deliver import APP, MOST_AT_ONCE, Deliverer
from streams.agents.dispatches import DispatchStore
from streams.engine import failpoint
from streams.engine.batch import Batch
from streams.engine.cut import Cut
from streams.engine.failpoint import reach
from streams.engine.line import Line, Spec
from streams.engine.transaction import Fenced
from streams.engine.turns import turns
from streams.sender import Sender
from tests.support.sending import prepare

if TYPE_CHECKING:
    from tests.support.virtual_deliver import Cluster

SOURCES = tuple(topic.name for topic in topics.DISPATCH_SOURCES)
_TICK_S = 0.02
_FETCHED = 2000  # records of one topic's partition at a time
_TARGET_S = 0.05
# What work costs on one core: about what was measured, and the same in every run.
_ROW_S, _OUTPUT_S = 45e-6, 5e-6  # of handling a cut, while which the event loop stands still
_PASSES = 3  # of the event loop between two turns, about: Faust's queue and its agent take them
_COMMIT_S, _WRITTEN_S = 0.008, 8e-6  # of a transaction, and each record that it writes

_worker: ContextVar[Worker | None] = ContextVar("worker", default=None)


class Killed(BaseException):
    """The worker that reached this is no more."""


def arm(point: str, visit: int) -> None:
    """Let the worker that comes to a failpoint for the n-th time from now on die there."""
    disarm()
    failpoint._armed[f"deliver.{point}"] = ("kill", visit)


def disarm() -> None:
    """Let nobody die any more."""
    failpoint._visits.clear()
    failpoint._armed.clear()


def die(name: str, action: str) -> None:
    """What an armed failpoint does."""
    worker = _worker.get()
    assert worker is not None
    worker.kill()
    raise Killed(name)


def of_its_worker(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Future[Any]:
    """Make a task, of the worker in whose task it is made; see `set_task_factory`."""
    task = asyncio.Task(work, loop=loop, **more)
    worker = _worker.get()
    if worker is not None:
        worker.tasks.add(task)
        task.add_done_callback(worker.ended)
    return task


class Worker:
    """A process of DELIVER: what `CutConsumer` does, with its own sender and the lines of what it owns."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.dead = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self.owned: set[int] = set()
        self.lines: dict[int, Line] = {}
        lanes, campaigns = cluster.lanes, cluster.policy.campaigns
        self.sender = Sender(
            lanes,
            cluster.replies,
            Ranks.of(cluster.policy),
            Scopes.of(campaigns),
            prepare,
            lambda *_: _Connections(self),
        )
        self.spec = Spec(
            APP,
            cast(Any, cluster.kafka),
            SOURCES,
            topics.DISPATCHES.name,
            topics.DELIVER_JOURNAL.name,
            False,
            Deliverer(cluster.policy, lanes, cluster.replies),
            MOST_AT_ONCE,
            _TARGET_S,
            DispatchStore,
            self.sender,
            layouts=dispatch.LAYOUTS,
        )
        self._finishing: dict[int, asyncio.Task[None]] = {}
        self.begin(self._run())

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of this process."""
        token = _worker.set(self)
        try:
            return asyncio.create_task(work)
        finally:
            _worker.reset(token)

    def ended(self, task: asyncio.Task[Any]) -> None:
        """Note the end of a task of this process: it dies, or nothing must have failed."""
        self.tasks.discard(task)
        if not task.cancelled():
            self.cluster.failed(task.exception())

    def kill(self) -> None:
        """End now, wherever each task stands."""
        if self.dead:
            return
        self.dead = True
        self.cluster.workers.remove(self)
        self.cluster.deaths += 1
        for partition in self.owned:
            self.cluster.orphans |= self.cluster.claimed(partition)
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel()

    async def take(self, *partitions: int) -> None:
        """Take partitions over; the worker may die of it."""
        self.owned.update(partitions)
        if partitions:
            await asyncio.wait([self.begin(self._take(partition)) for partition in partitions])

    async def _take(self, partition: int) -> None:
        kafka, control = self.cluster.kafka, self.cluster.control
        kafka.logs[topics.DISPATCHES.name, partition].compact()
        line = Line.take_over(self.spec, partition, None, control, lambda: None)
        await asyncio.sleep(self.cluster.chance.uniform(0.05, 0.3))
        reach("deliver", "after_seek")
        self.lines[partition] = line

    async def leave(self, *partitions: int) -> None:
        """Give partitions up, as at a rebalance; the worker may die of it."""
        await asyncio.wait([self.begin(self._leave(partition)) for partition in partitions])

    async def _leave(self, partition: int) -> None:
        reach("deliver", "on_revoke")
        line = self.lines.pop(partition)
        if finishing := self._finishing.get(partition):
            await finishing
        if not line.fenced:
            line.drain()
            assert await self.sender.drain(line.partition, 10.0)
            cut = line.next_cut(self.cluster.control, self.cluster.time.ms)
            if cut is not None:
                self._handle([(line, cut)])
                await self._finish(line)
        line.released = True
        self.sender.release(partition)
        self.owned.discard(partition)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for line in self.lines.values():
                self._fetch(line)
            control = self.cluster.control
            self.sender.observe(control)
            # One that was given up meanwhile makes no cut.
            lines = (line for line in list(self.lines.values()) if line.partition in self.lines)
            while some := turns(lines, control):
                for cuts in some:
                    reach("deliver", "before_handle")
                    self._handle([(self.lines[cut.partition], cut) for cut in cuts])
                    for cut in cuts:
                        line = self.lines[cut.partition]
                        self._finishing[cut.partition] = self.begin(self._finish(line))
                    for _ in range(_PASSES):
                        await asyncio.sleep(0)

    def _fetch(self, line: Line) -> None:
        fetched = False
        for topic in SOURCES:
            log, buffer = self.cluster.kafka.logs[topic, line.partition], line.buffers[topic]
            while line.wants(topic):
                start = buffer.end if buffer else line.next_offsets[topic]
                records = log.read(start, _FETCHED)
                line.buffer(topic, Batch.of(records))
                if topic in line.cold:
                    line.warm(topic, line.next_offsets[topic] if records else log.end)
                fetched |= bool(records)
                if len(records) < _FETCHED:
                    break
            line.held = line.held - {topic} if line.wants(topic) else line.held | {topic}
        if fetched:
            reach("deliver", "after_fetch")

    def _handle(self, some: Sequence[tuple[Line, Cut]]) -> None:
        found = self.spec.handler.handle([(cut, line.store) for line, cut in some])
        for (line, cut), handled in zip(some, found, strict=True):
            self.cluster.time.spend(_ROW_S * len(handled.keys) + _OUTPUT_S * len(handled.outputs))
            line.stage(cut, handled)
            for watch in self.cluster.watches:
                watch(cut)

    async def _finish(self, line: Line) -> None:
        staged = line._staged
        seconds = _COMMIT_S + _WRITTEN_S * (len(staged.outputs) + len(staged.rows))
        seconds *= self.cluster.chance.uniform(0.7, 1.3)
        await asyncio.sleep(seconds / 2)
        try:
            line.commit()
        except Fenced:
            line.fenced = True
            return
        await asyncio.sleep(seconds / 2)
        if not line.released:
            line.settled()


class _Connections:
    """A worker's way to the server; it ends with the worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        if self._worker.dead:
            raise asyncio.CancelledError
        return await self._worker.cluster.server.send(message, still_wanted)

    async def close(self) -> None: ...
