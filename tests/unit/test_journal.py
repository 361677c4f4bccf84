"""What the journal says of a line's table."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import numpy as np
import pytest

from schemas import codec, topics
from schemas.profile import ROW, empty
from streams.agents.decide import Decider
from streams.engine.batch import NOTHING
from streams.engine.control import Clock, Control
from streams.engine.cut import Handled
from streams.engine.journal import UNCOUNTED, ChangelogLost, Entry
from streams.engine.kafka import Client
from streams.engine.line import Line, Spec
from streams.engine.store import NEVER, SlabStore
from tests.support.cuts import PARTITIONS, POLICY
from tests.support.deliver_story import HOUR, JOURNAL, ROWS, T0, DeliverStory

NOW = 1_700_000_000_000
_FIGURES = {
    topics.JOURNAL.name: ("decided", "withheld", "released", "dropped", "pending"),
    topics.DELIVER_JOURNAL.name: (
        *("historic", "duplicate", "delivered", "bounced", "expired", "recalled", "unknown", "deferred"),
        *("claimed", "returned", "pending", "in_flight"),
    ),
}


def entry(journal: str, rows: int) -> Entry:
    return Entry(3, 7, NOW, 2, "policy", figures=dict.fromkeys(_FIGURES[journal], 0), rows=rows)


def of_version_1(journal: str, value: bytes) -> bytes:
    """An entry as it was written before rows were counted."""
    number = min(number for number, stem in codec.ids().items() if codec.topic_of(stem) == journal)
    out = io.BytesIO(codec.header(number))
    out.seek(codec.HEADER_BYTES)
    fastavro.schemaless_writer(out, codec.parsed(number), codec.decode(journal, value))
    return out.getvalue()


@pytest.mark.parametrize("journal", [*_FIGURES])
def test_an_entry_says_how_many_rows_the_table_has(journal: str) -> None:
    again = Entry.decode(journal, entry(journal, 12).encode(journal))
    assert again.rows == 12
    assert again.agrees(12)
    assert not again.agrees(11)
    assert not again.agrees(0)


@pytest.mark.parametrize("journal", [*_FIGURES])
def test_an_entry_that_is_older_than_the_count_agrees_with_any(journal: str) -> None:
    again = Entry.decode(journal, of_version_1(journal, entry(journal, 12).encode(journal)))
    assert (again.number, again.rows) == (7, UNCOUNTED)
    assert again.agrees(0)
    assert again.agrees(12)


def test_a_cut_counts_the_rows_that_are_new_and_those_that_are_forgotten() -> None:
    decider, store = Decider(POLICY, PARTITIONS), SlabStore(ROW)
    journal = topics.JOURNAL.name
    spec = Spec(
        "test", Client("nowhere:1", {}), ("a",), "rows", journal, True, decider, 10, 0.05, lambda: store
    )
    line = Line(spec, 0, store, None, {"a": 0})
    line.warm("a", 0)
    figures = dict.fromkeys(_FIGURES[journal], 0)

    def stage(version: int, keys: list[bytes], forgotten: list[bytes]) -> int:
        line.in_flight = None
        cut = line.next_cut(Control(version, clock=Clock("scaled", NOW, 0, 0.0)), 0)
        assert cut is not None
        assert cut.records == {"a": NOTHING}
        due = np.full(len(keys), NEVER, np.int64)
        line.stage(cut, Handled([], keys, empty(len(keys)), due, forgotten, figures=figures))
        assert line.entry is not None
        return line.entry.rows

    assert stage(1, [b"ann", b"bob", b"cy"], []) == 3
    assert stage(2, [b"ann", b"di"], [b"bob", b"nobody"]) == 3
    assert stage(3, [], [b"ann", b"cy", b"di"]) == 0


def test_deliver_counts_the_dispatches_that_its_changelog_holds() -> None:
    story = DeliverStory()
    for number in range(3):
        story.command(number)
    story.cut()
    story.recall(1)
    story.cut(after=HOUR)
    assert (counts(story), held(story)) == ([3, 3], 3), "what has ended stays, to know a repeat by"
    later = 36 * 24 * HOUR
    story.command(7, released_at=T0 + later, due_at=T0 + later, expires_at=T0 + later + 16 * HOUR)
    story.cut(after=later)
    assert (counts(story)[-1], held(story)) == (1, 1), "and is forgotten one day"
    story.cut(after=later)
    assert (counts(story)[-1], held(story)) == (0, 0)


def counts(story: DeliverStory) -> list[int]:
    return [Entry.decode(JOURNAL, record.value or b"").rows for record in story.records[JOURNAL]]


def held(story: DeliverStory) -> int:
    latest: dict[Any, Any] = {record.key: record.value for record in story.records[ROWS]}
    return sum(value is not None for value in latest.values())


def test_who_loses_a_changelog_is_told_which_and_what_to_do() -> None:
    said = str(ChangelogLost("decide.profiles", 3, 12, 0))
    assert "partition 3 has 0 rows, its journal counts 12" in said
    assert "restore decide.profiles from a backup, or begin with empty topics" in said
