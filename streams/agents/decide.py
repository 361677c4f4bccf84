"""The DECIDE line: decode, judge, gather, decide, write. Each step is one call; the rules are in models/."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import structlog

from models import profile, redefinition
from models.audit import Output
from models.decide import Decided
from models.decide import decide as decide_cuts
from models.inputs import Behaviour, Moment, Other, Rules
from models.sendtime.serving import Models
from schemas import codec, topics
from schemas.audit import AuditWriter
from schemas.layouts import opaque, picked
from schemas.policy import Applied, Policy, PolicyError
from schemas.profile import Slot, empty
from streams import events, serving
from streams.agents import intake, letters
from streams.agents.intake import Taken
from streams.engine.control import Control, Deployed, Intercept
from streams.engine.cut import Cut, Handled, Out, Turn
from streams.engine.journal import Tally
from streams.engine.store import UNKNOWN, Store

_log = structlog.get_logger()

APP = "opportune-decide"

_InForce = tuple[int, int, int, Deployed | None, Deployed | None, tuple[Intercept, ...]]


@dataclass(frozen=True)
class _Part:
    """One cut's part of a turn: where its records are, and its n rows; those without a record come last.

    `known` is bool (n,); `slots`, int64 (n,), say where the rows stand in the table, or `UNKNOWN`.
    """

    cut: Cut
    records: slice
    keys: list[bytes]
    rows: np.ndarray
    known: np.ndarray
    slots: np.ndarray
    moved: list[int]  # positions of records that were sent on
    outputs: list[Out]  # which send them on


class Decider:
    """Handler of the DECIDE line."""

    def __init__(self, policy: Policy, partitions: int, trusted: serving.Trusted = tuple) -> None:
        self._partitions = partitions
        self._files = policy
        self._serving = serving.Serving(policy.send_time, trusted)
        # By how many sets of segments, champions and models there ever were, the other roles, the intercepts.
        self._rules: dict[_InForce, Rules] = {}
        self._rules_of(Control())

    def policy(self, control: Control) -> str:
        """See `Handler.policy`."""
        return self._rules_of(control).policy.digest

    def handle(self, turn: Turn) -> list[Handled]:
        """Handle the cuts of a turn together: their records and the rows that are due."""
        taken = intake.take([cut for cut, _ in turn])
        row_of = np.full(len(taken.records), -1)  # of dead letters and misrouted records
        parts: list[_Part] = []
        starts: list[int] = []
        total = 0
        for number, (cut, table) in enumerate(turn):
            records = slice(*np.searchsorted(taken.cut, [number, number + 1]).tolist())
            parts.append(self._part(taken, cut, table, records, row_of, total))
            starts.append(total)
            total += len(parts[-1].keys)

        live = np.flatnonzero(row_of >= 0)
        others = [
            Other(int(row_of[i]), i, topics.SOURCES[taken.topic[i]].name, taken.fields[i])
            for i in live[taken.kind[live] < 0].tolist()
        ]
        rows = _joined([opaque(part.rows) for part in parts]).view(parts[0].rows.dtype)
        known = _joined([part.known for part in parts])
        waiting = _waiting(rows)
        first = parts[0].cut
        decided = decide_cuts(
            _Names([key for part in parts for key in part.keys]),
            rows,
            known,
            np.repeat([part.cut.before for part in parts], [len(part.keys) for part in parts]),
            _behaviour(taken, live, row_of),
            others,
            _Causes(taken),
            Moment(first.now, first.control.paused, first.history, first.control.full),
            self._rules_of(first.control),
        )
        grown = _waiting(decided.rows) - waiting
        tallies, outputs = _tallies(taken, decided, parts), decided.output.parts(starts)
        return [
            self._handled(taken, decided, grown, *each)
            for each in zip(parts, starts, outputs, tallies, strict=True)
        ]

    def due_at(self, keys: Sequence[bytes], rows: np.ndarray, after: int, control: Control) -> np.ndarray:
        """When each row is due next; those that know other segments than are in force, by the sweep."""
        due = profile.next_due(rows, after, control.paused)
        stale = np.flatnonzero(rows["segments_version"] != self._rules_of(control).version)
        swept_at = redefinition.reached_at([keys[i] for i in stale.tolist()], after)
        due[stale] = np.minimum(due[stale], swept_at)
        return due

    def due_by(self, control: Control) -> object:
        """See `Handler.due_by`: a pause of everything, and which segments are in force."""
        return control.paused, self._rules_of(control).version

    def standing(self, rows: np.ndarray) -> dict[str, int]:
        """How many sends wait in the rows."""
        return {"pending": int(_waiting(rows).sum())}

    def _rules_of(self, control: Control) -> Rules:
        """What is in force: the policy files, with the newest segments of control that go with them.

        Also asked by threads in which partitions are taken over, for a control that may be older. Raises
        PolicyError where none go with the files.
        """
        applied = control.segments
        models = len(control.champions), len(control.models), control.canary, control.shadow
        in_force = (len(applied), *models, control.intercepts)
        rules = self._rules.get(in_force)
        if rules is None:
            rules = self._rules[in_force] = self._newest(applied, self._serving.models(control))
            if applied:
                version, policy = rules.version, rules.policy.digest
                _log.info(events.SEGMENTS_IN_FORCE, control_version=version, policy=policy)
        return rules

    def _newest(self, applied: tuple[Applied, ...], models: Models) -> Rules:
        if not applied:
            return Rules.of(self._files, models=models)
        refusals: list[PolicyError] = []
        for in_force in reversed(applied):
            try:
                return Rules.of(self._files, applied, in_force, models)
            except PolicyError as error:
                _log.error(events.SEGMENTS_REFUSED, control_version=in_force.version, error=str(error))
                refusals.append(error)
        raise PolicyError(
            f"the segments in force do not go with the campaigns of these policy files: {refusals[0]}; put "
            "segments in force that do, with `opportune segments apply`, or deploy the campaigns that did"
        )

    def _part(
        self, taken: Taken, cut: Cut, table: Store, records: slice, row_of: np.ndarray, start: int
    ) -> _Part:
        """Place a cut's records at rows and gather those; into `row_of` go their numbers, from `start` on.

        Dead letters and misrouted records are at none.
        """
        keys, numbers = _numbered(taken, records)
        slots = table.find(keys)
        strangers = np.flatnonzero(slots == UNKNOWN)
        moved: list[int] = []
        outputs: list[Out] = []
        if len(strangers):
            dead = len(taken.dead)
            unknown = (records.start + np.flatnonzero(np.isin(numbers, strangers))).tolist()
            moved, outputs = intake.rekey(taken, cut, unknown, self._partitions)
            if moved or len(taken.dead) > dead:
                keys, numbers = _numbered(taken, records, moved)
                slots = table.find(keys)
        row_of[records] = np.where(numbers < 0, -1, numbers + start)
        rows, keys, known, slots = _gather(table, keys, slots, table.due(cut.now))
        return _Part(cut, records, keys, rows, known, slots, moved, outputs)

    def _handled(
        self,
        taken: Taken,
        decided: Decided,
        grown: np.ndarray,
        part: _Part,
        start: int,
        out: Output,
        tallies: list[Tally],
    ) -> Handled:
        """What one cut gives; `grown` is by how many sends more each row holds."""
        mine = slice(start, start + len(part.keys))
        rows, due_at = decided.rows[mine], decided.due_at[mine]
        changed = np.flatnonzero(decided.changed[mine])
        rests = np.flatnonzero(~decided.changed[mine])
        whole = len(changed) == len(rows)
        return Handled(
            outputs=[*part.outputs, *self._outputs(part.cut, out), *_dead_letters(taken, part)],
            keys=part.keys if whole else [part.keys[i] for i in changed.tolist()],
            rows=rows if whole else picked(rows, changed),
            due_at=due_at if whole else due_at[changed],
            resting=part.slots[rests],
            resting_due=due_at[rests],
            tallies=tallies,
            figures=out.figures(),
            changes={"pending": int(grown[mine].sum())},
        )

    def _outputs(self, cut: Cut, out: Output) -> list[Out]:
        """Audit records, commands and recalls in wire format."""
        about = {
            "partition": cut.partition,
            "cut": cut.number,
            "at": cut.now,
            "control_version": cut.control.version,
        }
        writer = AuditWriter(about)
        outputs = []
        for number, body in out.audit:
            key = out.names[number].encode()
            outputs.append(Out(topics.AUDIT.name, key, writer.encode(key, body), cut.partition))
        for topic, records in ((topics.COMMANDS.name, out.commands), (topics.RECALLS.name, out.recalls)):
            outputs += [
                Out(topic, record["lane"].encode(), codec.encode(topic, record)) for _, record in records
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
    """Names a record for audit and ids."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken

    def of(self, position: int) -> dict[str, Any]:
        """See `models.inputs.Causes`."""
        taken = self._taken
        return {
            "topic": topics.SOURCES[taken.topic[position]].name,
            "partition": int(taken.partition[position]),
            "offset": int(taken.records.offsets[position]),
            "event_id": taken.event_id(position),
            "due_at": None,
        }


