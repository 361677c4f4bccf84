"""How lanes stand: what DELIVER's last cuts say of each, beside what is set for it."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from schemas import codec, topics
from schemas.lanes import Lane, Lanes
from schemas.profile import DAY_MS, SECOND_MS
from streams.engine.journal import last_entry
from streams.engine.kafka import Client

_NEVER: Final = 0


@dataclass(frozen=True)
class LaneStanding:
    """A lane as it is `at` a time, by the last cut of its partition; UTC ms, and messages a second.

    `refused` of `told` answers on the day were deferrals of the lane's. `stopped_until` is None where it is
    not stopped, and `probing` says that nothing was taken since it was. `allowed` is what the warm-up lets go
    on the day, None without one.
    """

    lane: str
    at: int
    set: Lane
    rate: float
    tokens: int
    waiting: int
    told: int
    refused: int
    stopped_until: int | None
    probing: bool
    warm_day: int
    begun: int
    allowed: float | None

    @property
    def empty_at(self) -> int | None:
        """When all that waits will have gone at this rate; None where nothing waits."""
        if not self.waiting:
            return None
        begins = max(self.at, self.stopped_until or _NEVER)
        return begins + round(self.waiting / self.rate * SECOND_MS)


def standings(client: Client, partitions: int, lanes: Lanes, now: int) -> list[LaneStanding]:
    """Every lane that anything was to be sent on, by name, at `now`. Raises `KafkaUnavailable`."""
    found = []
    with closing(client.reader()) as consumer:
        for partition in range(partitions):
            last = last_entry(consumer, topics.DELIVER_JOURNAL.name, partition)
            if last is not None:
                entry = last[0]
                at = max(now, entry.now)
                found += [_of(each, at, lanes) for each in entry.figures.get("lanes", ())]
    return sorted(found, key=lambda each: each.lane)


def _of(told: dict[str, Any], at: int, lanes: Lanes) -> LaneStanding:
    stopped_until, today = codec.millis(told["stopped_until"]), told["day"] == at // DAY_MS
    return LaneStanding(
        told["lane"],
        at,
        lanes.of(told["lane"]),
        told["rate"],
        told["tokens"],
        told["waiting"],
        told["told"] if today else 0,
        told["refused"] if today else 0,
        stopped_until if stopped_until > at else None,
        told["stops"] > 0,
        told["warm_days"] + 1,
        told["begun"] if today else 0,
        told["allowed"] or None,
    )
