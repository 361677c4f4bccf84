"""An event loop in virtual time: where nothing is ready, the clock leaps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

START_MS = 1_700_000_000_000


class VirtualTime:
    """Seconds since the beginning, and the clocks of ours that show them."""

    def __init__(self) -> None:
        self.s = 0.0

    @property
    def ms(self) -> int:
        """The wall clock, UTC ms."""
        return START_MS + int(self.s * 1000)

    def spend(self, seconds: float) -> None:
        """Compute for so long: the event loop stands still meanwhile."""
        self.s += seconds

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let every clock that DELIVER reads show it."""
        shown = SimpleNamespace(
            time_ns=lambda: self.ms * 1_000_000,
            clock_gettime=lambda _: self.s,
        )
        with pytest.MonkeyPatch.context() as patch:
            for module in ("cut", "line", "turns"):
                patch.setattr(f"streams.engine.{module}.time", shown)
            patch.setattr("streams.sender.time_ns", shown.time_ns)
            yield


class _Leaping(selectors.SelectSelector):
    """Waits for nothing: the time that it should have waited has passed."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is ready, and no timer is set: this would wait for ever")
        self._time.spend(max(0.0, timeout))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """One thread and no I/O: what is given to an executor is done at once."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(_Leaping(time))
        self._virtual = time

    def time(self) -> float:
        return self._virtual.s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def run(story: Callable[[VirtualTime], Coroutine[Any, Any, None]]) -> None:
    """Run a story, told its time, to its end."""
    time = VirtualTime()
    with time.shown(), asyncio.Runner(loop_factory=lambda: VirtualLoop(time)) as runner:
        runner.run(story(time))
