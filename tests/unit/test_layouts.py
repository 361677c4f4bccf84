"""Rows of older versions are brought up to date as they are read; of a newer one nothing is read."""

import numpy as np
import pytest

from schemas import dispatch, profile
from schemas.layouts import Layouts, NewerRow, NoRow

ONE = np.dtype([("version", "u1"), ("count", "<i8")])
TWO = np.dtype([("version", "u1"), ("kind", "S3"), ("count", "<i8")])
THREE = np.dtype([("version", "u1"), ("count", "<i4"), ("twice", "<i8")])


def _kind(old: np.ndarray, new: np.ndarray) -> None:
    new["kind"] = np.where(old["count"] > 5, b"big", b"few")


def _twice(old: np.ndarray, new: np.ndarray) -> None:
    new["twice"] = 2 * old["count"]


LAYOUTS = Layouts("a row", (ONE, TWO, THREE), (_kind, _twice))


def _one(count: int) -> bytes:
    return np.array([(1, count)], ONE).tobytes()


def _two(count: int) -> bytes:
    return np.array([(2, b"few", count)], TWO).tobytes()


def _three(count: int) -> bytes:
    return np.array([(3, count, 2 * count)], THREE).tobytes()


@pytest.mark.parametrize(
    "values", [[_one(4), _one(9)], [_two(4), _one(9)], [_three(4), _two(9)], [_three(4)]]
)
def test_rows_of_any_version_are_read_in_their_order(values: list[bytes]) -> None:
    rows = LAYOUTS.read(values)
    assert rows.dtype == THREE
    assert rows["version"].tolist() == [3] * len(values)
    assert rows["count"].tolist() == [4, 9][: len(values)]
    assert rows["twice"].tolist() == [8, 18][: len(values)]


def test_steps_follow_one_another() -> None:
    rows = Layouts("a row", (ONE, TWO), (_kind,)).read([_one(4), _one(9)])
    assert rows["kind"].tolist() == [b"few", b"big"]


def test_nothing_is_read_of_nothing() -> None:
    assert len(LAYOUTS.read([])) == 0


def test_a_newer_row_says_what_to_do() -> None:
    with pytest.raises(NewerRow, match="a row has version 4, this program knows 3; deploy the newer program"):
        LAYOUTS.read([_three(1), b"\x04" + bytes(40)])


@pytest.mark.parametrize(
    "value", [b"", bytes(ONE.itemsize), _one(1)[:-1], _one(1) + b"x", b"\x02" + _one(1)[1:]]
)
def test_what_is_no_row_is_not_read(value: bytes) -> None:
    with pytest.raises(NoRow):
        LAYOUTS.read([_three(1), value])
    with pytest.raises(NoRow):
        LAYOUTS.read([value])


def test_a_send_of_before_lanes_had_identities_and_models_were_told_keeps_its_lane() -> None:
    old = np.zeros(1, profile.LAYOUTS.versions[2])
    old["version"], old["recent"] = 3, np.arange(12)
    old["pending"][0, 5] = (profile.Slot.RELEASED, 3, 11, 12, b"\xff" * 16, b"gmail")
    [row] = profile.LAYOUTS.read([old.tobytes()])
    assert row["pending"][5].item() == (profile.Slot.RELEASED, 3, 11, 12, b"\xff" * 16, b"gmail", 0, 0, 0)
    assert row["recent"].tolist() == [*range(4, 12)]


def test_each_version_needs_its_step_and_begins_with_itself() -> None:
    with pytest.raises(AssertionError, match="needs its step"):
        Layouts("a row", (ONE, TWO))
    with pytest.raises(AssertionError, match="the version comes first"):
        Layouts("a row", (np.dtype([("count", "<i8"), ("version", "u1")]),))


def test_the_programs_own_rows_are_of_the_newest_layout() -> None:
    for module, row in ((profile, profile.ROW), (dispatch, dispatch.DISPATCH)):
        assert module.LAYOUTS.dtype == row
        assert module.LAYOUTS.newest == module.ROW_VERSION
        assert (module.empty(2)["version"] == module.ROW_VERSION).all()
