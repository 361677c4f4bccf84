"""How lanes stand: what DELIVER's last cuts say of each, beside what is set for it."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from schemas import codec, topics
from schemas.lanes import Lane, Lanes
from schemas.profile import DAY_MS, SECOND_MS
from schemas.scopes import lane_scopes
from streams.engine.control import Control
from streams.engine.journal import last_entry
from streams.engine.kafka import Client


@dataclass(frozen=True)
class LaneStanding:
    """A lane `at` a time, by the last cut of its partition, made at `cut_at`; UTC ms, messages a second.

    `refused` of `told` answers on the day were deferrals of the lane's. `stopped_until` is None where it is
    not stopped, and `probing` says that nothing was taken since it was. `allowed` is what the warm-up lets go
    on the day of what is not transactional, None without one; `begun` of the day's have. `held` is whether
    an operator has paused it, its provider, or everything.
    """

    lane: str
    at: int
    cut_at: int
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
    held: bool

    @property
    def opens_at(self) -> int | None:
        """When anything may go again, by stops and days; None where it may go now."""
        stopped, day_over = self.stopped_until, (self.at // DAY_MS + 1) * DAY_MS
        if self.allowed is not None and self.begun + 1 > self.allowed:
            return max(stopped or 0, day_over)
        return stopped

    @property
    def empty_at(self) -> int | None:
        """When all that waits will have gone at this pace; None where nothing waits, or nothing goes."""
        if not self.waiting or not self.rate or self.held:
            return None
        begins, left = max(self.at, self.opens_at or 0), self.waiting
        if self.allowed is not None:
            a_day = max(1, int(self.allowed))
            left -= min(left, a_day - self.begun) if begins // DAY_MS == self.at // DAY_MS else 0
            days, left = divmod(left, a_day)
            if days or left:
                begins = (self.at // DAY_MS + 1 + days) * DAY_MS
            else:
                left = self.waiting
        return begins + round(left / self.rate * SECOND_MS)


def standings(
    client: Client, partitions: int, lanes: Lanes, control: Control, now: int
) -> list[LaneStanding]:
    """Every lane that anything was to be sent on, by name, at `now`. Raises `KafkaUnavailable`."""
    found = []
    with closing(client.reader()) as consumer:
        for partition in range(partitions):
            last = last_entry(consumer, topics.DELIVER_JOURNAL.name, partition)
            if last is not None:
                entry, at = last[0], max(now, last[0].now)
                for told in entry.figures.get("lanes", ()):
                    found.append(_of(told, entry.now, at, lanes.of(told["lane"]), control))
    return sorted(found, key=lambda each: each.lane)


def _of(told: dict[str, Any], cut_at: int, at: int, setting: Lane, control: Control) -> LaneStanding:
    stopped_until, today = codec.millis(told["stopped_until"]), told["day"] == at // DAY_MS
    allowed = max(1.0, told["allowed"] * (1 - setting.reserve)) if told["allowed"] else None
    return LaneStanding(
        told["lane"],
        at,
        cut_at,
        setting,
        told["rate"],
        told["tokens"],
        told["waiting"],
        told["told"] if today else 0,
        told["refused"] if today else 0,
        stopped_until if stopped_until > at else None,
        told["stops"] > 0,
        told["warm_days"] + 1,
        told["begun"] if today else 0,
        allowed,
        control.holds(lane_scopes(told["lane"])),
    )
