"""The oracle sees cuts that are missing, and records in none, in two, or without a fate."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import oracle

_NAME = "behaviour.clicks"


def _cut(number: int, next_offset: int, consumed: int, decided: int) -> dict[str, Any]:
    fates = dict.fromkeys(oracle.FATES, 0) | {"decided": decided}
    return {
        "number": number,
        "topics": [{"topic": _NAME, "next_offset": next_offset, "consumed": consumed} | fates],
    }


# Offset 2 is a transaction's marker: no record.
_OFFSETS = {_NAME: [0, 1, 3, 4]}


def test_cuts_in_line_that_hold_every_record_are_right() -> None:
    assert list(oracle.gaps(0, [_cut(1, 2, 2, 2), _cut(2, 5, 2, 2)], _OFFSETS)) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([_cut(1, 2, 2, 2), _cut(3, 5, 2, 2)], "has the cuts [1, 3]"),
        ([_cut(1, 2, 2, 2), _cut(1, 2, 2, 2), _cut(2, 5, 2, 2)], "has the cuts [1, 1, 2]"),
        ([_cut(1, 2, 2, 2), _cut(2, 4, 1, 1)], "1 records from 4 on are in no cut"),
        ([_cut(1, 2, 2, 2), _cut(2, 5, 3, 3)], "2 records, 3 consumed"),
        ([_cut(1, 2, 2, 2), _cut(2, 5, 2, 1)], "2 consumed, 1 with a fate"),
        ([_cut(1, 4, 3, 3), _cut(2, 2, 0, 0), _cut(3, 5, 3, 3)], "4 to 2: 0 records"),
    ],
)
def test_what_is_wrong_with_cuts_is_said(entries: list[dict[str, Any]], said: str) -> None:
    assert any(said in line for line in oracle.gaps(0, entries, _OFFSETS))
