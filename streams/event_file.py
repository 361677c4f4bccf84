"""Events of a file, CSV or Parquet, as activity: who was active when, and by which clock."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl

from models.sendtime.activity import Activity

# Of Unix times: seconds reach it in the year 5138, milliseconds in 1973.
_SECONDS_BELOW: Final = 100_000_000_000
_OFFSET: Final = re.compile(r"[+-](0\d|1[0-4]):?[0-5]\d")
_LONGEST_ZONE: Final = 32
_TIMES: Final = "write ISO 8601, Unix seconds or milliseconds"
_ZONES: Final = "write an IANA zone like Europe/Vienna, or an offset like +02:00"


class BadEvents(ValueError):
    """A file of events that cannot be used; the text names file, column, row and remedy, in one line."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a file say who, when, and by which clock; no `zone`: `default_zone` for all."""

    recipient: str
    at: str
    zone: str | None
    default_zone: str


def read(path: Path, columns: Columns) -> tuple[Activity, int]:
    """The activity in a file, and how many events it has. Raises `BadEvents`.

    Times are ISO 8601 (without an offset: UTC), or Unix seconds or milliseconds. Zones are IANA names or
    offsets like +02:00; where a row has none, it is the default.
    """
    found = _table(path)
    wanted = [columns.recipient, columns.at, *([columns.zone] if columns.zone else [])]
    for name in wanted:
        if name not in found.columns:
            raise BadEvents(f"{path}: no column {name!r}; there are: {', '.join(map(repr, found.columns))}")
    if found.is_empty():
        raise BadEvents(f"{path}: no events")
    _refuse_empty(path, found, columns.recipient)
    at = _times(path, found, columns.at)
    recipient = _text(path, found, columns.recipient).rank("dense").to_numpy().astype(np.int64) - 1
    zone = _zones(path, found, columns)
    return Activity.of(recipient, at, zone), len(found)


def _table(path: Path) -> pl.DataFrame:
    if path.is_dir():  # polars would read all that is in it
        raise BadEvents(f"{path}: is a folder, name a file in it")
    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path, glob=False)
        # All as text: of numbers, recipients 007 and 7 would be one, and +0200 no offset.
        return pl.read_csv(path, infer_schema=False, glob=False)
    except FileNotFoundError:
        raise BadEvents(f"{path}: there is no such file") from None
    except pl.exceptions.NoDataError:
        raise BadEvents(f"{path}: no events") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        why = str(error).partition("\n")[0]
        raise BadEvents(f"{path}: is no CSV or Parquet that can be read: {why}") from None


def _refuse_empty(path: Path, found: pl.DataFrame, name: str) -> None:
    column = found[name]
    missing = column.is_null()
    if column.dtype == pl.String:
        missing |= (column.str.strip_chars() == "").fill_null(True)
    if missing.any():
        raise BadEvents(f"{path}: {name} is empty in {missing.sum()} rows, the first is {_row(missing)}")


def _row(mask: pl.Series) -> str:
    return f"row {mask.arg_max():,} (the first after the header is 0)"


def _text(path: Path, found: pl.DataFrame, name: str) -> pl.Series:
    try:
        return found[name].cast(pl.String)
    except pl.exceptions.PolarsError:
        raise BadEvents(f"{path}: {name} holds {found[name].dtype}: write text or numbers") from None


def _times(path: Path, found: pl.DataFrame, name: str) -> np.ndarray:
    """UTC milliseconds."""
    _refuse_empty(path, found, name)
    column, shown = found[name], found[name]
    if column.dtype == pl.String:
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
        column = _parsed(column) if numbers.has_nulls() else numbers
    if column.dtype.is_numeric():
        numbers = column.cast(pl.Float64)
        seconds = numbers.abs() < _SECONDS_BELOW
        if seconds.any() and not seconds.all():
            one, other = shown.filter(seconds)[0], shown.filter(~seconds)[0]
            raise BadEvents(f"{path}: {name} holds seconds, {one}, and milliseconds, {other}: write either")
        column = numbers * (1000 if seconds.all() else 1)
    elif isinstance(column.dtype, pl.Datetime):
        column = column.dt.epoch("ms").cast(pl.Float64)
    else:
        raise BadEvents(f"{path}: {name} holds {column.dtype}: {_TIMES}")
    # As milliseconds, what is beyond the limit is in a finer unit.
    wrong = ~column.is_between(0, 1000 * _SECONDS_BELOW, closed="left").fill_null(False)
    if wrong.any():
        raise BadEvents(f"{path}: {name} of {_row(wrong)} is {str(shown.filter(wrong)[0])!r}: {_TIMES}")
    return column.to_numpy().astype(np.int64)


def _parsed(text: pl.Series) -> pl.Series:
    """Times of ISO 8601, UTC where there is no offset; null where it is none."""
    text = text.str.strip_chars().str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T").str.replace("[zZ]$", "+00:00")
    text = text.str.replace(r"T(\d\d:\d\d)($|[+-])", "T${1}:00${2}")
    text = text.str.replace(r"(T.*[+-]\d\d)$", "${1}:00")
    zoned = text.str.contains(r"T.*[+-]\d\d:?\d\d$")
    text = pl.select(pl.when(zoned).then(text).otherwise(text + "+00:00")).to_series()
    return text.str.to_datetime("%+", time_unit="ms", time_zone="UTC", strict=False)


def _zones(path: Path, found: pl.DataFrame, columns: Columns) -> np.ndarray:
    default = columns.default_zone.strip()
    if not _is_zone(default):
        raise BadEvents(f"--default-zone is {default!r}: {_ZONES}")
    if columns.zone is None:
        return np.full(len(found), default.encode(), f"S{_LONGEST_ZONE}")
    names = _text(path, found, columns.zone).str.strip_chars().replace("", None).fill_null(default)
    unknown = [name for name in names.unique().to_list() if not _is_zone(name)]
    if unknown:
        wrong = names.is_in(unknown)
        shown = names.filter(wrong)[0]
        raise BadEvents(f"{path}: {columns.zone} of {_row(wrong)} is {shown!r}: {_ZONES}")
    return names.to_numpy().astype(f"S{_LONGEST_ZONE}")


def _is_zone(name: str) -> bool:
    if _OFFSET.fullmatch(name):
        return True
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return len(name.encode()) <= _LONGEST_ZONE
