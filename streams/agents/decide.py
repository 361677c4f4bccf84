"""The DECIDE line: decode, judge, gather, decide, write. Each step is one call; the rules are in models/."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from models import profile
from models.decide import Behaviour, Decided, Moment, Other, Rules
from models.decide import decide as decide_cut
from models.segments import Segments
from models.sendtime import HourOfWeekProfile
from schemas import codec, topics
from schemas.policy import Policy
from schemas.profile import Slot, empty
from streams.agents import intake, letters
from streams.agents.intake import Taken
from streams.engine.control import Control
from streams.engine.cut import Cut, Handled, Out
from streams.engine.journal import Tally
from streams.engine.store import UNKNOWN, Store

APP = "opportune-decide"


class Decider:
    """Handler of the DECIDE line."""

    def __init__(self, policy: Policy, partitions: int) -> None:
        self._partitions = partitions
        self._rules = Rules(policy, Segments.compile(policy.segments), HourOfWeekProfile(policy.send_time))
        self.policy = policy.digest

    def handle(self, cut: Cut, table: Store) -> Handled:
        """Handle one cut: its records and the rows that are due."""
        taken = intake.take(cut)
        outputs, moved, keys, places, row_of = self._place(taken, cut, table)

        rows, keys, known, slots = _gather(table, keys, places, table.due(cut.now))
        live = np.flatnonzero(row_of >= 0)
        behaviour = _behaviour(taken, cut, live, row_of)
        others = [
            Other(int(row_of[i]), i, topics.SOURCES[taken.topic[i]].name, taken.fields[i])
            for i in live[taken.kind[live] < 0].tolist()
        ]

        moment = Moment(cut.now, cut.before, cut.control.paused, cut.history)
        waiting = _waiting(rows)
        decided = decide_cut(
            _Names(keys), rows, known, behaviour, others, _Causes(taken, cut), moment, self._rules
        )

        changed = np.flatnonzero(decided.changed)
        rests = np.flatnonzero(~decided.changed)
        outputs += self._outputs(cut, decided) + _dead_letters(taken, cut)
        out = decided.output
        return Handled(
            outputs=outputs,
            keys=[keys[i] for i in changed.tolist()],
            rows=decided.rows if len(changed) == len(keys) else decided.rows[changed],
            due_at=decided.due_at[changed],
            resting=slots[rests],
            resting_due=decided.due_at[rests],
            tallies=_tallies(cut, taken, decided, moved),
            figures={
                "decided": out.decided,
                "withheld": out.withheld,
                "released": out.released,
                "dropped": out.dropped,
            },
            changes={"pending": _waiting(decided.rows) - waiting},
        )

    def due_at(self, rows: np.ndarray, after: int, control: Control) -> np.ndarray:
        """When each row is due next."""
        return profile.next_due(rows, after, control.paused)

    def standing(self, rows: np.ndarray) -> dict[str, int]:
        """How many sends wait in the rows."""
        return {"pending": _waiting(rows)}

    def _place(
        self, taken: Taken, cut: Cut, table: Store
    ) -> tuple[list[Out], list[int], list[bytes], np.ndarray, np.ndarray]:
        """Place each record at a row of the cut's distinct keys: -1 for dead letters and misrouted records.

        Returns what to produce for those sent on, their positions, the keys, their slots, the rows' numbers.
        """
        keys, row_of = _numbered(taken)
        slots = table.find(keys)
        strangers = np.flatnonzero(slots == UNKNOWN)
        moved: list[int] = []
        outputs: list[Out] = []
        if len(strangers):
            dead = len(taken.dead)
            unknown = np.flatnonzero(np.isin(row_of, strangers)).tolist()
            moved, outputs = intake.rekey(taken, cut, unknown, self._partitions)
            if moved or len(taken.dead) > dead:
                keys, row_of = _numbered(taken, moved)
                slots = table.find(keys)
        return outputs, moved, keys, slots, row_of

    def _outputs(self, cut: Cut, decided: Decided) -> list[Out]:
        """Audit records, commands and recalls in wire format."""
        about = {
            "partition": cut.partition,
            "cut": cut.number,
            "at": cut.now,
            "control_version": cut.control.version,
        }
        out = decided.output
        outputs = [
            Out(
                topics.AUDIT.name,
                name.encode(),
                codec.encode(topics.AUDIT.name, {"recipient_id": name, **about, "body": body}),
                cut.partition,
            )
            for name, body in out.audit
        ]
        for topic, records in ((topics.COMMANDS.name, out.commands), (topics.RECALLS.name, out.recalls)):
            outputs += [
                Out(topic, record["lane"].encode(), codec.encode(topic, record)) for record in records
            ]
        return outputs


class _Names(Sequence[str]):
    """Recipients' ids, decoded when they are asked for: few rows of a cut are written about."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...

    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return _Names(self._keys[place])
        return self._keys[place].decode()


