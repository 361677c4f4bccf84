"""The watchdog: a worker that waits for something and gets nowhere is ended; a supervisor restarts it.

Heartbeats prove nothing: the consumer's thread sends them while the event loop is blocked or the agent is
dead, and the group never takes the partitions away. So a thread of its own looks at what each partition waits
for, and whether anything has changed. Time counts only while this process runs (not while it is frozen) and
while Kafka answers: a worker that Kafka keeps waiting would wait again after a restart.
"""

import asyncio
import contextvars
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_FROZEN: Final = 3.0  # looks: what passed since the last one beyond that, the process did not run
_LAST_WORDS_S: Final = 5.0
_EX_SOFTWARE: Final = 70
_NAMED: Final = 5
_LOOKS: Final = 60  # in the time of patience; at most one a second


class Stalled(RuntimeError):
    """A worker gets nowhere, and Kafka is not to blame. Restart it; what is committed stands."""


@dataclass(frozen=True)
class Wait:
    """What somebody waits for: a partition, or with None the worker.

    `mark` changes with every step forward. `topic` and `offset` name records that Kafka is thought to hold.
    """

    partition: int | None
    what: str
    mark: Hashable
    topic: str = ""
    offset: int = 0
    on_kafka: bool = True  # Kafka's silence excuses it

    @property
    def key(self) -> tuple[int | None, str]:
        """Whose wait it is: each topic of a partition has its own."""
        return self.partition, self.topic if self.on_kafka else "itself"


@dataclass(frozen=True)
class Waited:
    """A wait and for how many seconds it has been without any step forward."""

    wait: Wait
    seconds: float

    def __str__(self) -> str:
        """In words, as logs and probes say it."""
        who = "the worker" if self.wait.partition is None else f"partition {self.wait.partition}"
        return f"{who} has waited {self.seconds:.0f} s for {self.wait.what}"


class Waits:
    """How long each wait has lasted without a step forward."""

    def __init__(self) -> None:
        self._waits: dict[tuple[int | None, str], Waited] = {}

    def look(self, found: Iterable[Wait], seconds: float, counts: Callable[[Wait], bool]) -> list[Waited]:
        """Take in what is waited for now, `seconds` after the last look; returns all, the longest first.

        `counts` says whether these seconds are to be held against a wait.
        """
        waits = {}
        for wait in found:
            before = self._waits.get(wait.key)
            if before is None or before.wait.mark != wait.mark:
                waits[wait.key] = Waited(wait, 0.0)
            else:
                waits[wait.key] = Waited(wait, before.seconds + (seconds if counts(wait) else 0.0))
        self._waits = waits
        return sorted(waits.values(), key=lambda waited: -waited.seconds)

    def forget(self, wait: Wait) -> None:
        """Begin to count anew."""
        self._waits.pop(wait.key, None)


class Watchdog:
    """Looks at a worker from a thread of its own, and ends it.

    Parameters
    ----------
    patience_s
        For how long a wait may last.
    find
        What is waited for now. Called in the thread.
    answers
        Whether Kafka has answered of late, of a partition's topics or with None of anything.
    holds
        Whether Kafka holds a record of a topic's partition from an offset on; None: it cannot be told.
    end
        Ends the process with an error.
    """

    def __init__(
        self,
        patience_s: float,
        find: Callable[[], Iterable[Wait]],
        answers: Callable[[int | None], bool],
        holds: Callable[[str, int, int], bool | None],
        end: Callable[[BaseException], object],
    ) -> None:
        self.patience_s = patience_s
        self.longest: list[Waited] = []  # as of the last look
        self._find, self._answers, self._holds, self._end = find, answers, holds, end
        self._every = min(1.0, patience_s / _LOOKS)
        self._waits = Waits()
        self._turns = 0
        self._stopped = threading.Event()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch a worker whose event loop this is."""
        context = contextvars.copy_context()  # logs know their role by it
        threading.Thread(
            target=context.run, args=(self._run, loop), name="opportune-watchdog", daemon=True
        ).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            last = time.monotonic()
            while not self._stopped.wait(self._every):
                now = time.monotonic()
                passed, last = min(now - last, _FROZEN * self._every), now
                turn = Wait(None, "its event loop, which is blocked", self._turns, on_kafka=False)
                loop.call_soon_threadsafe(self._turn)
                self.look([turn, *self._find()], passed)
        except BaseException as error:
            if not (self._stopped.is_set() or loop.is_closed()):
                self._end_with(error)  # unwatched, it must not go on

    def _turn(self) -> None:
        self._turns += 1

    def look(self, found: Iterable[Wait], seconds: float) -> None:
        """Take in what is waited for `seconds` after the last look, and end the worker if it gets nowhere."""
        self.longest = self._waits.look(
            found, seconds, lambda wait: not wait.on_kafka or self._answers(wait.partition)
        )
        for waited in self.longest:
            if waited.seconds < self.patience_s:
                return
            if self._is_real(waited.wait):
                self._end_with(stalled([waited, *(w for w in self._overdue() if w is not waited)]))
                return
            self._waits.forget(waited.wait)

    def _is_real(self, wait: Wait) -> bool:
        if not wait.topic or wait.partition is None:
            return True
        return self._holds(wait.topic, wait.partition, wait.offset) is True

    def overdue(self) -> list[str]:
        """Waits that have lasted for more than half of the patience, in words."""
        return [str(waited) for waited in self._overdue()]

    def _overdue(self) -> list[Waited]:
        return [waited for waited in self.longest if waited.seconds > self.patience_s / 2]

    def _end_with(self, error: BaseException) -> None:
        # A log that cannot be written, with standard error full perhaps, must not hold it up.
        last_words = threading.Timer(_LAST_WORDS_S, os._exit, (_EX_SOFTWARE,))
        last_words.daemon = True
        last_words.start()
        self._end(error)
        last_words.cancel()


def stalled(waits: Sequence[Waited]) -> Stalled:
    """Make the error: what is waited for, the remedy, and as notes where the other threads stand."""
    named = ", ".join(map(str, waits[:_NAMED])) + (", and more" if len(waits) > _NAMED else "")
    error = Stalled(
        f"{named}, without a step forward; the worker ends, and whoever takes over goes on from the last "
        "committed cut. If it comes again, look where the threads stand in `trace`"
    )
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            stack = "".join(traceback.format_stack(frame))
            error.add_note(f"Thread {names.get(ident, ident)}:\n{stack}")
    return error
