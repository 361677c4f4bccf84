"""The DECIDE line: decode, judge, gather, decide, write. Each step is one call; the rules are in models/."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models import profile
from models.decide import Behaviour, Decided, Moment, Other, Rules
from models.decide import decide as decide_cut
from models.segments import Segments
from models.sendtime import HourOfWeekProfile
from schemas import codec, topics
from schemas.policy import Policy
from schemas.profile import Slot, check_version, empty
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
        outputs, moved, keys, row_of = self._place(taken, cut, table)

        due = table.due(cut.now)
        rows, names, known, slots = _gather(table, keys, due)
        live = np.flatnonzero(row_of >= 0)
        behaviour = _behaviour(taken, cut, live, row_of)
        others = [
            Other(int(row_of[i]), i, topics.SOURCES[taken.topic[i]].name, taken.fields[i])
            for i in live[taken.kind[live] < 0].tolist()
        ]

        moment = Moment(cut.now, cut.before, cut.control.paused, cut.history)
        waiting = _waiting(rows)
        decided = decide_cut(names, rows, known, behaviour, others, _Causes(taken, cut), moment, self._rules)

        changed = np.flatnonzero(decided.changed)
        rests = np.flatnonzero(~decided.changed)
        outputs += self._outputs(cut, decided) + _dead_letters(taken, cut)
        out = decided.output
        return Handled(
            outputs=outputs,
            keys=[names[i].encode() for i in changed.tolist()],
            rows=decided.rows[changed],
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

    def check(self, rows: np.ndarray) -> None:
        """Raise `NewerRow` if a newer program wrote any."""
        check_version(rows)

    def _place(
        self, taken: Taken, cut: Cut, table: Store
    ) -> tuple[list[Out], list[int], list[bytes], np.ndarray]:
        """Find each record's row among the cut's distinct keys, -1 for dead letters and misrouted records."""
        alive = [i for i in range(len(taken.records)) if i not in taken.dead]
        index: dict[bytes, int] = {}
        for i in alive:
            index.setdefault(taken.recipient[i], len(index))
        unknown_keys = {
            key for key, slot in zip(index, table.find(list(index)).tolist(), strict=True) if slot == UNKNOWN
        }
        unknown = [i for i in alive if taken.recipient[i] in unknown_keys] if unknown_keys else []
        moved, outputs = intake.rekey(taken, cut, unknown, self._partitions)
        gone = {*moved, *taken.dead}
        row_of = np.full(len(taken.records), -1)
        keys: dict[bytes, int] = {}
        for i in alive:
            if i not in gone:
                row_of[i] = keys.setdefault(taken.recipient[i], len(keys))
        return outputs, moved, list(keys), row_of

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
            "offset": taken.records[position].offset,
            "event_id": taken.event_id(self._partition, position),
            "due_at": None,
        }


def _gather(
    table: Store, keys: Sequence[bytes], due: np.ndarray
) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Rows of the records' recipients and then of those that are only due: rows, names, known, slots."""
    slots = table.find(keys)
    # By key: where a row stands in the table follows from the table's history, and outputs must not.
    only_due = np.setdiff1d(due, slots)
    only_due = only_due[np.argsort(np.array(table.keys_at(only_due), object))]
    slots = np.concatenate([slots, only_due])
    known = slots != UNKNOWN
    rows = empty(len(slots))
    rows[known] = table.gather(slots[known])
    names = [key.decode() for key in [*keys, *table.keys_at(slots[len(keys) :])]]
    return rows, names, known, slots


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
