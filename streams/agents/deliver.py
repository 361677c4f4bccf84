"""The DELIVER line: decode, settle, recall, accept, expire, claim, write. Its rules: models/deliver.py."""

import hashlib
import heapq
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from models import deliver
from models.deliver import Delivering, Result
from models.order import Entry, Ranks, in_turn
from models.pacing import Standing
from schemas import codec, topics
from schemas.audit import AuditWriter
from schemas.codec import MalformedRecord, UnknownSchema
from schemas.dispatch import State, empty
from schemas.lanes import Lanes
from schemas.policy import Policy
from schemas.reasons import DeadLetterReason
from schemas.replies import NO_RULES, Replies
from schemas.scopes import Scopes
from streams.agents import letters
from streams.agents.dispatches import DispatchStore, Held, marks_of
from streams.engine.control import Clock, Control
from streams.engine.cut import Cut, Handled, Out, Turn
from streams.engine.journal import Tally
from streams.engine.kafka import Record
from streams.engine.store import UNKNOWN, Store

APP: Final = "opportune-deliver"
_RECALLS, _COMMANDS = (topic.name for topic in topics.DISPATCH_SOURCES)
BEGIN_WITHIN_S: Final = 1.0  # of the wall clock, after the cut: a claim that has not begun then is given back
# Commands or expiries in a cut. Nothing is sent while it is handled, and a lane's bucket holds 0.1 s.
MOST_AT_ONCE: Final = 500
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LIMITS: Final = {"recipient_id": 128, "campaign": 63, "template": 63, "lane": 32, "model": 16}


@dataclass(frozen=True)
class Paced:
    """A lane as it goes now: what it has learnt, messages a second, and how many might go at once."""

    standing: Standing
    rate: float
    tokens: int


@dataclass(frozen=True)
class Feedback:
    """What sending gave since the last cut.

    `resumed`: a former owner's claims are nobody's now. `room`: how many messages of a lane can be taken up,
    of urgent ones, or of others.
    """

    resumed: bool
    results: Sequence[Result]
    room: Callable[[str, bool], int]
    lanes: Mapping[str, Paced] = field(default_factory=dict)


@dataclass
class _Taken:
    """A cut's records of one topic, decoded: offset and fields; and those that are dead letters."""

    records: list[tuple[int, dict[str, Any]]]
    dead: list[tuple[Record, DeadLetterReason, str]]