class _Causes:
    """Names a record of the cut for audit and ids."""

    def __init__(self, taken: Taken, cut: Cut) -> None:
        self._taken, self._partition = taken, cut.partition

    def of(self, position: int) -> dict[str, Any]:
        """See `models.decide.Causes`."""
        taken = self._taken
        return {
            "topic": topics.SOURCES[taken.topic[position]].name,
            "partition": self._partition,
            "offset": int(taken.records.offsets[position]),
            "event_id": taken.event_id(self._partition, position),
            "due_at": None,
        }


def _numbered(taken: Taken, moved: Sequence[int] = ()) -> tuple[list[bytes], np.ndarray]:
    """Distinct keys as they come first, and the number of each record's key; -1 where the record is gone."""
    row_of = np.full(len(taken.records), -1)
    alive: Sequence[bytes] = taken.recipient
    here = np.ones(len(row_of), np.bool_)
    if moved or taken.dead:
        here[[*moved, *taken.dead]] = False
        alive = [taken.recipient[i] for i in np.flatnonzero(here).tolist()]
    number = {key: i for i, key in enumerate(dict.fromkeys(alive))}
    row_of[here] = np.fromiter(map(number.__getitem__, alive), np.int64, len(alive))
    return list(number), row_of


def _gather(
    table: Store, keys: Sequence[bytes], slots: np.ndarray, due: np.ndarray
) -> tuple[np.ndarray, list[bytes], np.ndarray, np.ndarray]:
    """Rows of the records' recipients and then of those that are only due: rows, keys, known, slots."""
    # By key: where a row stands in the table follows from the table's history, and outputs must not.
    only_due = np.setdiff1d(due, slots)
    only_due = only_due[np.argsort(np.array(table.keys_at(only_due), object))]
    slots = np.concatenate([slots, only_due])
    known = slots != UNKNOWN
    if known.all():
        rows = table.gather(slots)
    else:
        rows = empty(len(slots))
        rows[known] = table.gather(slots[known])
    return rows, [*keys, *table.keys_at(only_due)], known, slots


def _behaviour(taken: Taken, cut: Cut, live: np.ndarray, row_of: np.ndarray) -> Behaviour:
    """Clicks and purchases sorted by (row, position)."""
    which = live[taken.kind[live] >= 0]
    which = which[np.argsort(row_of[which], kind="stable")]
    return Behaviour(
        row_of[which],
        which,
        taken.kind[which],
        taken.at[which],
        taken.amount[which],
        taken.hashes(cut.partition, which),
    )


def _waiting(rows: np.ndarray) -> int:
    return int((rows["pending"]["state"] == Slot.PENDING).sum())


def _dead_letters(taken: Taken, cut: Cut) -> list[Out]:
    """The records that could not be handled."""
    return [
        letters.letter(cut, topics.SOURCES[taken.topic[position]].name, taken.records[position], *why)
        for position, why in sorted(taken.dead.items())
    ]


def _tallies(cut: Cut, taken: Taken, decided: Decided, moved: Sequence[int]) -> list[Tally]:
    """Count each source topic's records by fate."""
    fates = decided.fates
    n = len(taken.records)
    filtered, dead, gone, deciding = (np.zeros(n, np.bool_) for _ in range(4))
    filtered[[*fates.duplicate.tolist(), *fates.stale, *fates.unknown_dispatch]] = True
    dead[list(taken.dead)] = True
    gone[list(moved)] = True
    deciding[fates.deciding] = True
    effect = ~(filtered | dead | gone)
    late = taken.late(cut.now) & effect
    tallies = []
    for rank, topic in enumerate(topics.SOURCES):
        mine = taken.topic == rank
        tallies.append(
            Tally(
                topic.name,
                cut.next_offsets[topic.name],
                int(mine.sum()),
                no_trigger=int((mine & effect & ~deciding).sum()),
                decided=int((mine & deciding).sum()),
                filtered=int((mine & filtered).sum()),
                dead_lettered=int((mine & dead).sum()),
                rekeyed=int((mine & gone).sum()),
                late=int((mine & late).sum()),
            )
        )
    return tallies
