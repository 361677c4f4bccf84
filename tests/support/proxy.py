"""A TCP proxy that delays, throttles, stops and cuts what passes through it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

_CHUNK = 65_536
_HOST = "127.0.0.1"


class Proxy:
    """Passes connections at `port` on to a port of this machine; lives in a thread with its own event loop.

    `delay` is in seconds for each piece in each direction, `rate` in bytes per second for each connection
    and direction, None for as fast as it goes. Both may be set at any time.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.delay = 0.0
        self.rate: float | None = None
        self._refusing = False
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def stall(self) -> None:
        """Let nothing through any more, and close nothing: as if a cable were out."""
        self._call(self._passing.clear)

    def cut(self) -> None:
        """Close every connection, and each new one at once."""

        self._call(self._hang_up)

    def heal(self) -> None:
        """Let everything through again, at once."""

        def heal() -> None:
            self.delay, self.rate, self._refusing = 0.0, None, False
            self._passing.set()

        self._call(heal)

    def _start(self) -> None:
        self._thread.start()
        self._wait(self._listen())

    def _stop(self) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, change: Callable[[], None]) -> None:
        async def called() -> None:
            change()

        self._wait(called())

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(30)

    async def _listen(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, _HOST, self.port)

    async def _close(self) -> None:
        self._server.close()
        self._hang_up()
        self._passing.set()
        await asyncio.gather(*self._tasks)

    def _hang_up(self) -> None:
        self._refusing = True
        for writer in self._open:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._refusing:
            writer.transport.abort()
            return
        with suppress(OSError):
            onward_reader, onward_writer = await asyncio.open_connection(_HOST, self.target)
            self._open |= {writer, onward_writer}
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, onward_writer))
                    both.create_task(self._pump(onward_reader, writer))
            finally:
                self._open -= {writer, onward_writer}
                writer.transport.abort()
                onward_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await asyncio.sleep(self.delay + (len(data) / self.rate if self.rate else 0.0))
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextmanager
def standing(port: int, target: int) -> Iterator[Proxy]:
    """A proxy before a port, until the `with` ends."""
    proxy = Proxy(port, target)
    proxy._start()
    try:
        yield proxy
    finally:
        proxy._stop()