class Deliverer:
    """Handler of the DELIVER line. Its table is a `DispatchStore`."""

    def __init__(self, policy: Policy, lanes: Lanes, replies: Replies = NO_RULES) -> None:
        self._rules, self._lanes = policy, lanes
        self._ranks, self._scopes = Ranks.of(policy), Scopes.of(policy.campaigns)
        written = policy.model_dump_json() + lanes.model_dump_json() + replies.model_dump_json()
        self._policy = hashlib.sha256(written.encode()).hexdigest()[:12]

    def handle(self, turn: Turn) -> list[Handled]:
        """Handle the cuts of a turn, one after the other; a worker makes turns of one."""
        return [self._handle(cut, table) for cut, table in turn]

    def _handle(self, cut: Cut, table: Store) -> Handled:
        """Handle one cut: what sending gave, recalls, commands, expiry, and claims for what can go."""
        if not isinstance(table, DispatchStore):
            raise TypeError("DELIVER's table is a DispatchStore")
        feedback: Feedback = cut.feedback
        recalls, commands = _take(cut, _RECALLS), _take(cut, _COMMANDS)
        results = list(feedback.results)
        if feedback.resumed:
            results += [deliver.lost(key.decode(), cut.now) for key in sorted(table.claimed)]

        touched = {result.dispatch_id.encode(): None for result in results}
        touched |= {r["dispatch_id"].encode(): None for _, r in (*recalls.records, *commands.records)}
        due = table.due(cut.now, MOST_AT_ONCE)
        touched |= dict.fromkeys(sorted(table.keys_at(due)))
        work = self._gather(cut, table, [*touched])
        before = deliver.standing(work.rows)
        work.settle(results)
        recalled = sum(work.recall(recall) for _, recall in recalls.records)
        accepted = sum(work.accept(command, offset) for offset, command in commands.records)
        forgotten = work.expire()
        chosen = _choose(
            cut.now,
            table,
            work,
            feedback.room,
            self._ranks,
            lambda marks: cut.control.holds(self._scopes(marks)),
            too_soon(cut.now, cut.control.clock),
        )
        claims = self._gather(cut, table, [key for key in chosen if key not in touched])
        before = _plus(before, deliver.standing(claims.rows))
        order = {key.decode(): place for place, key in enumerate(chosen)}
        mine = [key for key in chosen if key in touched]
        claimed = work.claim(mine, self._ranks) + claims.claim(claims.keys, self._ranks)

        gone = set(forgotten)
        keep = [i for i, key in enumerate(work.keys) if work.rows["state"][i] and key not in gone]
        keys = [*(work.keys[i] for i in keep), *claims.keys]
        rows = np.concatenate([work.rows[keep], claims.rows])
        after = deliver.standing(rows)
        return Handled(
            outputs=[
                *_outputs(cut, work),
                *(letters.letter(cut, _RECALLS, *dead) for dead in recalls.dead),
                *(letters.letter(cut, _COMMANDS, *dead) for dead in commands.dead),
            ],
            keys=keys,
            rows=rows,
            due_at=deliver.due_at(rows),
            forgotten=forgotten,
            tallies=[
                _tally(cut, _RECALLS, recalls, recalled),
                _tally(cut, _COMMANDS, commands, accepted),
            ],
            figures=_plus(work.figures, claims.figures)
            | {"lanes": self._standings(table, feedback, [*keys, *forgotten], rows)},
            changes={name: after[name] - before[name] for name in after},
            effects=[*work.stops, *sorted(claimed, key=lambda claim: order[claim.dispatch_id])],
            more=len(due) == MOST_AT_ONCE,
        )

    def policy(self, control: Control) -> str:
        """See `Handler.policy`: of the policy files and the lanes, whatever control says."""
        return self._policy

    def due_at(self, keys: Sequence[bytes], rows: np.ndarray, after: int, control: Control) -> np.ndarray:
        """When each row is due next."""
        return deliver.due_at(rows)

    def due_by(self, control: Control) -> object:
        """See `Handler.due_by`: nothing."""
        return ()

    def standing(self, rows: np.ndarray) -> dict[str, int]:
        """How many messages wait, and how many are claimed."""
        return deliver.standing(rows)

    def _standings(
        self, table: DispatchStore, feedback: Feedback, changed: Sequence[bytes], rows: np.ndarray
    ) -> list[dict[str, Any]]:
        """What each lane has learnt, and how many messages wait in it once the cut's rows are in the table.

        `changed` are the keys of whose rows the table has others, or none, after the cut; `rows` those.
        """
        waiting = table.backlog.copy()
        known = table.find(changed)
        before = table.gather(known[known != UNKNOWN])
        for some, sign in ((before, -1), (rows, 1)):
            lanes, counts = np.unique(some["lane"][some["state"] == State.WAITING], return_counts=True)
            for lane, count in zip(lanes.tolist(), counts.tolist(), strict=True):
                waiting[lane.decode()] += sign * count
        told = []
        for lane in sorted({*feedback.lanes, *+waiting}):
            paced = feedback.lanes.get(lane) or Paced(Standing(), float(self._lanes.of(lane).rate), 0)
            at = {"waiting": waiting[lane], "rate": paced.rate, "tokens": paced.tokens}
            told.append({"lane": lane, **at, **vars(paced.standing)})
        return told

    def _gather(self, cut: Cut, table: Store, keys: list[bytes]) -> Delivering:
        """The dispatches of these keys, known or not."""
        slots = table.find(keys)
        rows = empty(len(keys))
        known = slots != UNKNOWN
        rows[known] = table.gather(slots[known])
        return Delivering(keys, rows, cut.now, self._rules, self._lanes)


def _take(cut: Cut, topic: str) -> _Taken:
    """Decode and judge a topic's records; DECIDE alone writes them, so a bad one is somebody's mistake."""
    taken = _Taken([], [])
    for record in cut.records.get(topic, ()):
        try:
            fields = codec.decode(topic, record.value or b"")
        except UnknownSchema as error:
            taken.dead.append(
                (record, DeadLetterReason.UNKNOWN_SCHEMA, f"{error}; deploy the version that knows it")
            )
            continue
        except MalformedRecord as error:
            taken.dead.append((record, DeadLetterReason.MALFORMED, f"{error}; only DECIDE writes here"))
            continue
        if record.key != fields["lane"].encode():
            taken.dead.append((record, DeadLetterReason.KEY_MISMATCH, "the Kafka key must be the lane"))
        elif problem := _invalid(fields):
            taken.dead.append((record, DeadLetterReason.INVALID, problem))
        else:
            times = {name: codec.millis(fields[name]) for name in fields if name.endswith("_at")}
            taken.records.append((record.offset, fields | times))
    return taken


