"""What a DELIVER line writes, by its own handler, in records as they stand on Kafka, for tests to spoil."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from models.deliver import Kind, Result
from schemas import codec, topics
from schemas.lanes import Lane, Lanes
from schemas.policy import Policy
from schemas.units import Milliseconds, Rate
from streams.agents.deliver import Deliverer, Feedback
from streams.agents.dispatches import DispatchStore
from streams.engine.batch import Batch
from streams.engine.control import Control
from streams.engine.cut import Cut
from streams.engine.journal import Entry, Tally
from streams.engine.kafka import Record
from streams.facts import Facts
from streams.reading import Part
from streams.reconciling import dispatches
from streams.reconciling.dispatches import Commands
from streams.reconciling.recorded import Recorded
from tests.support.cuts import PACKAGED

T0 = 1_700_000_000_000
HOUR = 3_600_000
COMMANDS, RECALLS, ROWS = topics.COMMANDS.name, topics.RECALLS.name, topics.DISPATCHES.name
JOURNAL, AUDIT, LETTERS = topics.DELIVER_JOURNAL.name, topics.AUDIT.name, topics.DEAD_LETTERS.name
LANES = Lanes(default=Lane(rate=Rate.parse("10/s"), expiry=Milliseconds.parse("24 h")))
_READ = (JOURNAL, ROWS, LETTERS, RECALLS, COMMANDS, AUDIT)


def dispatch(number: int) -> str:
    return str(uuid.UUID(int=number))


def result(number: int, kind: Kind, **more: Any) -> Result:
    return Result(dispatch(number), kind, T0, **more)


class DeliverStory:
    """Partition 0 of DELIVER. Offsets have gaps; a cut's records are written an hour after the last one's."""

    def __init__(self, policy: Policy = PACKAGED) -> None:
        self.records: dict[str, list[Record]] = {topic: [] for topic in _READ}
        self.lows: dict[str, int] = {}
        self._handler, self._store = Deliverer(policy, LANES), DispatchStore()
        self._nexts = {topic.name: 0 for topic in topics.DISPATCH_SOURCES}
        self._standing = {"pending": 0, "in_flight": 0}
        self._number, self._now = 0, T0

    def add(self, topic: str, value: bytes | None, key: bytes = b"gmail") -> None:
        """Write a record, its offset two beyond the last one's."""
        written = self.records[topic]
        offset = written[-1].offset + 2 if written else 0
        written.append(Record(offset, T0 + self._number * HOUR, key, value, ()))

    def command(self, number: int, **more: Any) -> None:
        fields = {
            "dispatch_id": dispatch(number),
            "decision_id": dispatch(100 + number),
            "recipient_id": f"r{number}",
            "campaign": "win_back",
            "template": "win_back",
            "purpose": "mail",
            "channel": "mail",
            "lane": "gmail",
            "due_at": T0,
            "released_at": T0,
            "expires_at": T0 + 16 * HOUR,
            "history": False,
        }
        self.add(COMMANDS, codec.encode(COMMANDS, fields | more))

    def recall(self, number: int) -> None:
        fields = {
            "dispatch_id": dispatch(number),
            "recipient_id": f"r{number}",
            "lane": "gmail",
            "reason": "withdrawn",
            "recalled_at": T0,
            "expires_at": T0 + 16 * HOUR,
        }
        self.add(RECALLS, codec.encode(RECALLS, fields))

    def cut(
        self, results: Sequence[Result] = (), room: int = 0, after: int = 0, resumed: bool = False
    ) -> None:
        """Handle what has come since the last cut, and write what comes of it."""
        self._number, self._now = self._number + 1, self._now + after
        taken: dict[str, list[Record]] = {
            topic: [record for record in self.records[topic] if record.offset >= start]
            for topic, start in self._nexts.items()
        }
        for topic, records in taken.items():
            self._nexts[topic] = records[-1].offset + 1 if records else self._nexts[topic]
        feedback = Feedback(resumed, results, lambda *_: room)
        cut = Cut(
            0,
            self._number,
            self._now,
            self._now,
            Control(),
            0,
            None,
            False,
            {topic: Batch.of(records) for topic, records in taken.items()},
            dict(self._nexts),
            feedback,
        )
        [handled] = self._handler.handle([(cut, self._store)])
        handled.apply(self._store)
        for name, change in handled.changes.items():
            self._standing[name] += change
        for out in handled.outputs:
            if out.topic in (AUDIT, LETTERS):
                self.add(out.topic, out.value, out.key or b"")
        for key, row in zip(handled.keys, handled.rows if handled.rows is not None else (), strict=True):
            self.add(ROWS, row.tobytes(), key)
        for key in handled.forgotten:
            self.add(ROWS, None, key)
        figures = handled.figures | self._standing
        tallies, rows = list(handled.tallies), len(self._store)
        entry = Entry(0, self._number, self._now, 0, "policy", topics=tallies, figures=figures, rows=rows)
        self.add(JOURNAL, entry.encode(JOURNAL))

    # Spoiling

    def drop(self, topic: str, place: int = -1) -> Record:
        """Lose a record."""
        return self.records[topic].pop(place)

    def repeat(self, topic: str, place: int = -1) -> None:
        """Write a record again."""
        record = self.records[topic][place]
        self.add(topic, record.value, record.key or b"")

    def drop_audit(self, number: int, kind: str) -> None:
        """Lose the audit record of a dispatch that says so."""
        kept = [record for record in self.records[AUDIT] if not _says(record, dispatch(number), kind)]
        assert len(kept) == len(self.records[AUDIT]) - 1
        self.records[AUDIT] = kept

    def expire(self, topic: str, low: int) -> None:
        """Let retention delete what stands before an offset."""
        self.lows[topic] = low
        self.records[topic] = [record for record in self.records[topic] if record.offset >= low]

    def journal(self, place: int, change: Callable[[Entry], Entry]) -> None:
        """Falsify an entry of the journal."""
        record = self.records[JOURNAL][place]
        entry = change(Entry.decode(JOURNAL, record.value or b""))
        self.records[JOURNAL][place] = replace(record, value=entry.encode(JOURNAL))

    def figures(self, place: int, **figures: int) -> None:
        self.journal(place, lambda entry: replace(entry, figures=entry.figures | figures))

    def tally(self, place: int, **values: int) -> None:
        """Falsify what an entry says of the commands."""

        def change(entry: Entry) -> Entry:
            own = [Tally(**vars(t) | values) if t.topic == COMMANDS else t for t in entry.topics]
            return replace(entry, topics=own)

        self.journal(place, change)

    # Reading

    def facts(
        self,
        until_cut: int | None = None,
        mails: dict[int, int] | None = None,
        recorded: Recorded | None = None,
    ) -> Facts:
        """Everything read, the journal only up to a cut: what came after came while reading."""
        facts = Facts(recorded=recorded)
        facts.mails = None if mails is None else Counter({dispatch(n): count for n, count in mails.items()})
        for topic in _READ:
            part = Part(topic, 0, self.lows.get(topic, 0), 1000)
            facts.began(part)
            for place, record in enumerate(self.records[topic]):
                if topic != JOURNAL or until_cut is None or place < until_cut:
                    facts.add(part, record)
        facts.deliver.now[0] = self._now
        return facts

    def report(self, until_cut: int | None = None) -> tuple[Commands, list[str]]:
        """The one partition's account, and what does not agree."""
        [commands], off = dispatches.compare(self.facts(until_cut))
        return commands, off

    def off(self, until_cut: int | None = None) -> list[str]:
        return self.report(until_cut)[1]


def _says(record: Record, dispatch_id: str, kind: str) -> bool:
    body = codec.decode(AUDIT, record.value or b"")["body"]
    return bool(body["dispatch_id"] == dispatch_id and body["kind"] == kind)


def whole_story(policy: Policy = PACKAGED) -> DeliverStory:
    """Every fate once: see the numbers.

    1 delivered, 2 deferred and then delivered, 3 bounced, 4 unknown, 5 recalled while it waited, 6 recalled
    before its command came, 7 expired, 8 of loaded history, 9 waits, 10 in flight; 1 comes again, and one
    record is no command.
    """
    story = DeliverStory(policy)
    for number in (1, 2, 3, 4, 5):
        story.command(number)
    story.recall(6)
    story.cut(room=4)
    story.recall(5)
    for number in (1, 6):
        story.command(number)
    story.command(7, expires_at=T0 + HOUR)
    story.command(8, history=True)
    story.add(COMMANDS, b"no command")
    story.cut([result(1, "delivered"), result(2, "deferred", code=450), result(3, "bounced", code=550)])
    story.command(10)
    story.cut([result(4, "unknown")], room=2, after=HOUR)
    story.command(9)
    story.cut([result(2, "delivered")])
    return story
