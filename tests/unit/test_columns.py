"""Decoding by column: the same records as one by one, or a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, columns, topics

CLICKS = topics.CLICKS.name


def click(who: str = "ann", **fields: object) -> bytes:
    return codec.encode(
        CLICKS, {"recipient_id": who, "occurred_at": 1_700_000_000_000, "kind": "view", **fields}
    )


TEXT = st.one_of(st.none(), st.text(max_size=20))


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=8), TEXT, TEXT, st.sampled_from(["view", "open", "cart"])),
        max_size=20,
    )
)
def test_columns_hold_what_decoding_one_by_one_gives(
    some: list[tuple[str, str | None, str | None, str]],
) -> None:
    values = [
        click(who, product=product, event_id=event_id, kind=kind) for who, product, event_id, kind in some
    ]
    frame = columns.decode(codec.current_id(CLICKS), values, [who.encode() for who, *_ in some])
    singly = [codec.decode(CLICKS, value) for value in values]
    assert frame.height == len(some)
    for name in ("recipient_id", "event_id", "product", "kind"):
        assert frame.get_column(name).to_list() == [record[name] for record in singly]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("spoil", ["truncated", "trailing", "empty", "length"])
def test_a_block_with_one_bad_record_is_refused_wherever_it_stands(place: int, spoil: str) -> None:
    values = [click("ann"), click("bob"), click("cid")]
    bad = values[place]
    values[place] = {
        "truncated": bad[:-2],
        "trailing": bad + b"\x00",
        "empty": bad[:5],
        # A length of 2**60: nothing of that size may be reserved, and nothing may end the process.
        "length": bad[:5] + b"\x80\x80\x80\x80\x80\x80\x80\x80\x20",
    }[spoil]
    with pytest.raises(columns.ColumnsRefused):
        columns.decode(codec.current_id(CLICKS), values, [b"ann", b"bob", b"cid"])


def test_a_key_unlike_its_record_is_refused() -> None:
    with pytest.raises(columns.ColumnsRefused, match="its key"):
        columns.decode(codec.current_id(CLICKS), [click("ann"), click("bob")], [b"ann", b"eve"])


@given(st.binary(max_size=60))
def test_arbitrary_bytes_behind_a_right_header_are_decoded_or_called_malformed(body: bytes) -> None:
    value = codec.header(codec.current_id(CLICKS)) + body
    try:
        record = codec.decode(CLICKS, value)
    except codec.MalformedRecord:
        return
    assert set(record) >= {"recipient_id", "kind", "occurred_at"}


def test_an_unknown_schema_id_and_one_of_another_topic_are_told_apart() -> None:
    with pytest.raises(codec.UnknownSchema, match="9999"):
        codec.decode(CLICKS, b"\x00\x00\x00\x27\x0f")
    with pytest.raises(codec.MalformedRecord, match=r"belongs to consent\.changes"):
        codec.decode(CLICKS, codec.header(codec.current_id(topics.CONSENT.name)) + b"\x00")


@pytest.mark.parametrize("topic", [topics.CLICKS.name, topics.PURCHASES.name])
def test_whole_topics_are_decoded_by_columns(topic: str) -> None:
    fields = {"recipient_id": "ann", "event_id": None, "occurred_at": 1_700_000_000_000}
    fields |= {"kind": "view"} if topic == topics.CLICKS.name else {"amount": 500}
    frame = columns.decode(codec.current_id(topic), [codec.encode(topic, fields)], [b"ann"])
    assert frame.get_column("recipient_id").to_list() == ["ann"]
