"""Everything again from the sources: the journal says which records each cut held, and when it was."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from schemas.policy import Applied, Policy, Segment
from schemas.topics import SOURCES
from tests.reference.cuts import RefCut, RefRecord, RefResult, milliseconds
from tests.reference.rules import Reference


def recompute(
    policy: Policy,
    partition: int,
    partitions: int,
    sources: dict[str, list[RefRecord]],
    journal: list[dict[str, Any]],
    control: list[dict[str, Any]],
) -> tuple[Reference, list[RefResult]]:
    """Decide the cuts of a partition's journal.

    `sources` holds the partition's records by topic; `journal` its decoded `JournalEntry`s in order;
    `control` the decoded `ControlChange`s in order, each with its `offset` beside the schema's fields.
    """
    reference = Reference(policy, partitions)
    results = []
    start = {topic.name: 0 for topic in SOURCES}
    before: int | None = None
    for entry in journal:
        if entry["partition"] != partition:
            raise ValueError(f"a journal entry of partition {entry['partition']} among those of {partition}")
        end = start | {tally["topic"]: tally["next_offset"] for tally in entry["topics"]}
        now = milliseconds(entry["now"])
        results.append(
            reference.handle(
                RefCut(
                    partition=partition,
                    number=entry["number"],
                    now=now,
                    before=now if before is None else before,
                    control_version=entry["control_version"],
                    paused=paused_at(control, entry["control_version"]),
                    history=entry["history"],
                    records=cut_order(sources, start, end),
                    segments=segments_at(control, entry["control_version"]),
                )
            )
        )
        start, before = end, now
    return reference, results


def paused_at(control: list[dict[str, Any]], version: int) -> bool:
    """State of the last Pause below offset `version`; not paused if there is none."""
    paused = False
    for change in control:
        if change["offset"] < version and "paused" in change["change"]:
            paused = change["change"]["paused"]
    return paused


def segments_at(control: list[dict[str, Any]], version: int) -> tuple[Applied, ...]:
    """What was put in force below offset `version`; the first said what was in force before."""
    applied: list[Applied] = []
    for change in control:
        if change["offset"] < version and "segments" in change["change"]:
            segments = tuple(Segment(**each) for each in change["change"]["segments"])
            definitions = [segment.definition for segment in segments]
            if not applied or definitions != [segment.definition for segment in applied[-1].segments]:
                applied.append(Applied(change["offset"] + 1 if applied else 0, segments))
    return tuple(applied)


def cut_order(
    sources: dict[str, list[RefRecord]], start: dict[str, int], end: dict[str, int]
) -> list[RefRecord]:
    """Records of `[start, end)` by timestamp (made non-decreasing per topic), topic rank, offset.

    `sources` are in offset order.
    """
    keyed = []
    for rank, topic in enumerate(SOURCES):
        latest = 0
        records = sources.get(topic.name, [])
        first = bisect_left(records, start[topic.name], key=lambda r: r.offset)
        last = bisect_left(records, end[topic.name], key=lambda r: r.offset)
        for record in records[first:last]:
            latest = max(latest, record.timestamp)
            keyed.append((latest, rank, record.offset, record))
    return [record for *_, record in sorted(keyed, key=lambda k: k[:3])]
