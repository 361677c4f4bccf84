from __future__ import annotations

import hashlib
import io
from typing import Any

import fastavro
import numpy as np
import pytest
from confluent_kafka import Message

from models import features
from models.features import FEATURES
from models.pacing import Standing
from schemas import codec, topics
from schemas.profile import DAYS, HOUR_MS, HOURS, KINDS, ROW, ROW_VERSION, NewerRow, empty
from streams.recording.batch import Batch
from streams.recording.rows import rows_of
from tests.support.record import AT, closure, delivery, unnamed

FEBRUARY, MARCH = 565, 566  # months since 1970
WRITTEN = 1_790_000_000_000


def _message(topic: str, offset: int, value: bytes | None, key: bytes = b"1") -> Message:
    return Message(
        topic=topic, partition=2, offset=offset, key=key, value=value, timestamp=(2, WRITTEN + offset)
    )


def _audit(*records: dict[str, Any]) -> Batch:
    name = topics.AUDIT.name
    return Batch(
        name, "id", 2, [_message(name, 10 + n, codec.encode(name, r)) for n, r in enumerate(records)]
    )


def _column(batch: Batch, table: str, name: str) -> list[Any]:
    blocks = [block for block in rows_of(batch, unnamed)[0] if block.table == table]
    return [value for block in blocks for value in block.columns[block.names.index(name)]]


def test_each_body_goes_to_its_table_with_the_place_of_its_record() -> None:
    batch = _audit(delivery(0, "a"), closure(1, "b"), delivery(2, "c"))
    assert _column(batch, "delivery", "recipient_id") == ["a", "c"]
    assert _column(batch, "delivery", "offset") == [10, 12]
    assert _column(batch, "delivery", "written_at") == [WRITTEN + 10, WRITTEN + 12]
    assert _column(batch, "delivery", "partition") == [2, 2]
    assert _column(batch, "closure", "offset") == [11]


def test_the_same_batch_gives_the_same_rows_under_the_same_tokens() -> None:
    records = [delivery(n, "a") | {"at": AT + n * 86_400_000} for n in range(60)]
    first, again = rows_of(_audit(*records), unnamed), rows_of(_audit(*records), unnamed)
    assert first == again
    assert len({block.token for block in first[0]}) == len(first[0]) > 1


def test_rows_of_two_months_are_two_blocks() -> None:
    records = [delivery(0, "a"), delivery(1, "b") | {"at": AT + 40 * 86_400_000}, delivery(2, "c")]
    blocks, _ = rows_of(_audit(*records), unnamed)
    assert [(block.months, list(block.offsets)) for block in blocks] == [(FEBRUARY, [10, 12]), (MARCH, [11])]


def test_a_block_in_parts_has_the_same_rows_under_tokens_of_their_own() -> None:
    (block,), _ = rows_of(_audit(*(delivery(n, "a") for n in range(5))), unnamed)
    parts = [block.part(0, 2), block.part(2, 5)]
    assert [*parts[0].offsets, *parts[1].offsets] == list(block.offsets)
    assert len({block.token, parts[0].token, parts[1].token}) == 3


def test_records_that_do_not_decode_are_told_of_and_the_rest_become_rows() -> None:
    good = _audit(delivery(0, "a"))
    name = topics.AUDIT.name
    bad = [
        _message(name, 11, b"no header"),
        _message(name, 12, None),
        _message(name, 13, b"\0\0\0\xff\xff rest"),
        _message(name, 14, codec.encode(name, delivery(1, "a"))[:-3]),
        _message(name, 15, codec.encode(name, delivery(1, "a")) + b"more"),
    ]
    blocks, unrecorded = rows_of(Batch(name, "id", 2, [*good.messages, *bad]), unnamed)
    assert [list(block.offsets) for block in blocks] == [[10]]
    assert [(each.message.offset(), each.reason) for each in unrecorded] == [
        (11, "malformed"),
        (12, "malformed"),
        (13, "unknown_schema"),
        (14, "malformed"),
        (15, "malformed"),
    ]


def test_records_of_a_former_schema_become_rows_too() -> None:
    name = topics.AUDIT.name
    former = min(number for number, stem in codec.ids().items() if codec.topic_of(stem) == name)
    assert former != codec.current_id(name)
    record = closure(0, "a")
    out = io.BytesIO(codec.header(former))
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, codec.parsed(former), record)
    batch = Batch(name, "id", 2, [_message(name, 1, out.getvalue())])
    assert _column(batch, "closure", "decision_id") == [record["body"][1]["decision_id"]]
    assert _column(batch, "closure", "line") == ["decide"]


