"""A replay from end to end: what is loaded, how DECIDE follows it, and how fast it went."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas import topics
from schemas.profile import HOUR_MS
from streams import control
from streams.agents.decide import APP
from streams.engine import journal
from streams.engine.control import Clock
from streams.engine.journal import Entry
from streams.engine.kafka import Client, KafkaUnavailable, bounds, bytes_of
from streams.replay import load
from streams.replay.completejourney import Produced

Progress = Callable[[int], None]
_POLL_S = 0.2
# Live events and the clock start a moment ahead, so that workers know the new clock before the first comes.
_LEAD_MS = 1500
_SETTLE_S = 2.0


class TimeHasPassed(RuntimeError):
    """The stack has already lived past the stretch: time never goes back."""


@dataclass(frozen=True)
class Rate:
    """How many events, in how many seconds."""

    events: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0


def workers_running(client: Client) -> bool:
    """Whether any DECIDE worker is a member of its group."""
    admin = AdminClient(client.config())
    future = admin.describe_consumer_groups([APP])[APP]
    try:
        return bool(future.result().members)
    except Exception as error:
        if getattr(error, "args", None) and isinstance(error.args[0], KafkaError):
            return False
        raise


def load_history(
    client: Client,
    partitions: int,
    events: Sequence[Produced],
    start: datetime,
    end: datetime,
    progress: Progress,
) -> tuple[Rate, list[int]]:
    """Produce a stretch and its plan; returns the rate and the plan's end offset per partition.

    Raises
    ------
    TimeHasPassed
        Some partition has made a cut after the stretch's beginning.
    KafkaUnavailable
        A record could not be delivered.
    """
    first, last = _hour(start), _hour(end - timedelta(milliseconds=1)) + 1
    reached = _latest(client, partitions)
    if reached is not None and reached > first * HOUR_MS:
        reached_at = datetime.fromtimestamp(reached / 1000, start.tzinfo)
        raise TimeHasPassed(
            f"this stack has lived until {reached_at:%Y-%m-%d %H:%M}, the stretch begins "
            f"{start:%Y-%m-%d %H:%M}: load a later one, or use a fresh state folder (OPPORTUNE_STATE_DIR)"
        )
    plan_id = f"{start:%Y%m%d%H}-{end:%Y%m%d%H}-{time.time_ns()}"
    control.set_clock(
        client, Clock("plan", plan_id=plan_id), "replay", f"load {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    )
    began = time.monotonic()
    ends = load.History(client, partitions, plan_id).load(events, first, last, progress)
    return Rate(len(events), time.monotonic() - began), ends


def follow(
    client: Client, ends: Sequence[int], events: int, check: Callable[[], None], progress: Progress
) -> Rate:
    """Wait until DECIDE has followed a plan to its end in every partition; `check` raises if it cannot."""
    began = time.monotonic()
    reader = JournalReader(client, len(ends), from_start=True)
    waiting = {partition: end for partition, end in enumerate(ends)}
    try:
        while waiting:
            check()
            for entry in reader.poll(_POLL_S):
                progress(sum(tally.consumed for tally in entry.topics))
                if entry.plan_offset >= waiting.get(entry.partition, entry.plan_offset + 1):
                    del waiting[entry.partition]
    finally:
        reader.close()
    return Rate(events, time.monotonic() - began)


def live(
    client: Client,
    events: Sequence[Produced],
    start: datetime,
    end: datetime,
    speed: float,
    progress: Progress,
) -> Rate:
    """Live through a stretch on the scaled clock, then stop the clock. Raises `KafkaUnavailable`."""
    origin, until = round(start.timestamp() * 1000), round(end.timestamp() * 1000)
    wall = time.time_ns() // 1_000_000 + _LEAD_MS
    control.set_clock(
        client, Clock("scaled", origin, wall, speed), "replay", f"live {start:%Y-%m-%d %H:%M} at {speed:g}x"
    )
    began = time.monotonic()
    sent = load.live(client, events, origin, wall, speed, until, progress)
    took = time.monotonic() - began
    control.set_clock(client, Clock("scaled", until, 0, 0.0), "replay", f"stopped at {end:%Y-%m-%d %H:%M}")
    time.sleep(_SETTLE_S)  # the last events are still being decided
    return Rate(sent, took)


class JournalReader:
    """Journal entries of all partitions as they come."""

    def __init__(self, client: Client, partitions: int, from_start: bool) -> None:
        self._consumer = client.follower()
        places = []
        for partition in range(partitions):
            low, end = bounds(self._consumer, topics.JOURNAL.name, partition)
            places.append(TopicPartition(topics.JOURNAL.name, partition, low if from_start else end))
        self._consumer.assign(places)

    def poll(self, timeout: float) -> list[Entry]:
        """Return what has come. Raises `KafkaUnavailable`."""
        out = []
        for message in self._consumer.consume(2000, timeout):
            error = message.error()
            if error is None:
                out.append(Entry.decode(topics.JOURNAL.name, bytes_of(message.value()) or b""))
            else:
                raise KafkaUnavailable(f"reading {topics.JOURNAL.name}: {error}")
        return out

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def _latest(client: Client, partitions: int) -> int | None:
    """Latest `now` of any partition's last cut; None before the first."""
    consumer = client.reader()
    try:
        found = [
            journal.last_entry(consumer, topics.JOURNAL.name, partition) for partition in range(partitions)
        ]
    finally:
        consumer.close()
    return max((last[0].now for last in found if last is not None), default=None)


def _hour(moment: datetime) -> int:
    return int(moment.timestamp() * 1000) // HOUR_MS