def _invalid(fields: Mapping[str, Any]) -> str | None:
    for name in ("dispatch_id", "decision_id"):
        if name in fields and not _UUID.fullmatch(fields[name]):
            return f"{name} must be a UUID, in its usual form"
    for name, limit in _LIMITS.items():
        if fields.get(name) is not None and not 1 <= len(fields[name].encode()) <= limit:
            return f"{name} must have 1 to {limit} bytes"
    return None


def _choose(
    now: int,
    table: DispatchStore,
    work: Delivering,
    room: Callable[[str, bool], int],
    ranks: Ranks,
    held: Held,
    too_soon: int,
) -> list[bytes]:
    """Which messages to claim: of each lane that has room, the first that may go and are not held.

    Where more waits than can go, the first in line would expire one by one before they could begin: what
    expires by `too_soon` is passed over.
    """
    fresh: defaultdict[str, defaultdict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    waits = (work.rows["state"] == State.WAITING) & (work.rows["not_before"] <= now)
    waits &= work.rows["expires_at"] > too_soon
    places = np.flatnonzero(waits)
    expiries = work.rows["expires_at"][places].tolist()
    for i, marks, expires_at in zip(places.tolist(), marks_of(work.rows[places]), expiries, strict=True):
        if not held(marks):
            fresh[marks.lane][marks.campaign].append((expires_at, work.keys[i]))
    gone = set(work.keys)
    chosen: list[bytes] = []
    for lane in sorted({*fresh, *table.lanes(now)}):
        all_room, others_room = room(lane, True), room(lane, False)
        if all_room <= 0:
            continue
        ready = table.ready(lane, now, held, too_soon)
        waiting = {
            campaign: heapq.merge(_left(ready.get(campaign, iter(())), gone), sorted(fresh[lane][campaign]))
            for campaign in {*ready, *fresh[lane]}
        }
        went: list[str] = []
        for campaign, key in in_turn(waiting, ranks, table.turns[lane]):
            urgent = ranks.urgent(campaign)
            if all_room <= 0 or (others_room <= 0 and not urgent):
                break  # urgent ones come first
            chosen.append(key)
            went.append(campaign)
            all_room, others_room = all_room - 1, others_room - (not urgent)
        for campaign in went:
            table.turns[lane].took(campaign, ranks(campaign))
    return chosen


def too_soon(now: int, clock: Clock) -> int:
    """The last moment of the deployment's clock that may pass before a claim of now begins."""
    return now + round(BEGIN_WITHIN_S * 1000 * clock.pace)


def _left(waiting: Iterator[Entry], gone: Collection[bytes]) -> Iterator[Entry]:
    return (entry for entry in waiting if entry[1] not in gone)


def _outputs(cut: Cut, work: Delivering) -> list[Out]:
    """Audit records and delivery events in wire format, by recipient."""
    about = {
        "partition": cut.partition,
        "cut": cut.number,
        "control_version": cut.control.version,
        "line": "deliver",
    }
    writers = {at: AuditWriter({"at": at, **about}) for at in {at for _, at, _ in work.audit}}
    outputs = []
    for recipient, at, body in work.audit:
        key = recipient.encode()
        outputs.append(Out(topics.AUDIT.name, key, writers[at].encode(key, ("opportune.Delivery", body))))
    for event in work.events:
        key = event["recipient_id"].encode()
        outputs.append(Out(topics.DELIVERY.name, key, codec.encode(topics.DELIVERY.name, event)))
    return outputs


def _tally(cut: Cut, topic: str, taken: _Taken, accepted: int) -> Tally:
    judged = len(taken.records)
    return Tally(
        topic,
        cut.next_offsets[topic],
        judged + len(taken.dead),
        accepted=accepted,
        filtered=judged - accepted,
        dead_lettered=len(taken.dead),
    )


def _plus(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one[name] + other[name] for name in one}
