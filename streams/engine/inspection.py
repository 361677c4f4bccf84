"""A worker looked at from outside: what it waits for, how far behind it is, whether it is ready."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from streams.engine.consumer import CutConsumer
from streams.engine.ends import Ends, Lag, Place
from streams.engine.health import Health
from streams.engine.line import Line
from streams.engine.watchdog import Wait


@dataclass
class Signs:
    """Signs of life that only the engine's inside can give."""

    recovered: int = 0  # parts of tables that are read, of all partitions

    def recovering(self) -> None:
        """Another part of a table is read, of a snapshot or a changelog."""
        self.recovered += 1


class Inspection:
    """Looks at a worker from outside: it reads, from any thread, and changes nothing."""

    def __init__(self, app: Any, signs: Signs, ends: Ends) -> None:
        self._app = app
        self._signs = signs
        self._ends = ends

    def look(self) -> list[Wait]:
        """Ask Kafka for its ends when it is time, and tell what is waited for."""
        try:
            if not self._app.should_stop:
                topics = self._consumer.spec.sources
                asked: list[Place] = [(topic, p) for p in self._assigned() for topic in topics]
                self._ends.ask(asked or [(topic, 0) for topic in topics])
                return list(self.waits())
        except Exception:
            if not self._app.should_stop:  # what is looked at is then being taken apart
                raise
        return [Wait(None, "its drain to end", 0)]

    @property
    def _consumer(self) -> CutConsumer:
        return cast(CutConsumer, self._app.consumer)

    def _lines(self) -> dict[int, Line]:
        return dict(self._consumer.lines)

    def _assigned(self) -> set[int]:
        consumer = self._consumer
        if not self._app.consumer_generation_id:
            return set()  # its thread may not even have begun
        return {tp.partition for tp in consumer.assignment() if tp.topic in consumer.spec.sources}

    def waits(self) -> Iterator[Wait]:
        """Everything that is waited for now. Nothing is where there is nothing to do."""
        app = self._app
        generation = app.consumer_generation_id
        if app.rebalancing or not generation:
            yield Wait(None, "its group to settle", (app.rebalancing_count, generation))
            return
        lines = self._lines()
        for partition in sorted(self._assigned() - lines.keys()):
            mark = (generation, len(lines), self._signs.recovered)
            yield Wait(partition, "its take-over to end", mark)
        for line in lines.values():
            yield from self._of_line(line)

    def _of_line(self, line: Line) -> Iterator[Wait]:
        cut, buffers = line.in_flight, line.buffers
        if cut is not None:
            doing = "handled" if line.clean else "committed"
            yield Wait(line.partition, f"cut {cut.number} to be {doing}", line.number)
        elif any(buffers.values()) and not self._told_by_plan():
            held = sum(map(len, buffers.values()))
            yield Wait(line.partition, f"a cut of the {held} records that it holds", line.number)
        if line.cold:
            yield Wait(line.partition, "to learn what its topics hold", (len(line.cold), line.number))
        for topic in self._consumer.spec.sources:
            if topic in line.held:
                continue  # it takes no more until a cut is made
            at = _reached(line, topic)
            if self._ends.beyond(topic, line.partition, at):
                what = f"records of {topic} from offset {at} on, which Kafka has"
                yield Wait(line.partition, what, at, topic, at)

    def _told_by_plan(self) -> bool:
        """Whether cuts wait for a plan: then records that are here may wait for their hour."""
        consumer = self._consumer
        return consumer.spec.follows_plan and consumer.control.at(sys.maxsize).clock.mode == "plan"

    def ready(self) -> Health:
        """Whether the worker serves all that it was given."""
        app = self._app
        if app.should_stop:
            return Health(["the worker drains"])
        if app.rebalancing or not app.consumer_generation_id:
            return Health(["the group is settling"])
        why = [f"partition {p} is being taken over" for p in sorted(self._assigned() - self._lines().keys())]
        why += [f"partition {p} is fenced" for p, line in sorted(self._lines().items()) if line.fenced]
        if not self._ends.answers(None):
            why.append("Kafka does not answer")
        return Health(why)

    def lags(self) -> list[Lag]:
        """How far the lines are behind."""
        wall = time.time_ns() // 1_000_000
        return [self._lag(line, wall) for line in self._lines().values()]

    def _lag(self, line: Line, wall: int) -> Lag:
        offsets = {
            topic: self._ends.beyond(topic, line.partition, _committed(line, topic))
            for topic in self._consumer.spec.sources
        }
        oldest = list(_oldest(line))
        return Lag(line.partition, offsets, max(0.0, (wall - min(oldest)) / 1000) if oldest else 0.0)


def _reached(line: Line, topic: str) -> int:
    """Offset after the last record of a topic that the line has."""
    try:
        return line.buffers[topic].end
    except IndexError:
        return line.next_offsets[topic]


def _committed(line: Line, topic: str) -> int:
    """Offset of a topic at which the last committed cut goes on."""
    cut, committed = line.in_flight, line.committed
    if cut is not None and committed is not None:
        return committed.next_offsets().get(topic, line.next_offsets[topic])
    if cut is not None and cut.records.get(topic):
        return int(cut.records[topic].offsets[0])
    return line.next_offsets[topic]


def _oldest(line: Line) -> Iterator[int]:
    """When the oldest record of each topic that is here and in no committed cut was appended, UTC ms."""
    cut = line.in_flight
    for topic, buffer in line.buffers.items():
        if cut is not None and cut.records.get(topic):
            yield int(cut.records[topic].timestamps[0])
        else:
            try:
                yield buffer.oldest
            except IndexError:
                continue
