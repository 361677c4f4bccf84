"""Sending what DELIVER has claimed: rendered, paced by lane, asked again at the last moment, handed over.

A claim is begun within a second of the cut that made it, or given back. So a worker that was frozen, or whose
commit took long, begins none of the messages that were recalled, or written down as unknown, meanwhile.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields
from time import time_ns
from typing import Any, Final

import structlog

from models.deliver import Claim, Kind, Result, Stop
from models.order import Ranks
from models.pacing import Heard, Pace, Standing, heard
from schemas import codec
from schemas.lanes import Lane, Lanes
from schemas.replies import Replies
from schemas.scopes import Marks, Scopes
from sinks.transports import Outcome, Transport
from streams import events
from streams.agents.deliver import BEGIN_WITHIN_S, Feedback, Paced, too_soon
from streams.agents.dispatches import DispatchStore
from streams.engine.consumer import end_worker
from streams.engine.control import Control
from streams.engine.cut import uptime
from streams.engine.failpoint import reach
from streams.engine.store import Store
from streams.sending_lane import AHEAD_S, Claimed, Prepared, SendingLane

_log = structlog.get_logger()
_PREPARED_AT_ONCE: Final = 20
_LOOK_UP_S: Final = 0.1  # so soon a lane that waits notices a pause, a recall or another clock
_FIRST_REST_S: Final = 0.5
_LONGEST_REST_S: Final = 30.0
_FAILED_REST_S: Final = 5.0


# Gets claims and the time (UTC ms); gives a message for each, or what became of one that cannot be sent.
Prepare = Callable[[Sequence[Claim], int], Sequence[Prepared | Result]]

_STANDING: Final = tuple(each.name for each in fields(Standing))
_MOMENTS: Final = ("since", "slowed_at", "stopped_until")
_KINDS: Final[Mapping[str, Kind]] = {
    "accepted": "delivered",
    "deferred": "deferred",
    "bounced": "bounced",
    "unknown": "unknown",
    "not_sent": "returned",
    "vetoed": "returned",
}


@dataclass
class _Partition:
    """What is known of one partition's sends."""

    lanes: dict[str, SendingLane] = field(default_factory=dict)
    learnt: dict[str, Standing] = field(default_factory=dict)  # by lanes, of which the journal has told
    results: list[Result] = field(default_factory=list)
    recalled: set[str] = field(default_factory=set)
    open: int = 0  # claims without a result
    draining: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    opening: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # sends that may not have begun yet


