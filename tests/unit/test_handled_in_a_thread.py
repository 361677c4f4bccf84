"""Cuts of a line with effects: handled in a thread, staged once or not at all, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from streams.engine.consumer import CutConsumer
from streams.metrics import Metrics


class Slow:
    """A handler that waits, when it is first asked, until it may answer."""

    def __init__(self) -> None:
        self.asked, self.may_answer, self.calls = threading.Event(), threading.Event(), 0

    def handle(self, turn: Sequence[tuple[Any, Any]]) -> list[str]:
        self.calls += 1
        if self.calls == 1:
            self.asked.set()
            assert self.may_answer.wait(20)
        return [f"handled {cut.number}" for cut, _ in turn]


class OneLine:
    """As much of a line as the consumer asks of one whose first cut is made."""

    def __init__(self) -> None:
        self.partition, self.number, self.store = 0, 0, None
        self.in_flight: Any = SimpleNamespace(partition=0, number=1)
        self.clean, self.fenced, self.released = True, False, False
        self.log: list[str] = []

    def stage(self, cut: Any, handled: str) -> None:
        self.number, self.clean = cut.number, False
        self.log.append(handled)

    def following(self, cut: Any) -> None:
        return None

    def commit(self) -> list[Any]:
        self.clean = True
        self.log.append("committed")
        return []

    def settled(self) -> None:
        self.in_flight = None
        self.log.append("settled")

    def drain(self) -> None:
        self.log.append("drains")

    def next_cut(self, control: Any, wall: int) -> None:
        return None


class Quiet:
    """Effects that have nothing under way."""

    async def drain(self, partition: int, timeout: float) -> bool:
        return True

    def release(self, partition: int) -> None: ...


Story = Callable[[CutConsumer, OneLine, Slow, "asyncio.Task[None]"], Coroutine[Any, Any, None]]


def in_the_thread(story: Story) -> None:
    """Run a story that begins while the line's first cut is being handled."""

    async def run() -> None:
        consumer, line, slow = CutConsumer.__new__(CutConsumer), OneLine(), Slow()
        parts: dict[str, Any] = {
            "spec": SimpleNamespace(role="deliver", handler=slow, effects=Quiet()),
            "control": SimpleNamespace(poll=lambda: None),
            "metrics": Metrics(),
            "feed": SimpleNamespace(end=lambda lines: None),
            "lines": {0: line},
            "_under_way": set(),
            "_news": asyncio.Event(),
            "_landed": asyncio.Event(),
            "_handling": ThreadPoolExecutor(1),
            "_committing": ThreadPoolExecutor(1),
        }
        vars(consumer).update(parts)
        agent = asyncio.create_task(consumer.handle([line.in_flight]))
        try:
            await asyncio.to_thread(slow.asked.wait, 20)
            await story(consumer, line, slow, agent)
        finally:
            slow.may_answer.set()

    asyncio.run(run())


def test_no_cut_is_made_while_one_is_handled_and_the_event_loop_goes_on() -> None:
    async def story(consumer: CutConsumer, line: OneLine, slow: Slow, _: asyncio.Task[None]) -> None:
        assert consumer.handles()
        assert not line.log
        slow.may_answer.set()
        while line.in_flight is not None:
            await asyncio.sleep(0.001)
        assert line.log == ["handled 1", "committed", "settled"]
        assert not consumer.handles()

    in_the_thread(story)


def test_a_partition_that_is_taken_away_meanwhile_has_its_cut_handled_again_and_staged_once() -> None:
    async def story(consumer: CutConsumer, line: OneLine, slow: Slow, _: asyncio.Task[None]) -> None:
        settling = asyncio.create_task(consumer.wait_empty())
        await asyncio.sleep(0.01)
        slow.may_answer.set()
        await settling
        assert slow.calls == 2
        assert line.log == ["handled 1", "committed", "settled", "drains"]
        assert line.released

    in_the_thread(story)


def test_a_cut_is_finished_although_its_agent_is_cancelled() -> None:
    async def story(consumer: CutConsumer, line: OneLine, slow: Slow, agent: asyncio.Task[None]) -> None:
        agent.cancel()
        await asyncio.wait([agent])
        slow.may_answer.set()
        while line.in_flight is not None:
            await asyncio.sleep(0.001)
        assert (slow.calls, line.log) == (1, ["handled 1", "committed", "settled"])

    in_the_thread(story)
