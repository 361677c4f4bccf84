"""How fast a lane goes now: its rate, slowed by deferrals, stopped for a while, raised by a warm-up.

Additive increase, multiplicative decrease (Chiu & Jain 1989) on the share of deferrals; a breaker that opens
where nothing is taken any more, longer each time; and a plan of days for senders that are new to a provider.
Nothing here reads a clock: times are milliseconds of the deployment's, so that a lane is the same in a
simulation of two weeks as in those.
"""

from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Final, Literal

from models.lanes import Bucket
from schemas.lanes import Lane
from schemas.profile import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from schemas.replies import ReplyRule

_WINDOW_MS: Final = MINUTE_MS  # over which deferrals are counted, or until there were
_FEWEST: Final = 20  # attempts
_DECREASE: Final = 0.5
_INCREASE: Final = 0.05  # of the rate, for each window without trouble
_SETTLES_MS: Final = 10 * SECOND_MS  # what was under way when the lane slowed down says nothing new
_TRIPS: Final = 10  # deferrals in a row, and nothing taken between
_FIRST_STOP_MS: Final = MINUTE_MS
_LONGEST_STOP_MS: Final = 30 * MINUTE_MS
_SURE: Final = 2.33  # normal quantile: one look in a hundred slows a lane down by chance that is at its limit
_SET_BACK_MS: Final = HOUR_MS  # less is a clock that is corrected, not one that was set
_SPREAD_MS: Final = 8 * HOUR_MS  # a warming lane's day goes out in no less
_WHOLE: Final = 1.0


@dataclass(frozen=True)
class Heard:
    """What an answer says of the lane.

    `accepted`, or a refusal of which the message itself is the cause (`message`), says that the provider
    takes our messages; `deferred` and `slow` that it takes fewer; `suspend` that it takes none for `pause`
    ms. A provider that asks for a `pause` gets it, whatever the kind. The message itself is not tried `again`
    within so many ms.
    """

    kind: Literal["accepted", "message", "deferred", "slow", "suspend"]
    pause: int = 0
    again: int = 0

    @property
    def of_lane(self) -> bool:
        """Whether it is the lane's doing, and not the message's."""
        return self.kind not in ("accepted", "message")


def heard(rule: ReplyRule | None, transient: bool, retry_after: int = 0) -> Heard:
    """What a refusal says, by the rule for it: for a time (`transient`) or for good.

    `retry_after` is the pause in ms that the provider asks for in so many words; 0 where it does not.
    """
    if rule is None and not transient:
        return Heard("message")
    pause = max(0 if rule is None else rule.pause or 0, retry_after)
    kind = "deferred" if rule is None else rule.action
    return Heard(kind, 0 if kind == "message" else pause, pause)


@dataclass
class Standing:
    """What a lane has learnt, and carries on through restarts; times are UTC ms.

    `factor` is the share of its rate that it goes at. `attempts` and `deferrals` are of the window that began
    at `since`, `in_a_row` the deferrals since a message was taken, `stops` how often the breaker opened since
    then; nothing goes before `stopped_until`. `begun`, `told` and `refused` are of the `day` (days since
    1970): messages begun, answers, and deferrals among them; `allowed` is how many may go on it, 0 without a
    plan, and `warm_days` how often that has grown.
    """

    factor: float = _WHOLE
    since: int = 0
    attempts: int = 0
    deferrals: int = 0
    slowed_at: int = 0
    in_a_row: int = 0
    stops: int = 0
    stopped_until: int = 0
    day: int = 0
    begun: int = 0
    told: int = 0
    refused: int = 0
    allowed: float = 0.0
    warm_days: int = 0