class Sender:
    """`Effects` of DELIVER; lives in the event loop, only `prepare` runs in a thread of its own."""

    def __init__(
        self,
        lanes: Lanes,
        replies: Replies,
        ranks: Ranks,
        scopes: Scopes,
        prepare: Prepare,
        transport_of: Callable[[str, Lane], Transport],
    ) -> None:
        self._lanes, self._replies, self._ranks, self._scopes = lanes, replies, ranks, scopes
        self._prepare, self._transport_of = prepare, transport_of
        # Its own: rendering must not keep commits waiting for a thread.
        self._renderers = ThreadPoolExecutor(1, "render")
        self._control = Control()
        self._rests_until = 0.0
        self._partitions: dict[int, _Partition] = {}

    def observe(self, control: Control) -> None:
        """See `Effects.observe`."""
        self._control = control

    def wanting(self, partition: int, store: Store, now: int) -> bool:
        """See `Effects.wanting`: something came back, or a lane with room has something that may go."""
        known = self._known(partition)
        if known.results or known.draining:
            return bool(known.results)
        return isinstance(store, DispatchStore) and any(
            self._may_go(known, store, lane, now) for lane in store.lanes(now)
        )

    def _may_go(self, known: _Partition, store: DispatchStore, lane: str, now: int) -> bool:
        """Whether a lane has room for any of the messages that wait."""
        room = {urgent: self._room(known, lane, urgent) > 0 for urgent in (True, False)}
        return any(room.values()) and any(
            room[self._ranks.urgent(campaign)]
            for campaign in store.ready(lane, now, self._held, too_soon(now, self._control.clock))
        )

    def feedback(self, partition: int, resumed: Mapping[str, Any] | None) -> Feedback:
        """See `Effects.feedback`."""
        known = self._known(partition)
        if resumed is not None:
            known.learnt = {each["lane"]: _standing(each) for each in resumed.get("lanes", ())}
        if known.results:
            reach("deliver", "before_record")
        results, known.results = known.results, []
        lanes = self._paced(known)
        return Feedback(
            resumed is not None, results, lambda lane, urgent: self._room(known, lane, urgent), lanes
        )

    def _paced(self, known: _Partition) -> dict[str, Paced]:
        """How each lane goes now; one that nobody asked for since the take-over stands as it did before."""
        now = self._now()
        lanes = {name: Paced(standing, 0.0, 0) for name, standing in known.learnt.items()}
        if now is not None:
            for name in known.learnt:
                self._lane(known, name, now)
        for name, lane in known.lanes.items():
            tokens = 0 if now is None else lane.pace.most_until(now, now, urgent=True)
            lanes[name] = Paced(lane.pace.standing, lane.pace.rate, tokens)
        return lanes

    def begin(self, partition: int, effects: Sequence[Claim | Stop], since: float) -> None:
        """See `Effects.begin`."""
        known = self._known(partition)
        known.recalled.update(effect.dispatch_id for effect in effects if isinstance(effect, Stop))
        claims = [effect for effect in effects if isinstance(effect, Claim)]
        for claim in claims:
            self._lane(known, claim.lane, self._now() or 0).preparing += 1
        known.open += len(claims)
        if claims:
            self._start(known, self._take_up(known, claims, since))

    async def drain(self, partition: int, timeout: float) -> bool:
        """See `Effects.drain`."""
        known = self._known(partition)
        known.draining = True
        for task in known.opening.values():
            task.cancel()  # it would begin no more, and perhaps waits long for a server
        deadline = uptime() + timeout
        while known.open and uptime() < deadline:
            for lane in known.lanes.values():
                lane.woken.set()
            await asyncio.sleep(0.01)
        return not known.open

    def release(self, partition: int) -> None:
        """See `Effects.release`. What is still under way is cut off; the next owner calls it unknown."""
        known = self._partitions.pop(partition, None)
        if known is not None:
            for task in known.tasks:
                task.cancel()
            for lane in known.lanes.values():
                self._start(known, lane.transport.close())

    def _known(self, partition: int) -> _Partition:
        return self._partitions.setdefault(partition, _Partition())

    def _lane(self, known: _Partition, name: str, now: int) -> SendingLane:
        lane = known.lanes.get(name)
        if lane is None:
            setting = self._lanes.of(name)
            pace = Pace(setting, now, known.learnt.get(name))
            lane = SendingLane(pace, setting.connections, self._transport_of(name, setting))
            known.lanes[name] = lane
            self._start(known, self._pace(known, lane))
        return lane

    def _room(self, known: _Partition, name: str, urgent: bool) -> int:
        """How many messages of a lane can be taken up now: those that its pace lets go soon."""
        now, pace = self._now(), self._control.clock.pace
        if known.draining or now is None or not pace or uptime() < self._rests_until:
            return 0
        lane, clock = self._lane(known, name, now), uptime()
        if clock < lane.rests_until or (lane.pace.probing and not lane.free):
            return 0
        ahead = lane.pace.most_until(now, now + AHEAD_S * 1000 * pace, urgent)
        return min(ahead, lane.free + int(lane.lately(clock))) - lane.taken_up

    def _now(self) -> int | None:
        """The time on the deployment's clock; None where only a plan tells it."""
        return self._control.clock.now(time_ns() // 1_000_000)

    def _start(self, known: _Partition, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        def ended(task: asyncio.Task[None]) -> None:
            known.tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                end_worker(error)  # or a lane would stand still and say nothing

        task = asyncio.create_task(work)
        known.tasks.add(task)
        task.add_done_callback(ended)
        return task

    async def _take_up(self, known: _Partition, claims: Sequence[Claim], since: float) -> None:
        """Render claims, a few at a time, and put them into their lanes' queues."""
        for first in range(0, len(claims), _PREPARED_AT_ONCE):
            some = claims[first : first + _PREPARED_AT_ONCE]
            for claim, ready in zip(some, await self._prepared(some), strict=True):
                lane = known.lanes[claim.lane]
                lane.preparing -= 1
                if isinstance(ready, Result):
                    self._end(known, ready)
                else:
                    queue = lane.urgent if claim.urgent else lane.others
                    queue.append(Claimed(claim, ready, since))
                    lane.woken.set()

    async def _prepared(self, claims: Sequence[Claim]) -> Sequence[Prepared | Result]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._renderers, self._prepare, claims, self._now() or 0)
        except Exception as error:  # the vault cannot be read, say: nothing has gone
            _log.error(events.PREPARING_FAILED, seconds=_FAILED_REST_S, exc_info=error)
            self._rests_until = uptime() + _FAILED_REST_S
            return [self._returned(claim) for claim in claims]

    async def _pace(self, known: _Partition, lane: SendingLane) -> None:
        """Let a lane's messages go, one by one, when its bucket and its connections allow."""
        while True:
            if not lane.queue:
                lane.woken.clear()
                await lane.woken.wait()
                continue
            now = self._now()
            claimed = lane.queue[0]
            if now is None or not self._wanted(known, lane, claimed):
                lane.queue.popleft()
                self._end(known, self._returned(claimed.claim))
                continue
            opens = lane.pace.opens_at(now, claimed.claim.urgent)
            early = (opens - now) / (self._control.clock.pace or 1) / 1000
            if early > 0:
                await asyncio.sleep(min(early, _LOOK_UP_S))
            elif lane.free <= 0:
                lane.woken.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_UP_S):
                        await lane.woken.wait()
            else:
                lane.queue.popleft()
                lane.pace.begins(now, claimed.claim.urgent)
                lane.begins(uptime())
                sending = self._start(known, self._send(known, lane, claimed))
                known.opening[claimed.claim.dispatch_id] = sending

    def _held(self, marks: Marks) -> bool:
        """Whether operators hold messages with these marks."""
        return self._control.holds(self._scopes(marks))

    def _wanted(self, known: _Partition, lane: SendingLane, claimed: Claimed) -> bool:
        """Whether a claimed message may still begin: asked when its turn comes."""
        clock = uptime()
        return (
            clock - claimed.since <= BEGIN_WITHIN_S
            and clock >= lane.rests_until
            and not known.draining
            and self._allowed(known, claimed.claim)
        )

    def _allowed(self, known: _Partition, claim: Claim) -> bool:
        """Whether nothing forbids a message: no pause, no recall, and its time has not passed."""
        now = self._now()
        return (
            now is not None
            and now < claim.expires_at
            and not self._held(claim.marks)
            and claim.dispatch_id not in known.recalled
        )

    async def _send(self, known: _Partition, lane: SendingLane, claimed: Claimed) -> None:
        claim, begun = claimed.claim, False

        def still_wanted() -> bool:
            # Asked before each step of the transaction: the first time it begins, in its second or never.
            nonlocal begun
            allowed = self._allowed(known, claim) if begun else self._wanted(known, lane, claimed)
            begun = begun or allowed
            if begun:
                known.opening.pop(claim.dispatch_id, None)
            return allowed

        reach("deliver", "before_send")
        try:
            outcome = await lane.transport.send(claimed.prepared.message, still_wanted)
        except asyncio.CancelledError:
            if begun:
                raise
            outcome = Outcome("vetoed")
        except Exception as error:  # whatever it is, the message may have gone
            _log.error(events.SEND_FAILED, dispatch_id=claim.dispatch_id, exc_info=error)
            outcome = Outcome("unknown", detail=type(error).__name__)
        finally:
            known.opening.pop(claim.dispatch_id, None)
            lane.under_way -= 1
            lane.woken.set()
        reach("deliver", "after_accept")
        self._learn(known, lane, claimed, outcome)

    def _learn(self, known: _Partition, lane: SendingLane, claimed: Claimed, outcome: Outcome) -> None:
        """Turn an outcome into a result; a lane whose server cannot be reached rests for a while."""
        claim, now = claimed.claim, self._now()
        if outcome.kind == "not_sent":
            if uptime() >= lane.rests_until:  # what was under way when it began to rest says nothing new
                rest = min(_FIRST_REST_S * 2 ** min(lane.failures, 10), _LONGEST_REST_S)
                lane.failures, lane.rests_until = lane.failures + 1, uptime() + rest
                _log.warning(events.LANE_RESTS, lane=claim.lane, seconds=rest, error=outcome.detail)
        elif outcome.kind != "vetoed":
            lane.failures = 0
        if outcome.kind in ("not_sent", "vetoed"):
            lane.pace.returns()
        says, kind = self._heard(claim.lane, outcome), _KINDS[outcome.kind]
        if says is not None and now is not None and lane.pace.hears(now, says):
            seconds = (lane.pace.standing.stopped_until - now) / 1000
            _log.warning(
                events.LANE_STOPPED,
                lane=claim.lane,
                seconds=seconds,
                code=outcome.code,
                error=outcome.detail,
            )
        if says is not None and says.of_lane and kind == "bounced":
            kind = "deferred"  # it is the sender who is refused, not the message
        result = Result(
            claim.dispatch_id,
            kind,
            now or 0,
            outcome.code,
            outcome.detail,
            outcome.permanent and kind == "bounced",
            claimed.prepared.template,
            0 if says is None else says.again,
        )
        self._end(known, result)

    def _heard(self, lane: str, outcome: Outcome) -> Heard | None:
        """What an outcome says of the lane; None where no provider has spoken."""
        if outcome.kind == "accepted":
            return Heard("accepted")
        if outcome.kind in ("deferred", "bounced"):
            rule = self._replies.of(lane, outcome.code, outcome.detail)
            # Its seconds are of the wall clock, the lane's of the deployment's.
            retry_after = (outcome.retry_after_s or 0) * 1000 * (self._control.clock.pace or 1)
            return heard(rule, outcome.kind == "deferred", int(retry_after))
        if outcome.kind == "not_sent" and outcome.code is not None:  # refused at the greeting, say
            rule = self._replies.of(lane, outcome.code, outcome.detail)
            return None if rule is None else heard(rule, transient=True)
        return None

    def _returned(self, claim: Claim) -> Result:
        return Result(claim.dispatch_id, "returned", self._now() or 0)

    def _end(self, known: _Partition, result: Result) -> None:
        known.open -= 1
        known.recalled.discard(result.dispatch_id)
        if not known.open:
            known.recalled.clear()  # of claims whose results had come before their recall
        known.results.append(result)


def _standing(told: Mapping[str, Any]) -> Standing:
    """What a lane had learnt, as an entry of the journal has it."""
    moments = {name: codec.millis(told[name]) for name in _MOMENTS}
    return Standing(**{name: told[name] for name in _STANDING} | moments)
