"""Events of a file, CSV or Parquet, as activity: who was active when, and by which clock."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl

from models.sendtime.activity import Activity

_SECONDS_BELOW: Final = (
    100_000_000_000  # of Unix times: seconds reach it in the year 5138, milliseconds in 1973
)
_OFFSET: Final = r"^[+-]\d{2}:?\d{2}$"


class BadEvents(ValueError):
    """A file of events that cannot be used; the text names file, column, row and remedy."""


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
            raise BadEvents(f"{path}: no column {name!r}; there are: {', '.join(found.columns)}")
    if found.is_empty():
        raise BadEvents(f"{path}: no events")
    _refuse_nulls(path, found, columns.recipient)
    at = _times(path, found, columns.at)
    recipient = found[columns.recipient].cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1
    zone = _zones(path, found, columns)
    return Activity.of(recipient, at, zone), len(found)


def _table(path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema_length=10_000)
    except FileNotFoundError:
        raise BadEvents(f"{path}: there is no such file") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise BadEvents(f"{path}: is no CSV or Parquet that can be read: {error}") from None


def _refuse_nulls(path: Path, found: pl.DataFrame, name: str) -> None:
    missing = found[name].is_null()
    if missing.any():
        raise BadEvents(f"{path}: {name} is empty in {missing.sum()} rows, the first is {_row(missing)}")


def _row(mask: pl.Series) -> str:
    return f"row {mask.arg_max():,} (the first after the header is 0)"


def _times(path: Path, found: pl.DataFrame, name: str) -> np.ndarray:
    """UTC milliseconds."""
    _refuse_nulls(path, found, name)
    column = found[name]
    if column.dtype == pl.String:
        text = (
            column.str.strip_chars().str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T").str.replace("Z$", "+00:00")
        )
        zoned = text.str.contains(r"[+-]\d\d:?\d\d$")
        text = pl.select(pl.when(zoned).then(text).otherwise(text + "+00:00")).to_series()
        parsed = text.str.to_datetime("%+", time_unit="ms", time_zone="UTC", strict=False)
        wrong = parsed.is_null()
        if wrong.any():
            shown = column.filter(wrong)[0]
            raise BadEvents(
                f"{path}: {name} of {_row(wrong)} is {shown!r}: write ISO 8601, Unix seconds or milliseconds"
            )
        column = parsed
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return column.cast(pl.Datetime("ms")).to_physical().to_numpy().astype(np.int64)
    if not column.dtype.is_numeric():
        raise BadEvents(f"{path}: {name} holds {column.dtype}: write ISO 8601, Unix seconds or milliseconds")
    numbers = column.to_numpy()
    if not np.isfinite(numbers).all():
        raise BadEvents(f"{path}: {name} has values that are no times")
    unit = 1000 if np.abs(numbers).max() < _SECONDS_BELOW else 1
    return np.asarray((numbers * unit).astype(np.int64))


def _zones(path: Path, found: pl.DataFrame, columns: Columns) -> np.ndarray:
    default = columns.default_zone
    if columns.zone is None:
        names = pl.Series([default]).extend_constant(default, len(found) - 1)
    else:
        names = found[columns.zone].cast(pl.String).str.strip_chars()
        names = names.replace("", None).fill_null(default)
    offset = names.str.contains(_OFFSET)
    for name in names.filter(~offset).unique().to_list():
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            where = "--default-zone" if columns.zone is None else f"{path}: {columns.zone}"
            raise BadEvents(f"{where}: {name!r} is no IANA zone like Europe/Vienna, and no offset") from None
    return names.to_numpy().astype("S32")