class Pace:
    """Says when the next message of a lane may go; told of each that begins, and of each answer.

    A lane begins with an empty bucket, whoever had it before.
    """

    def __init__(self, lane: Lane, now: float, standing: Standing | None = None) -> None:
        self._lane = lane
        self._now = Standing(since=int(now)) if standing is None else replace(standing)
        self._all, self._others = self._buckets()
        self._level, self._level_of_others = self._all.emptied(now), self._others.emptied(now)
        self._turn_day(now)

    @property
    def standing(self) -> Standing:
        """What the lane has learnt by now."""
        return replace(self._now)

    @property
    def rate(self) -> float:
        """Messages a second now, apart from stops."""
        most, allowed = self._lane.rate * self._now.factor, self._now.allowed
        return min(most, allowed / (_SPREAD_MS / SECOND_MS)) if allowed else most

    @property
    def probing(self) -> bool:
        """Whether the lane has stopped and nothing was taken since: then it goes one message at a time."""
        return self._now.stops > 0

    def opens_at(self, now: float, urgent: bool = False) -> float:
        """When the next message may go; `urgent` ones may use the reserve too."""
        self._turn_day(now)
        # No bucket is ever emptier; a clock that was set back, or another rate, makes it look so.
        self._level = min(self._all.emptied(now), self._level)
        self._level_of_others = min(self._others.emptied(now), self._level_of_others)
        opens = self._all.opens_at(self._level)
        if not urgent:
            opens = max(opens, self._others.opens_at(self._level_of_others))
        if self._left_today(urgent) < 1:
            opens = max(opens, (self._now.day + 1) * DAY_MS)
        return max(opens, self._now.stopped_until)

    def most_until(self, now: float, until: float, urgent: bool = False) -> int:
        """How many messages may go from `now` up to `until`, if each goes as soon as it may."""
        if self.opens_at(now, urgent) > until:
            return 0
        most = self._all.most_until(max(self._level, now), until)
        if not urgent:
            most = min(most, self._others.most_until(max(self._level_of_others, now), until))
        return int(min(most, self._left_today(urgent), 1 if self.probing else inf))

    def begins(self, now: float, urgent: bool = False) -> None:
        """A message begins."""
        self._turn_day(now)
        self._level = self._all.after(self._level, now)
        if not urgent:
            self._level_of_others = self._others.after(self._level_of_others, now)
        self._now.begun += 1

    def returns(self) -> None:
        """A message that had begun never got to the provider: it is no part of the day."""
        self._now.begun = max(0, self._now.begun - 1)

    def hears(self, now: float, what: Heard) -> bool:
        """An answer has come; whether it stops the lane."""
        self._turn_day(now)
        at, s = int(now), self._now
        stops = s.stops
        s.attempts, s.told = s.attempts + 1, s.told + 1
        if what.of_lane:
            s.deferrals, s.refused, s.in_a_row = s.deferrals + 1, s.refused + 1, s.in_a_row + 1
            self._refused(at, what)
        else:
            s.in_a_row = 0
            if at >= s.stopped_until:  # else it was under way when the lane stopped
                s.stops = 0
            self._judge(at)
        return s.stops > stops

    def _refused(self, at: int, what: Heard) -> None:
        """After a deferral: stop, slow down at once, or do as the window says."""
        s = self._now
        if at < s.stopped_until:  # it was under way when the lane stopped
            s.stopped_until, s.in_a_row = max(s.stopped_until, at + what.pause), 0
        elif what.pause or what.kind == "suspend" or s.in_a_row >= _TRIPS or s.stops:
            own = min(_FIRST_STOP_MS << min(s.stops, 16), _LONGEST_STOP_MS)
            s.stopped_until, s.stops, s.in_a_row = at + max(own, what.pause), s.stops + 1, 0
            self._slow_down(at)
        elif what.kind == "slow":
            self._slow_down(at)
        else:
            self._judge(at)

    def _judge(self, at: int) -> None:
        """By the window: slower where too many were surely deferred, a little faster where few were."""
        s, tolerated = self._now, self._lane.deferred_above
        over, many = at - s.since >= _WINDOW_MS, s.attempts >= _FEWEST
        if many and (over or _looks(s.attempts)) and least_share(s.deferrals, s.attempts) > tolerated:
            self._slow_down(at)
        elif over:
            if s.deferrals <= tolerated * s.attempts:
                s.factor = min(_WHOLE, s.factor + _INCREASE)
                self._begin_window(at)
            elif many:
                self._begin_window(at)

    def _slow_down(self, at: int) -> None:
        s = self._now
        if at - s.slowed_at >= _SETTLES_MS:
            s.factor, s.slowed_at = max(self._lane.slowest, s.factor * _DECREASE), at
            self._begin_window(at)

    def _begin_window(self, at: int) -> None:
        self._now.since, self._now.attempts, self._now.deferrals = at, 0, 0
        self._change_rate(at)

    def _turn_day(self, now: float) -> None:
        """Begin another day: a warming lane may send more after one that it used, and that went well."""
        day, s, plan = int(now // DAY_MS), self._now, self._lane.warm_up
        if now < max(s.since, s.day * DAY_MS) - _SET_BACK_MS:
            s.since, s.slowed_at, s.stopped_until = int(now), min(s.slowed_at, int(now)), 0
            s.day = min(s.day, day)
        if day <= s.day and (plan is not None) == (s.allowed > 0):
            return
        if plan is None:
            s.allowed, s.warm_days = 0.0, 0
        else:
            used = s.told - s.refused >= self._allowed(urgent=False) / 2
            if not s.allowed:
                s.allowed = float(plan.first_day)
            elif used and least_share(s.refused, s.told) <= self._lane.deferred_above:
                s.allowed, s.warm_days = s.allowed * plan.growth, s.warm_days + 1
            # More than the rate lets go in a day is no plan; it may be raised later.
            s.allowed = min(s.allowed, self._lane.rate * (DAY_MS / SECOND_MS))
        s.day, s.begun, s.told, s.refused = max(day, s.day), 0, 0, 0
        self._change_rate(now)

    def _left_today(self, urgent: bool) -> float:
        return self._allowed(urgent) - self._now.begun if self._now.allowed else inf

    def _allowed(self, urgent: bool) -> float:
        """How many may go on a warming day, one at the least."""
        return max(1.0, self._now.allowed * (1.0 if urgent else 1 - self._lane.reserve))

    def _change_rate(self, now: float) -> None:
        """Go on at the present rate with as many tokens as before."""
        before = self._all.interval, self._others.interval
        self._all, self._others = self._buckets()
        self._level = now + (self._level - now) * self._all.interval / before[0]
        self._level_of_others = now + (self._level_of_others - now) * self._others.interval / before[1]

    def _buckets(self) -> tuple[Bucket, Bucket]:
        """Of all messages, and of those that leave the reserve alone."""
        bucket = Bucket.of(self.rate, self._lane.burst)
        return bucket, Bucket(bucket.interval / (1 - self._lane.reserve), bucket.burst)


def _looks(attempts: int) -> bool:
    """Whether so many attempts are looked at within a window: 20, 40, 80, …, since each look may err."""
    times, rest = divmod(attempts, _FEWEST)
    return times > 0 and rest == 0 and times & (times - 1) == 0


def least_share(some: int, of: int) -> float:
    """The least share that counts like these let expect: the lower end of Wilson's interval (1927)."""
    if not of:
        return 0.0
    share, z2 = some / of, _SURE**2
    spread = _SURE * sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, (share + z2 / (2 * of) - spread) / (1 + z2 / of))
