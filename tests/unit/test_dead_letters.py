"""Dead letters: which are chosen, how they go back, how they are shown."""

import json
from typing import Any

import pytest

from schemas import codec, topics
from schemas.reasons import DeadLetterReason
from streams.agents import intake
from streams.cli import dead_letters as cli
from streams.cli import show
from streams.dead_letters import Choice, Letter, redriven
from streams.engine.kafka import Record
from streams.engine.partitioner import partition_of

CLICKS = topics.CLICKS.name
AT = 1_486_141_920_000  # 2017-02-03 17:12 UTC


def letter(**changes: Any) -> Letter:
    fields = {
        "topic": CLICKS,
        "partition": 3,
        "offset": 42,
        "key": b"r",
        "value": b"bytes",
        "headers": {"trace": b"1"},
        "reason": "malformed",
        "error": "no header; mend the producer",
        "at": AT,
        "cut": 17,
    }
    return Letter.decode(codec.encode(topics.DEAD_LETTERS.name, fields | changes))


def moved_from(partition: int, offset: int) -> dict[str, bytes]:
    return dict(intake.origin_headers(CLICKS, partition, Record(offset, 0, b"r", b"", ())))


def test_a_letter_comes_back_from_its_wire_format_whole() -> None:
    found = letter(headers={"trace": None}, key=None, value=None)

    assert (found.topic, found.partition, found.offset, found.at, found.cut) == (CLICKS, 3, 42, AT, 17)
    assert (found.key, found.value, found.headers) == (None, None, (("trace", b""),))


@pytest.mark.parametrize("partitions", [1, 2, 12, 48])
def test_a_record_goes_back_whole_to_the_partition_of_its_key(partitions: int) -> None:
    out = redriven(letter(), partitions)

    assert (out.topic, out.key, out.value) == (CLICKS, b"r", b"bytes")
    assert out.partition == partition_of(b"r", partitions)


def test_a_record_without_a_key_goes_back_to_where_it_stood() -> None:
    assert redriven(letter(key=None), 12).partition == 3


def test_a_record_that_goes_back_names_where_it_first_stood() -> None:
    assert dict(redriven(letter(), 12).headers) == {"trace": b"1", **moved_from(3, 42)}


def test_a_record_that_was_moved_before_still_names_where_it_first_stood() -> None:
    headers = {**moved_from(5, 7), intake.REKEYED: b"1"}

    out = redriven(letter(headers=headers), 12)

    assert dict(out.headers) == moved_from(5, 7)
    assert len(out.headers) == 3


def test_the_derived_event_id_of_a_record_sent_back_twice_is_the_same() -> None:
    def origin(offset: int) -> object:
        out = redriven(letter(), 12)
        return intake.origin_of(Record(offset, 0, out.key, out.value, tuple(out.headers)))

    assert origin(100) == origin(200) == (CLICKS, 3, 42)


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        (Choice(), True),
        (Choice(DeadLetterReason.MALFORMED, CLICKS, 3, 42), True),
        (Choice(reason=DeadLetterReason.TOO_LATE), False),
        (Choice(topic="behaviour.purchases"), False),
        (Choice(partition=4), False),
        (Choice(partition=0), False),
        (Choice(offset=0), False),
        (Choice(offset=42), True),
    ],
)
def test_a_choice_takes_what_agrees_with_all_of_it(choice: Choice, taken: bool) -> None:
    assert choice.takes(letter()) is taken


def test_a_line_of_the_list_has_what_show_takes() -> None:
    assert cli.line(letter()).plain == f"2017-02-03 17:12 UTC  {CLICKS} 3 42  malformed  key r"


def test_bytes_that_anyone_may_have_written_are_printed_harmlessly() -> None:
    assert "key \\x1b[31m\\xff" in cli.line(letter(key=b"\x1b[31m\xff")).plain


def test_what_does_not_decode_says_why() -> None:
    assert "no Confluent header" in cli.decoded(letter())
    assert cli.decoded(letter(value=None)) == "there is no value"
    assert "no topic of ours" in cli.decoded(letter(topic="elsewhere"))


def test_what_decodes_is_shown_as_a_record() -> None:
    change = {
        "recipient_id": "r",
        "event_id": None,
        "occurred_at": AT,
        "purpose": "mail",
        "state": "granted",
        "version": 1,
    }
    name = topics.CONSENT.name
    good = letter(topic=name, value=codec.encode(name, change), reason="too_early")

    assert json.loads(cli.decoded(good))["occurred_at"] == "2017-02-03T17:12:00.000Z"
    form = json.loads(show.as_json(cli.machine_form(good)))
    assert form["record"]["state"] == "granted"
    assert (form["key"], form["key_text"], form["headers"]) == ("72", "r", {"trace": "31"})


def test_a_hex_dump_is_cut_where_it_is_told_and_says_so() -> None:
    dump = show.hex_dump(bytes(range(64, 84)), 18).split("\n")

    assert dump[0] == "000000  40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO"
    assert dump[1].split() == ["000010", "50", "51", "PQ"]
    assert dump[2] == "… and 2 more bytes"
