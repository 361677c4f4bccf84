"""When a worker gets nowhere, and when it only looks so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable

import pytest

from streams.engine.watchdog import Stalled, Wait, Waited, Waits, Watchdog

PATIENCE_S = 120.0


def _cut(partition: int = 0, mark: Hashable = 7) -> Wait:
    return Wait(partition, "cut 8 to be committed", mark)


def _fetch(topic: str = "clicks", offset: int = 5) -> Wait:
    return Wait(0, f"records of {topic}", offset, topic, offset)


class Watched:
    """A watchdog over waits that a test tells it."""

    def __init__(self) -> None:
        self.answers = True
        self.holds: bool | None = True
        self.ended: list[BaseException] = []
        self.asked: list[tuple[str, int, int]] = []
        self.dog = Watchdog(PATIENCE_S, lambda: (), lambda _: self.answers, self._holds, self.ended.append)

    def _holds(self, *place: object) -> bool | None:
        self.asked.append(place)  # type: ignore[arg-type]
        return self.holds

    def live(self, seconds: int, *waits: Wait) -> None:
        for _ in range(seconds):
            if not self.ended:
                self.dog.look(waits, 1.0)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_wait_without_a_step_forward_ends_the_worker_and_names_its_cause(watched: Watched) -> None:
    watched.live(120, _cut(3))
    assert watched.ended == []
    watched.live(1, _cut(3))
    (error,) = watched.ended
    assert isinstance(error, Stalled)
    assert "partition 3 has waited 120 s for cut 8 to be committed" in str(error)


def test_the_error_shows_where_other_threads_stand(watched: Watched) -> None:
    leave = threading.Event()
    hanging = threading.Thread(target=leave.wait, name="hanging-here")
    hanging.start()
    watched.live(121, _cut())
    leave.set()
    hanging.join()
    assert any("hanging-here" in note for note in watched.ended[0].__notes__)


def test_any_step_forward_begins_a_new_wait(watched: Watched) -> None:
    for number in range(5):
        watched.live(119, _cut(mark=number))
    assert watched.ended == []


def test_a_partition_that_gets_on_does_not_excuse_one_that_does_not(watched: Watched) -> None:
    for number in range(121):
        watched.live(1, _cut(0, number), _cut(1, 0))
    assert "partition 1" in str(watched.ended[0])


def test_a_topic_that_gets_on_does_not_excuse_one_that_does_not(watched: Watched) -> None:
    for number in range(121):
        watched.live(1, _fetch("clicks", number), _fetch("consent", 5))
    assert watched.asked == [("consent", 0, 5)]
    assert "records of consent" in str(watched.ended[0])


def test_who_waits_for_nothing_is_let_be(watched: Watched) -> None:
    watched.live(60, _cut())
    watched.live(1)
    watched.live(100, _cut())
    assert watched.ended == []


def test_while_kafka_is_silent_no_wait_grows(watched: Watched) -> None:
    watched.live(60, _cut())
    watched.answers = False
    watched.live(1000, _cut())
    assert watched.ended == []
    watched.answers = True
    watched.live(61, _cut())
    assert len(watched.ended) == 1


def test_a_blocked_loop_is_not_excused_by_kafka(watched: Watched) -> None:
    watched.answers = False
    watched.live(121, Wait(None, "its event loop, which is blocked", 0, on_kafka=False))
    assert "the worker has waited 120 s for its event loop" in str(watched.ended[0])


@pytest.mark.parametrize("holds", [False, None])
def test_offsets_without_a_record_are_no_lag(watched: Watched, holds: bool | None) -> None:
    watched.holds = holds
    watched.live(300, _fetch())
    assert watched.ended == []
    assert watched.asked[0] == ("clicks", 0, 5)


def test_what_is_overdue_is_told_from_half_of_the_patience_on(watched: Watched) -> None:
    watched.live(61, _cut())
    assert watched.dog.overdue() == []
    watched.live(1, _cut())
    assert watched.dog.overdue() == ["partition 0 has waited 61 s for cut 8 to be committed"]


def test_the_longest_wait_comes_first() -> None:
    waits = Waits()
    waits.look([_cut(0)], 1.0, lambda _: True)
    found = waits.look([_cut(1), _cut(0)], 1.0, lambda _: True)
    assert found == [Waited(_cut(0), 1.0), Waited(_cut(1), 0.0)]


def test_a_loop_that_is_blocked_is_noticed_from_the_thread() -> None:
    ended = threading.Event()
    found: list[BaseException] = []

    def end(error: BaseException) -> None:
        found.append(error)
        dog.stop()
        ended.set()

    dog = Watchdog(0.3, lambda: (), lambda _: True, lambda *_: None, end)

    async def work() -> None:
        dog.start(asyncio.get_running_loop())
        ended.wait(30)  # blocks the loop

    asyncio.run(work())
    assert isinstance(found[0], Stalled)


def test_a_worker_that_can_no_longer_be_watched_ends() -> None:
    ended = threading.Event()
    found: list[BaseException] = []

    def end(error: BaseException) -> None:
        found.append(error)
        ended.set()

    def find() -> list[Wait]:
        raise ZeroDivisionError

    dog = Watchdog(0.3, find, lambda _: True, lambda *_: None, end)

    async def work() -> None:
        dog.start(asyncio.get_running_loop())
        assert await asyncio.to_thread(ended.wait, 30)

    asyncio.run(work())
    assert isinstance(found[0], ZeroDivisionError)
