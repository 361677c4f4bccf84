"""Dead letters: records that a line could not handle, kept with where they stood and what was wrong."""

import hashlib
from typing import Any

from schemas import codec, topics
from schemas.reasons import DeadLetterReason
from streams.agents import intake
from streams.engine.cut import Cut, Out
from streams.engine.kafka import Record

_WHOLE_LETTER_BYTES = 1024 * 1024
_KEPT_KEY_BYTES = 128
_KEPT_VALUE_BYTES = 64 * 1024


def letter(cut: Cut, topic: str, record: Record, reason: DeadLetterReason, error: str) -> Out:
    """The dead letter of one record of a cut."""
    return of_record(topic, cut.partition, record, reason, error, cut.now, cut.number)


def of_record(
    topic: str, partition: int, record: Record, reason: DeadLetterReason, error: str, at: int, cut: int
) -> Out:
    """The dead letter of one record of a partition; `at` is in UTC ms. Equal arguments give equal letters."""
    fields = {
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        **_kept(record),
        "reason": reason.value,
        "error": f"{error}{_beyond(record)}",
        "at": at,
        "cut": cut,
    }
    value = codec.encode(topics.DEAD_LETTERS.name, fields)
    return Out(topics.DEAD_LETTERS.name, fields["key"], value, partition)


def _size(record: Record) -> int:
    headers = sum(len(name) + len(value) for name, value in intake.headers_of(record).items())
    return 2 * len(record.key or b"") + len(record.value or b"") + headers


def _kept(record: Record) -> dict[str, Any]:
    """Key, value and headers of a dead letter: whole, or the beginnings of what no letter could hold.

    A batch's size is limited as it is compressed, so a record may be larger than any letter.
    """
    if _size(record) <= _WHOLE_LETTER_BYTES:
        return {"key": record.key, "value": record.value, "headers": intake.headers_of(record)}
    key, value = record.key, record.value
    return {"key": key and key[:_KEPT_KEY_BYTES], "value": value and value[:_KEPT_VALUE_BYTES], "headers": {}}


def _beyond(record: Record) -> str:
    """What the error says of a record that is not kept whole."""
    if _size(record) <= _WHOLE_LETTER_BYTES:
        return ""
    digest = hashlib.sha256(record.value or b"").hexdigest()
    return f"; too large to keep whole: the first {_KEPT_VALUE_BYTES} bytes, sha256 of all {digest}"