def test_a_dead_letter_of_the_recorder_names_the_place_and_keeps_the_bytes() -> None:
    name = topics.AUDIT.name
    _, (bad,) = rows_of(Batch(name, "id", 2, [_message(name, 11, b"no header", b"\xff")]), unnamed)
    out = bad.letter()
    letter = codec.decode(topics.DEAD_LETTERS.name, out.value or b"")
    assert (letter["topic"], letter["partition"], letter["offset"]) == (name, 2, 11)
    assert (letter["key"], letter["value"], letter["reason"]) == (b"\xff", b"no header", "malformed")
    assert codec.millis(letter["at"]) == WRITTEN + 11
    assert (out.topic, out.partition, out.key) == (topics.DEAD_LETTERS.name, 2, b"\xff")
    assert out == bad.letter()


def test_a_dead_letter_of_a_huge_record_keeps_its_beginning_and_hash() -> None:
    name, value = topics.AUDIT.name, b"x" * (2 * 1024 * 1024)
    _, (bad,) = rows_of(Batch(name, "id", 2, [_message(name, 11, value)]), unnamed)
    letter = codec.decode(topics.DEAD_LETTERS.name, bad.letter().value or b"")
    assert value.startswith(letter["value"])
    assert len(letter["value"]) < len(value)
    assert hashlib.sha256(value).hexdigest() in letter["error"]


def test_a_record_of_huge_headers_has_a_dead_letter_that_kafka_takes() -> None:
    name = topics.AUDIT.name
    message = Message(
        topic=name,
        partition=2,
        offset=11,
        value=b"no header",
        headers=[("trace", b"x" * 2**21)],
        timestamp=(2, WRITTEN),
    )
    _, (bad,) = rows_of(Batch(name, "id", 2, [message]), unnamed)
    out = bad.letter()
    letter = codec.decode(topics.DEAD_LETTERS.name, out.value or b"")
    assert len(out.value or b"") < 1024 * 1024
    assert letter["value"] == b"no header"
    assert "too large to keep whole" in letter["error"]


def test_of_dead_letters_sizes_and_hashes_are_kept_and_never_the_bytes() -> None:
    name = topics.DEAD_LETTERS.name
    fields = {
        "topic": "behaviour.clicks",
        "partition": 1,
        "offset": 7,
        "key": b"someone",
        "value": None,
        "headers": {"x": b"secret"},
        "reason": "malformed",
        "error": "wrong",
        "at": AT,
        "cut": 4,
    }
    batch = Batch(name, "id", 2, [_message(name, 3, codec.encode(name, fields))])
    assert _column(batch, "dlq", "origin_offset") == [7]
    assert _column(batch, "dlq", "key_bytes") == [7]
    assert _column(batch, "dlq", "key_sha256") == [hashlib.sha256(b"someone").hexdigest()]
    assert _column(batch, "dlq", "value_bytes") == [None]
    assert "someone" not in repr(rows_of(batch, unnamed))
    assert "secret" not in repr(rows_of(batch, unnamed))


def test_the_journals_of_both_lines_make_rows_of_one_table() -> None:
    tally = {"topic": "dispatch.commands", "next_offset": 9, "consumed": 3, "accepted": 2, "filtered": 1}
    figures = dict.fromkeys(
        ("historic", "duplicate", "delivered", "bounced", "expired", "recalled", "unknown", "deferred"), 0
    ) | {"claimed": 5, "returned": 0, "pending": 1, "in_flight": 2}
    entry = {"partition": 0, "number": 3, "now": AT, "control_version": 1, "policy": "p"} | figures
    entry["topics"] = [
        tally | {"dead_lettered": 0},
        tally | {"topic": "dispatch.recalls", "dead_lettered": 0},
    ]
    name = topics.DELIVER_JOURNAL.name
    batch = Batch(name, "id", 2, [_message(name, 3, codec.encode(name, entry | {"rows": 8}))])
    assert _column(batch, "cut", "line") == ["deliver"]
    assert _column(batch, "cut", "cut") == [3]
    assert _column(batch, "cut", "rows") == [8]
    assert _column(batch, "cut", "claimed") == [5]
    assert _column(batch, "cut", "topics.topic") == [["dispatch.commands", "dispatch.recalls"]]
    assert _column(batch, "cut", "topics.accepted") == [[2, 2]]
    assert _column(batch, "cut", "topics.late") == [[0, 0]]
    lane = {"lane": "gmail", "waiting": 7, "rate": 2.5, "tokens": 1, **vars(Standing(factor=0.5))}
    batch = Batch(
        name, "id", 2, [_message(name, 3, codec.encode(name, entry | {"rows": 8, "lanes": [lane]}))]
    )
    (block,), _ = rows_of(batch, unnamed)
    assert {column for column in block.names if column.startswith("topics.")} == {
        f"topics.{name}" for name in (*tally, "dead_lettered", "no_trigger", "decided", "rekeyed", "late")
    }
    assert _column(batch, "cut", "lanes.waiting") == [[7]]
    assert _column(batch, "cut", "lanes.factor") == [[0.5]]