def _numbered(taken: Taken, records: slice, moved: Sequence[int] = ()) -> tuple[list[bytes], np.ndarray]:
    """Distinct keys as they come first, and the number of each record's key; -1 where the record is gone."""
    alive: Sequence[bytes] = taken.recipient[records]
    here = np.ones(len(alive), np.bool_)
    gone = [i - records.start for i in (*moved, *taken.dead) if records.start <= i < records.stop]
    if gone:
        here[gone] = False
        alive = [alive[i] for i in np.flatnonzero(here).tolist()]
    number = {key: i for i, key in enumerate(dict.fromkeys(alive))}
    row_of = np.full(len(here), -1)
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
        opaque(rows)[known] = opaque(table.gather(slots[known]))
    return rows, [*keys, *table.keys_at(only_due)], known, slots


def _behaviour(taken: Taken, live: np.ndarray, row_of: np.ndarray) -> Behaviour:
    """Clicks and purchases sorted by (row, position)."""
    which = live[taken.kind[live] >= 0]
    which = which[np.argsort(row_of[which], kind="stable")]
    return Behaviour(
        row_of[which],
        which,
        taken.kind[which],
        taken.at[which],
        taken.amount[which],
        taken.doubt[which],
        taken.hashes(which),
    )


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _waiting(rows: np.ndarray) -> np.ndarray:
    """How many sends wait in each row, int64 (n,)."""
    return np.asarray((rows["pending"]["state"] == Slot.PENDING).sum(1))


