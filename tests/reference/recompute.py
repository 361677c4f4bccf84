"""Everything again from the sources: the journal says which records each cut held, and when it was."""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_left
from dataclasses import replace
from typing import Any

import numpy as np

from models.sendtime.model import HourModel
from models.sendtime.serving import Models
from schemas.policy import Applied, Policy, Segment
from schemas.scopes import SCOPES
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
                    models=models_at(control, entry["control_version"], policy),
                    full=full_at(control, entry["control_version"]),
                )
            )
        )
        start, before = end, now
    return reference, results


def paused_at(control: list[dict[str, Any]], version: int) -> bool:
    """State of the last Pause of everything below offset `version`; not paused if there is none."""
    paused = False
    for change in control:
        pause = change["change"]
        of_all = "paused" in pause and all(pause.get(scope) is None for scope in SCOPES)
        if change["offset"] < version and of_all:
            paused = pause["paused"]
    return paused


def full_at(control: list[dict[str, Any]], version: int) -> dict[str, frozenset[int]]:
    """The hours without room that the last change below offset `version` told; none if there is none."""
    told = [
        each["change"]["full"] for each in control if each["offset"] < version and "full" in each["change"]
    ]
    return {provider: frozenset(hours) for provider, hours in told[-1].items()} if told else {}


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


def models_at(control: list[dict[str, Any]], version: int, policy: Policy) -> Models | None:
    """The models below offset `version`; one whose arrays are not those of its card never came into force."""
    roles: dict[str, HourModel] = {}
    log_odds: dict[str, float] = {}
    share, changed, names = 0.0, False, ["built-in"]
    for change in control:
        model = change["change"]
        if change["offset"] < version and "log_odds" in model:
            log_odds[model["model"]], changed = min(max(model["log_odds"], -1.0), 1.0), True
        if change["offset"] >= version or "role" not in model:
            continue
        changed = True
        if model["version"] not in names:
            names.append(model["version"])
        for role in ("canary", "shadow"):
            if role in roles and roles[role].version == model["version"]:
                del roles[role]
        found = _model(model, policy)
        if model["role"] in ("canary", "shadow"):
            roles.pop(model["role"], None)
        if model["role"] != "none" and found is not None:
            roles[model["role"]] = found
        if model["role"] == "canary":
            share = model["share"]
    built_in = HourModel.built_in(policy.send_time)
    champion, canary, shadow = (
        None if model is None else _told(model, log_odds.get(model.version, 0.0))
        for model in (roles.get("champion", built_in), roles.get("canary"), roles.get("shadow"))
    )
    return Models(champion or built_in, canary, share, shadow, tuple(names)) if changed else None


def _told(model: HourModel, log_odds: float) -> HourModel:
    """A model whose probabilities are shifted."""
    calibration = model.calibration.copy()
    calibration[:, 0] += log_odds
    return replace(model, calibration=calibration)


def _model(change: dict[str, Any], policy: Policy) -> HourModel | None:
    if not change["npz"]:
        return HourModel.built_in(policy.send_time)
    if hashlib.sha256(change["npz"]).hexdigest() != json.loads(change["card"])["sha256"]:
        return None
    arrays = {
        name: array
        for name, array in np.load(io.BytesIO(change["npz"]), allow_pickle=False).items()
        if not name.startswith("golden_")
    }
    return HourModel.of(change["version"], arrays)


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
