"""Rows of the profile table as columns that people can read: names for numbers, windows for rings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from confluent_kafka import Message

from models.features import FEATURES, PLURALS
from schemas.layouts import NoRow, picked
from schemas.profile import (
    DAYS,
    HOUR_MS,
    HOURS,
    KINDS,
    LAYOUTS,
    MAX_SEGMENTS,
    PURPOSES,
    SATURATED,
    SECOND_MS,
    UNITS,
    Consent,
    Slot,
    Suppression,
    empty,
)
from schemas.reasons import DeadLetterReason
from streams.engine.kafka import bytes_of
from streams.recording.batch import Unrecorded
from streams.recording.names import SegmentNames

_CONSENT: Final = [state.name.lower() for state in Consent]
_SUPPRESSED: Final = ["" if state == Suppression.NONE else state.name.lower() for state in Suppression]

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class States:
    """Records of the changelog, n in its order, and the rows that they hold, of this program's layout.

    `of` says by number among `recipients` whose each is, int64 (n,); `deleted`, bool (n,), whether it takes
    the recipient away: its row is empty.
    """

    messages: Sequence[Message]
    recipients: Sequence[str]
    of: np.ndarray
    rows: np.ndarray
    deleted: np.ndarray


def states_of(messages: Sequence[Message]) -> tuple[States, list[Unrecorded]]:
    """Read a batch of the changelog; also returns the records that are no rows.

    Raises
    ------
    NewerRow
        A newer program has written: this one would misread it.
    """
    numbers: dict[bytes, int] = {}
    kept: list[Message] = []
    of: list[int] = []
    values: list[bytes | None] = []
    bad: list[Unrecorded] = []
    for message in messages:
        key, value = bytes_of(message.key()), bytes_of(message.value())
        try:
            if key is None:
                raise NoRow("no key")
            if value is not None:
                LAYOUTS.check(value)
        except NoRow as error:
            why = f"{error}; only DECIDE writes here"
            bad.append(Unrecorded(message, DeadLetterReason.MALFORMED, why))
        else:
            kept.append(message)
            of.append(numbers.setdefault(key, len(numbers)))
            values.append(value)
    nothing = empty(1).tobytes()  # stands for a tombstone
    rows = LAYOUTS.read([nothing if value is None else value for value in values])
    deleted = np.array([value is None for value in values], np.bool_)
    recipients = [key.decode(errors="replace") for key in numbers]
    return States(kept, recipients, np.array(of, np.int64), rows, deleted), bad


def columns_of(states: States, names: SegmentNames) -> tuple[Columns, list[Message]]:
    """Columns of the last state of each recipient, and the record of each row."""
    last = np.empty(len(states.recipients), np.int64)
    last[states.of] = np.arange(len(states.of))  # of several the last stays
    columns = _columns(picked(states.rows, last), names)
    columns["recipient_id"] = [*states.recipients]
    columns["is_deleted"] = states.deleted[last].astype(np.int64).tolist()
    return columns, [states.messages[place] for place in last.tolist()]


def _columns(rows: np.ndarray, names: SegmentNames) -> Columns:
    columns: Columns = {
        "as_of": (rows["hour"].astype(np.int64) * HOUR_MS).tolist(),
        "row_version": rows["version"].tolist(),
        "saturated": ((rows["flags"] & SATURATED) > 0).tolist(),
        "suppressed": _named(rows["suppressed"], _SUPPRESSED),
        "segments": _segments(rows, names),
        "segments_version": rows["segments_version"].tolist(),
        "first_event_at": _times(rows["first"]),
        "pending_sends": (rows["pending"]["state"] == Slot.PENDING).sum(1).tolist(),
        "released_sends": (rows["pending"]["state"] == Slot.RELEASED).sum(1).tolist(),
        "last_sent_at": _times(rows["sent_at"].max(1).astype(np.int64) * SECOND_MS),
    }
    for name in ("zone", "locale", "provider", "place"):
        columns[name] = np.char.decode(rows[name], "utf-8", "replace").tolist()
    for number, purpose in enumerate(PURPOSES):
        columns[f"consent_{purpose}"] = _named(rows["consent"][:, number], _CONSENT)
        columns[f"consent_{purpose}_version"] = rows["consent_version"][:, number].tolist()
    for number, kind in enumerate(KINDS):
        columns[f"last_{kind}_at"] = _times(rows["last"][:, number])
    return columns | _windows(rows)


def _windows(rows: np.ndarray) -> Columns:
    """Rings, and every counting feature as of the row's own hour, which is the last hour of its windows."""
    hour = rows["hour"].astype(np.int64)
    hours = (hour[:, None] - np.arange(HOURS)) % HOURS
    days = (hour[:, None] // 24 - np.arange(DAYS)) % DAYS
    # Newest bucket first, so that a window is a prefix sum.
    by_hour = np.take_along_axis(rows["hourly"], hours[:, None, :], 2)
    by_day = np.take_along_axis(rows["daily"], days[:, None, :], 2)
    spent = np.take_along_axis(rows["revenue"], days, 1)
    hourly, daily = (buckets.cumsum(2, dtype=np.uint32) for buckets in (by_hour, by_day))
    revenue = spent.cumsum(1, dtype=np.uint64)
    columns: Columns = {"revenue_by_day": _trimmed(spent)}
    for plural, kind in PLURALS.items():
        number = KINDS.index(kind)
        columns[f"{plural}_by_hour"] = _trimmed(_whole(by_hour[:, number], UNITS[number]))
        columns[f"{plural}_by_day"] = _trimmed(_whole(by_day[:, number], UNITS[number]))
    for feature in FEATURES.values():
        if feature.source == "revenue":
            columns[feature.name] = revenue[:, feature.days - 1].tolist()
        elif feature.source == "counter" and feature.hours:
            counted = hourly[:, feature.kind, feature.hours - 1]
            columns[feature.name] = _whole(counted, feature.unit_of_count).tolist()
        elif feature.source == "counter":
            counted = daily[:, feature.kind, feature.days - 1]
            columns[feature.name] = _whole(counted, feature.unit_of_count).tolist()
    return columns


def _segments(rows: np.ndarray, names: SegmentNames) -> list[list[str]]:
    versions, of = np.unique(rows["segments_version"], return_inverse=True)
    named = [names(version) for version in versions.tolist()]
    table = np.array([[some.get(n, f"segment_{n}") for n in range(MAX_SEGMENTS)] for some in named], object)
    table = table.reshape(-1, MAX_SEGMENTS)  # of no rows, too
    bits = np.unpackbits(np.ascontiguousarray(rows["segments"]).view(np.uint8), axis=1, bitorder="little")
    row, number = np.nonzero(bits)
    members = table[of[row], number].tolist()
    ends = bits.sum(1, dtype=np.int64).cumsum().tolist()
    return [members[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _whole(counted: np.ndarray, unit: int) -> np.ndarray:
    """Counts of things, of which one is `unit`: floats only where there are parts of them."""
    return counted if unit == 1 else counted / unit


def _trimmed(buckets: np.ndarray) -> list[list[Any]]:
    """Lists of each row's buckets without the zeros at the end: most are empty."""
    ends = np.where(buckets.any(1), buckets.shape[1] - np.argmax(buckets[:, ::-1] != 0, axis=1), 0)
    return [some[:end] if end else [] for some, end in zip(buckets.tolist(), ends.tolist(), strict=True)]


def _named(numbers: np.ndarray, names: Sequence[str]) -> list[str]:
    """Names of states; one that a damaged row has beyond them shows as its number."""
    table = np.array([*names, *map(str, range(len(names), 256))], object)
    named: list[str] = table[numbers].tolist()
    return named


def _times(times: np.ndarray) -> list[int | None]:
    """UTC ms, None for never."""
    return [time or None for time in times.tolist()]