def _dead_letters(taken: Taken, part: _Part) -> list[Out]:
    """The records of a cut that could not be handled."""
    return [
        letters.letter(part.cut, topics.SOURCES[taken.topic[position]].name, taken.records[position], *why)
        for position, why in sorted(taken.dead.items())
        if part.records.start <= position < part.records.stop
    ]


def _tallies(taken: Taken, decided: Decided, parts: Sequence[_Part]) -> list[list[Tally]]:
    """Count each cut's records by fate, for each source topic."""
    fates = decided.fates
    n = len(taken.records)
    filtered, dead, gone, deciding = (np.zeros(n, np.bool_) for _ in range(4))
    filtered[[*fates.filtered.tolist(), *fates.stale, *fates.unknown_dispatch]] = True
    dead[list(taken.dead)] = True
    gone[[position for part in parts for position in part.moved]] = True
    deciding[fates.deciding] = True
    effect = ~(filtered | dead | gone)
    fate = {
        "consumed": np.ones(n, np.bool_),
        "no_trigger": effect & ~deciding,
        "decided": deciding,
        "filtered": filtered,
        "dead_lettered": dead,
        "rekeyed": gone,
        "late": taken.late(parts[0].cut.now) & effect,
    }
    where, shape = taken.cut * len(topics.SOURCES) + taken.topic, (len(parts), len(topics.SOURCES))
    counts = {
        name: np.bincount(where[mask], minlength=len(parts) * len(topics.SOURCES)).reshape(shape).tolist()
        for name, mask in fate.items()
    }
    return [
        [
            Tally(
                topic.name,
                part.cut.next_offsets[topic.name],
                **{name: count[number][rank] for name, count in counts.items()},
            )
            for rank, topic in enumerate(topics.SOURCES)
        ]
        for number, part in enumerate(parts)
    ]
