"""A small, whole story in records as they stand on Kafka, for tests to spoil."""

from dataclasses import replace
from typing import Any

from schemas import codec, ids, topics
from streams.agents import intake
from streams.engine.journal import Entry, Tally
from streams.engine.kafka import Record
from streams.facts import Facts
from streams.reading import Part
from streams.reconcile import Report, compare

T0 = 1_486_000_000_000
HOUR = 3_600_000
CLICKS, LETTERS = topics.CLICKS.name, topics.DEAD_LETTERS.name
AUDIT, COMMANDS, JOURNAL = topics.AUDIT.name, topics.COMMANDS.name, topics.JOURNAL.name
DAY_ONE_LOG = 1_700_000_000_000
_FIGURES = {"decided": 0, "withheld": 0, "released": 0, "dropped": 0, "pending": 0}


def decision_id(number: int) -> str:
    return str(ids.decision_id(f"event-{number}", "r", "browse", 1))


class Story:
    """What two lines wrote. Offsets have gaps, as markers leave them; tests take things away and add some.

    Partition 0: cut 1 takes three clicks (one sets decision 1 off, one decision 2, one nothing), cut 2 takes
    four (filtered, dead, re-keyed to partition 1, without effect) and withholds decision 3 for a due time,
    cut 3 releases decision 1 and withholds decision 2 at release. Partition 1: one cut, with the re-keyed
    click; it sets decision 4 off, which waits.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[Record]] = {}
        self.lows: dict[tuple[str, int], int] = {}
        self.journal: dict[int, list[Entry]] = {
            0: [
                entry(0, 1, Tally(CLICKS, 4, 3, no_trigger=1, decided=2), decided=2, pending=2),
                entry(
                    0,
                    2,
                    Tally(CLICKS, 10, 4, no_trigger=1, filtered=1, dead_lettered=1, rekeyed=1),
                    decided=1,
                    withheld=1,
                    pending=2,
                ),
                entry(0, 3, Tally(CLICKS, 10), released=1, dropped=1, pending=0),
            ],
            1: [entry(1, 1, Tally(CLICKS, 8, 1, decided=1), decided=1, pending=1)],
        }
        for offset in (0, 1, 3, 4, 6, 7, 9, 12):
            self.add(CLICKS, 0, offset, b"never decoded here")
        moved = intake.origin_headers(CLICKS, 0, Record(7, 0, b"r", b"", ()))
        self.add(CLICKS, 1, 7, b"never decoded here", [*moved, (intake.REKEYED, b"1")])
        self.add(LETTERS, 0, 0, letter(6))
        self.add(AUDIT, 0, 0, audit(0, 1, decision(1, offset=0)))
        self.add(AUDIT, 0, 1, audit(0, 1, decision(2, offset=3)))
        self.add(AUDIT, 0, 3, audit(0, 2, decision(3, withheld="cooldown")))
        self.add(AUDIT, 0, 4, audit(0, 2, release(1, "deferred", "quiet_hours")))
        self.add(AUDIT, 0, 6, audit(0, 3, release(1, "released", "released", "gmail")))
        self.add(AUDIT, 0, 7, audit(0, 3, release(2, "withheld", "no_consent")))
        self.add(AUDIT, 1, 0, audit(1, 1, decision(4, partition=1, offset=7)))
        self.add(COMMANDS, 0, 0, command(1))

    def add(
        self,
        topic: str,
        partition: int,
        offset: int,
        value: bytes,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        record = Record(offset, DAY_ONE_LOG + offset, b"r", value, tuple(headers or ()))
        self.records.setdefault((topic, partition), []).append(record)

    def drop(self, topic: str, partition: int, offset: int) -> None:
        kept = [record for record in self.records[topic, partition] if record.offset != offset]
        assert len(kept) == len(self.records[topic, partition]) - 1
        self.records[topic, partition] = kept

    def expire(self, topic: str, partition: int, low: int) -> None:
        """Let retention delete what stands before an offset."""
        self.lows[topic, partition] = low
        kept = [record for record in self.records.get((topic, partition), []) if record.offset >= low]
        self.records[topic, partition] = kept

    def tally(self, partition: int, number: int) -> Tally:
        return next(e for e in self.journal[partition] if e.number == number).topics[0]

    def change(self, partition: int, number: int, **values: Any) -> None:
        self.journal[partition] = [
            _changed(e, values) if e.number == number else e for e in self.journal[partition]
        ]

    def report(self) -> Report:
        for partition, entries in self.journal.items():
            written = [Record(e.number, DAY_ONE_LOG, None, e.encode(JOURNAL), ()) for e in entries]
            low = self.lows.get((JOURNAL, partition), 0)
            self.records[JOURNAL, partition] = [record for record in written if record.offset >= low]
        facts = Facts(partitions=1)
        for topic in (JOURNAL, CLICKS, LETTERS, COMMANDS, AUDIT):
            for partition in (0, 1):
                part = Part(topic, partition, self.lows.get((topic, partition), 0), 1000)
                facts.began(part)
                for record in self.records.get((topic, partition), []):
                    facts.add(part, record)
        return compare(facts)


def _changed(entry: Entry, values: dict[str, Any]) -> Entry:
    figures = {name: value for name, value in values.items() if name in _FIGURES}
    own = {name: value for name, value in values.items() if name not in _FIGURES}
    return replace(entry, **own, figures=entry.figures | figures)


def entry(partition: int, number: int, *tallies: Tally, **figures: int) -> Entry:
    now = T0 + number * HOUR
    return Entry(partition, number, now, 1, "policy", topics=list(tallies), figures=_FIGURES | figures)


def audit(partition: int, cut: int, body: tuple[str, dict[str, Any]]) -> bytes:
    fields = {
        "recipient_id": "r",
        "partition": partition,
        "cut": cut,
        "at": T0 + cut * HOUR,
        "control_version": 1,
        "body": body,
    }
    return codec.encode(AUDIT, fields)


def decision(
    number: int, partition: int = 0, offset: int | None = None, withheld: str | None = None
) -> tuple[str, dict[str, Any]]:
    cause = {
        "topic": None if offset is None else CLICKS,
        "partition": None if offset is None else partition,
        "offset": offset,
        "event_id": None if offset is None else f"event-{number}",
        "due_at": T0 if offset is None else None,
    }
    return "opportune.Decision", {
        "decision_id": decision_id(number),
        "campaign": "browse",
        "campaign_version": 1,
        "outcome": "withheld" if withheld else "scheduled",
        "reason": withheld or "scheduled",
        "cause": cause,
        "purpose": "mail",
        "segments": [],
        "features": {},
        "gates": [],
        "policy": "policy",
    }


def release(number: int, outcome: str, reason: str, lane: str | None = None) -> tuple[str, dict[str, Any]]:
    return "opportune.Release", {
        "decision_id": decision_id(number),
        "dispatch_id": "d",
        "campaign": "browse",
        "outcome": outcome,
        "reason": reason,
        "due_at": T0,
        "lane": lane,
        "history": False,
        "gates": [],
    }


def command(number: int) -> bytes:
    fields = {
        "dispatch_id": "d",
        "decision_id": decision_id(number),
        "recipient_id": "r",
        "campaign": "browse",
        "template": "t",
        "purpose": "mail",
        "channel": "mail",
        "lane": "gmail",
        "due_at": T0,
        "released_at": T0,
        "expires_at": T0 + HOUR,
        "history": False,
    }
    return codec.encode(COMMANDS, fields)


def letter(offset: int, partition: int = 0, cut: int = 2) -> bytes:
    fields = {
        "topic": CLICKS,
        "partition": partition,
        "offset": offset,
        "key": b"r",
        "value": b"bytes",
        "headers": {},
        "reason": "malformed",
        "error": "it is",
        "at": T0,
        "cut": cut,
    }
    return codec.encode(LETTERS, fields)