def _profiles(*values: tuple[bytes, bytes | None]) -> Batch:
    name = topics.PROFILES.name
    return Batch(name, "id", 2, [_message(name, n, value, key) for n, (key, value) in enumerate(values)])


def _random_rows(count: int) -> np.ndarray:
    chance = np.random.default_rng(5)
    rows = empty(count)
    for name in ("hourly", "daily", "revenue"):
        rows[name] = chance.integers(0, 200, rows[name].shape)
    rows["hour"] = chance.integers(412_000, 413_000, count)
    return rows


def test_windows_are_the_features_as_of_the_rows_own_hour() -> None:
    rows = _random_rows(40)
    batch = _profiles(*((str(n).encode(), row.tobytes()) for n, row in enumerate(rows)))
    for feature in FEATURES.values():
        if feature.source in ("counter", "revenue"):
            found = _column(batch, "profile_snapshot", feature.name)
            expected = []
            for n in range(40):
                now = int(rows["hour"][n]) * HOUR_MS
                counted = features.base(rows[n : n + 1], feature, now)
                expected.append(features.value(feature, counted, now)[0])
            assert found == expected, feature.name


def test_rings_are_told_from_the_rows_own_hour_back() -> None:
    rows = empty(2)
    rows["hour"] = 412_003
    rows["hourly"][0, KINDS.index("view"), [412_003 % HOURS, 412_001 % HOURS]] = [5, 7]
    rows["daily"][0, KINDS.index("cart"), (412_003 // 24 - 34) % DAYS] = 9
    rows["daily"][0, KINDS.index("click"), (412_003 // 24) % DAYS] = 9
    rows["revenue"][0, (412_003 // 24) % DAYS] = 2**32 - 1
    batch = _profiles(*((str(n).encode(), row.tobytes()) for n, row in enumerate(rows)))

    assert _column(batch, "profile_snapshot", "views_by_hour") == [[5, 0, 7], []]
    assert _column(batch, "profile_snapshot", "carts_by_day") == [[*[0] * 34, 9], []]
    assert _column(batch, "profile_snapshot", "clicks_by_day") == [[2.25], []]
    assert _column(batch, "profile_snapshot", "revenue_by_day") == [[2**32 - 1], []]
    assert _column(batch, "profile_snapshot", "views_by_day") == [[], []]


def test_the_last_row_of_a_recipient_in_a_batch_counts_and_a_tombstone_takes_it_away() -> None:
    rows = empty(3)
    rows["zone"] = [b"Europe/Berlin", b"Asia/Tokyo", b"UTC"]
    batch = _profiles(
        (b"a", rows[0].tobytes()), (b"b", rows[1].tobytes()), (b"a", rows[2].tobytes()), (b"b", None)
    )
    assert _column(batch, "profile_snapshot", "recipient_id") == ["a", "b"]
    assert _column(batch, "profile_snapshot", "zone") == ["UTC", ""]
    assert _column(batch, "profile_snapshot", "is_deleted") == [0, 1]
    assert _column(batch, "profile_snapshot", "offset") == [2, 3]


def test_a_batch_of_damaged_rows_alone_is_no_rows() -> None:
    blocks, unrecorded = rows_of(_profiles((b"a", b"\x02"), (b"b", b"\x01")), unnamed)
    assert len(unrecorded) == 2
    assert sum(len(block.columns[0]) for block in blocks) == 0


def test_segments_consent_and_times_are_told_by_name() -> None:
    row = empty(1)
    row["segments"][0] = [0b101, 1 << 63]
    row["segments_version"] = 3
    row["consent"][0] = [1, 2, 0]
    row["suppressed"] = 2
    row["last"][0, 1] = AT
    batch = _profiles((b"a", row[0].tobytes()))
    (block,), _ = rows_of(batch, lambda version: {0: f"active_{version}", 2: "lapsing"})
    found = {name: column[0] for name, column in zip(block.names, block.columns, strict=True)}
    assert found["segments"] == ["active_3", "lapsing", "segment_127"]
    assert [found[f"consent_{p}"] for p in ("mail", "profiling", "tracking")] == [
        "granted",
        "withdrawn",
        "unknown",
    ]
    assert found["suppressed"] == "complained"
    assert (found["last_click_at"], found["last_view_at"]) == (AT, None)


def test_a_value_that_is_no_row_is_told_of_and_a_newer_row_stops_the_recorder() -> None:
    batch = _profiles((b"a", b"\x01short"), (b"b", empty(1).tobytes()))
    blocks, unrecorded = rows_of(batch, unnamed)
    assert [list(block.offsets) for block in blocks] == [[1]]
    assert [(each.message.offset(), each.reason) for each in unrecorded] == [(0, "malformed")]
    newer = np.zeros(1, ROW)
    newer["version"] = ROW_VERSION + 1
    with pytest.raises(NewerRow):
        rows_of(_profiles((b"a", newer.tobytes())), unnamed)
