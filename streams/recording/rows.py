"""From records to rows: a batch decoded, its columns by table, its blocks by month."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from confluent_kafka import Message

from schemas import topics
from schemas.codec import MalformedRecord, UnknownSchema
from schemas.reasons import DeadLetterReason
from sinks.clickhouse import shape
from sinks.clickhouse.insert import Block
from streams.reading import offset_of
from streams.recording import activity, profiles
from streams.recording.batch import Batch, Unrecorded
from streams.recording.decoding import decode
from streams.recording.names import SegmentNames

RECORDED: Final = (topics.AUDIT, topics.JOURNAL, topics.DELIVER_JOURNAL, topics.DEAD_LETTERS, topics.PROFILES)
# The tables that the records of each topic go to.
TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    topics.AUDIT.name: tuple(shape.BODIES.values()),
    topics.JOURNAL.name: ("cut",),
    topics.DELIVER_JOURNAL.name: ("cut",),
    topics.DEAD_LETTERS.name: ("dlq",),
    topics.PROFILES.name: ("profile_snapshot", "activity"),
}
_LETTER: Final = {  # column of dlq to field of the letter
    "origin_topic": "topic",
    "origin_partition": "partition",
    "origin_offset": "offset",
    "reason": "reason",
    "error": "error",
    "at": "at",
    "cut": "cut",
}
_LINES: Final = {topics.JOURNAL.name: "decide", topics.DELIVER_JOURNAL.name: "deliver"}

Columns = dict[str, list[Any]]
Decoded = tuple[Message, dict[str, Any]]
Rows = tuple[list[Block], list[Unrecorded]]


def rows_of(batch: Batch, names: SegmentNames) -> Rows:
    """Rows of a batch, one block for each table and month, and the records that do not decode.

    Equal batches give equal rows. `names` are those of segments, for profiles. Raises `NewerRow` where a
    newer program has written profiles.
    """
    if batch.topic == topics.PROFILES.name:
        states, bad = profiles.states_of(batch.messages)
        return _profiles(batch, states, names), bad
    decoded, bad = _decoded(batch)
    return _MAKERS[batch.topic](batch, decoded), bad


def _decoded(batch: Batch) -> tuple[list[Decoded], list[Unrecorded]]:
    good: list[Decoded] = []
    bad: list[Unrecorded] = []
    for message in batch.messages:
        value = message.value()
        try:
            good.append((message, decode(batch.topic, value if isinstance(value, bytes) else b"")))
        except UnknownSchema as error:
            remedy = f"{error}; deploy the version that knows it, then re-drive"
            bad.append(Unrecorded(message, DeadLetterReason.UNKNOWN_SCHEMA, remedy))
        except MalformedRecord as error:
            remedy = f"{error}; only opportune writes here: find out who else did"
            bad.append(Unrecorded(message, DeadLetterReason.MALFORMED, remedy))
    return good, bad


def _audit(batch: Batch, decoded: Sequence[Decoded]) -> list[Block]:
    by_body: defaultdict[str, list[Decoded]] = defaultdict(list)
    for message, record in decoded:
        by_body[record["body"][0]].append((message, record))
    blocks = []
    for name, some in by_body.items():
        records = [record for _, record in some]
        columns = _shaped(shape.envelope(), records)
        columns |= _shaped(shape.body(name), [record["body"][1] for record in records])
        blocks += _blocks(batch, shape.BODIES[name], columns, [message for message, _ in some])
    return blocks


def _journal(batch: Batch, decoded: Sequence[Decoded]) -> list[Block]:
    columns = _shaped(shape.journal(batch.topic), [record for _, record in decoded])
    columns["line"] = [_LINES[batch.topic]] * len(decoded)
    # Arrays of one Nested have one length, also those of figures that this line does not have.
    none = [[0] * len(names) for names in columns["topics.topic"]]
    missing = {f"topics.{name}": none for name in _TALLY if f"topics.{name}" not in columns}
    return _blocks(batch, "cut", columns | missing, [message for message, _ in decoded])


def _letters(batch: Batch, decoded: Sequence[Decoded]) -> list[Block]:
    letters = [letter for _, letter in decoded]
    columns = {column: [letter[field] for letter in letters] for column, field in _LETTER.items()}
    for name in ("key", "value"):
        columns[f"{name}_bytes"] = [None if each[name] is None else len(each[name]) for each in letters]
        columns[f"{name}_sha256"] = [_sha256(each[name]) for each in letters]
    return _blocks(batch, "dlq", columns, [message for message, _ in decoded])


_MAKERS: Final[Mapping[str, Callable[[Batch, Sequence[Decoded]], list[Block]]]] = {
    topics.AUDIT.name: _audit,
    topics.JOURNAL.name: _journal,
    topics.DELIVER_JOURNAL.name: _journal,
    topics.DEAD_LETTERS.name: _letters,
}
_TALLY: Final = tuple(
    dict.fromkeys(
        leaf.inner for name in _LINES for leaf in shape.journal(name).leaves if leaf.field == "topics"
    )
)


def _shaped(form: shape.Shape, records: Sequence[Mapping[str, Any]]) -> Columns:
    return dict(zip(form.names, form.columns(records), strict=True))


def _profiles(batch: Batch, states: profiles.States, names: SegmentNames) -> list[Block]:
    latest = _blocks(batch, "profile_snapshot", *profiles.columns_of(states, names), time=None)
    return latest + _blocks(batch, "activity", *activity.columns_of(states), time="hour", unit="s")


def _blocks(
    batch: Batch,
    table: str,
    columns: Columns,
    messages: Sequence[Message],
    time: str | None = "at",
    unit: str = "ms",
) -> list[Block]:
    """Blocks of one table, `messages` being each row's record: usually one, since a batch is of one time.

    `time` is the column that the table's months go by, in `unit` where it holds numbers; None: it has none.
    """
    if not messages:
        return []
    columns = columns | {
        "topic": [batch.topic] * len(messages),
        "partition": [batch.partition] * len(messages),
        "offset": [offset_of(message) for message in messages],
        "written_at": [message.timestamp()[1] for message in messages],
    }
    whole = Block(table, tuple(columns), tuple(columns.values()), batch.origin)
    if time is None:
        return [whole]
    months = np.array(columns[time], f"M8[{unit}]").astype("M8[M]").astype(np.int64)
    return [_of_month(whole, months == month, int(month)) for month in np.unique(months)]


def _of_month(block: Block, chosen: np.ndarray, month: int) -> Block:
    if chosen.all():
        return Block(block.table, block.names, block.columns, block.origin, month)
    rows = np.flatnonzero(chosen).tolist()
    columns = tuple([column[row] for row in rows] for column in block.columns)
    return Block(block.table, block.names, columns, block.origin, month)


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
