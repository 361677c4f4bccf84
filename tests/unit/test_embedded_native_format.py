"""Where a block of ClickHouse's Native format ends."""

import struct

import pytest

from infra.embedded.native_format import (
    Reader,
    TypeNotServed,
    blocks,
    empty_block,
    layout_of,
    retyped,
    split_arguments,
    text,
    varint,
)

# One row of each type, and the bytes that a server writes for it.
ONE_ROW = {
    "UInt8": b"\x01",
    "DateTime64(3, 'UTC')": bytes(8),
    "UUID": bytes(16),
    "Int256": bytes(32),
    "Decimal(9, 2)": bytes(4),
    "Decimal(10, 2)": bytes(8),
    "Decimal(38, 2)": bytes(16),
    "Decimal(39, 2)": bytes(32),
    "FixedString(5)": b"fives",
    "Enum8('a,b' = 1, 'it\\'s (' = 2)": b"\x02",
    "String": text("x" * 300),
    "Nullable(String)": b"\x01" + text(""),
    "Array(UInt16)": struct.pack("<Q2H", 2, 7, 8),
    "Array(Array(UInt8))": struct.pack("<QQQ", 2, 1, 3) + b"\x01\x02\x03",
    "Map(String, Float64)": struct.pack("<Q", 1) + text("k") + bytes(8),
    "Tuple(a UInt8, `b c` String)": b"\x01" + text("y"),
    "LowCardinality(Nullable(String))": struct.pack("<QQQ", 1, 0x600, 2)
    + text("")
    + text("z")
    + struct.pack("<Q", 1)
    + b"\x01",
    # The version of the keys goes before everything, also before the offsets of an array.
    "Array(LowCardinality(String))": struct.pack("<QQQQ", 1, 1, 0x600, 1)
    + text("z")
    + struct.pack("<Q", 1)
    + b"\x00",
    "SimpleAggregateFunction(sum, UInt64)": bytes(8),
    "IPv6": bytes(16),
}


def block(kind: str, rows: int, values: bytes) -> bytes:
    return varint(1) + varint(rows) + text("column") + text(kind) + values


@pytest.mark.parametrize("kind", ONE_ROW)
def test_the_next_block_begins_where_the_values_of_a_type_end(kind: str) -> None:
    one = block(kind, 1, ONE_ROW[kind])

    found = list(blocks(one + one))

    assert [(part.columns, part.rows, part.data) for part in found] == [((("column", kind),), 1, one)] * 2


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_block_that_comes_in_pieces_is_the_same_block(size: int) -> None:
    whole = block("Map(String, Float64)", 1, ONE_ROW["Map(String, Float64)"])
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    reader = Reader(lambda: pieces.pop(0) if pieces else b"")

    assert reader.block().data == whole


def test_a_block_that_is_cut_short_is_an_error_wherever_it_is_cut() -> None:
    whole = block("Array(UInt16)", 1, ONE_ROW["Array(UInt16)"])
    for size in range(len(whole)):
        rest = [whole[:size]]
        with pytest.raises(EOFError):
            Reader(lambda rest=rest: rest.pop() if rest else b"").block()  # type: ignore[misc]


def test_a_block_without_rows_has_names_and_types_only() -> None:
    (found,) = blocks(empty_block([("a", "LowCardinality(String)"), ("b", "JSON")]))

    assert (found.columns, found.rows) == ((("a", "LowCardinality(String)"), ("b", "JSON")), 0)


@pytest.mark.parametrize(
    "kind", ["JSON", "Dynamic", "Array(Variant(UInt8, String))", "AggregateFunction(sum, UInt8)"]
)
def test_a_type_whose_end_cannot_be_known_is_refused_by_name(kind: str) -> None:
    with pytest.raises(TypeNotServed, match="are not served here"):
        layout_of(kind)


def test_a_block_can_name_other_types_of_the_same_layout() -> None:
    zoned = block("DateTime('UTC')", 2, bytes(8))

    assert retyped(block("DateTime", 2, bytes(8)), [("column", "DateTime('UTC')")]) == zoned


def test_arguments_are_split_at_outer_commas_only() -> None:
    assert split_arguments("`a,b` Array(Tuple(x, y)), Enum8('(' = 1, ',' = 2)") == [
        "`a,b` Array(Tuple(x, y))",
        "Enum8('(' = 1, ',' = 2)",
    ]


def test_numbers_have_seven_bits_a_byte() -> None:
    assert varint(0) == b"\x00"
    assert varint(300) == b"\xac\x02"
    assert Reader(lambda: b"\xac\x02").varint() == 300
