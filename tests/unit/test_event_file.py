"""Events of a file: one activity however it is written, and every mistake told in one line."""

import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from models.sendtime.activity import Activity
from streams import event_file
from streams.event_file import BadEvents, Columns

COLUMNS = Columns("who", "at", None, "UTC")
ZONED = Columns("who", "at", "zone", "Europe/Vienna")
WHO = ["ann", "ben", "ann", "007", "7", "ann"]
SECONDS = [1_519_905_600 + 5000 * i for i in range(6)]  # from 2018-03-01 12:00 UTC on
MOMENTS = [datetime.fromtimestamp(at, UTC) for at in SECONDS]


def written(folder: Path, at: list[Any], who: list[Any] = WHO, **more: list[Any]) -> Path:
    rows = zip(who, at, *more.values(), strict=True)
    lines = [",".join(["who", "at", *more]), *(",".join(map(str, row)) for row in rows)]
    path = folder / "events.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "events.parquet"
    pl.DataFrame(columns, strict=False).write_parquet(path)
    return path


def plain(activity: Activity) -> list[list[Any]]:
    return [each.tolist() for each in (activity.recipient, activity.hour, activity.local, activity.zone)]


def read(path: Path, columns: Columns = COLUMNS) -> list[list[Any]]:
    activity, count = event_file.read(path, columns)
    assert count == len(WHO)
    return plain(activity)


@pytest.fixture
def expected(tmp_path: Path) -> list[list[Any]]:
    folder = tmp_path / "plain"
    folder.mkdir()
    found = read(written(folder, SECONDS))
    number = {who: i for i, who in enumerate(sorted({*WHO}))}
    recipient = np.array([number[who] for who in WHO])
    zone = np.full(len(WHO), b"UTC", "S32")
    assert found == plain(Activity.of(recipient, np.array(SECONDS) * 1000, zone))
    return found


TEXTS: dict[str, Callable[[datetime], Any]] = {
    "milliseconds": lambda at: round(at.timestamp() * 1000),
    "seconds with a fraction": lambda at: f"{at.timestamp():.3f}",
    "ISO in UTC": lambda at: at.isoformat(),
    "ISO with Z": lambda at: at.isoformat().replace("+00:00", "Z"),
    "ISO without an offset": lambda at: at.replace(tzinfo=None).isoformat(),
    "ISO with a blank": lambda at: f"{at:%Y-%m-%d %H:%M:%S}",
    "ISO with a blank and an offset": lambda at: f"{at + timedelta(hours=2):%Y-%m-%d %H:%M:%S}+02:00",
    "ISO with an offset of minutes": lambda at: f"{at - timedelta(minutes=570):%Y-%m-%dT%H:%M:%S}-0930",
    "ISO with an offset of hours": lambda at: f"{at + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02",
    "ISO without seconds": lambda at: f"{at:%Y-%m-%dT%H:%M}",
    "ISO without seconds, with an offset": lambda at: f"{at + timedelta(hours=5):%Y-%m-%d %H:%M}+05:00",
    "ISO with milliseconds": lambda at: f"{at:%Y-%m-%dT%H:%M:%S}.250Z",
    "ISO with microseconds": lambda at: f" {at:%Y-%m-%dT%H:%M:%S}.123456+00:00 ",
}


@pytest.mark.parametrize("how", TEXTS)
def test_times_may_be_written_in_many_ways(tmp_path: Path, expected: list[list[Any]], how: str) -> None:
    at = [TEXTS[how](moment) for moment in MOMENTS]
    assert read(written(tmp_path, at)) == expected
    assert read(parquet(tmp_path, who=WHO, at=at)) == expected


COLUMN_TYPES: dict[str, Callable[[], pl.Series]] = {
    "whole seconds": lambda: pl.Series(SECONDS, dtype=pl.UInt32),
    "floats": lambda: pl.Series(SECONDS, dtype=pl.Float64),
    "milliseconds": lambda: pl.Series(SECONDS) * 1000,
    "naive": lambda: pl.Series([at.replace(tzinfo=None) for at in MOMENTS], dtype=pl.Datetime("ns")),
    "aware": lambda: pl.Series(MOMENTS, dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone("Asia/Kolkata"),
}


@pytest.mark.parametrize("kind", COLUMN_TYPES)
def test_times_of_a_parquet_may_be_of_many_types(
    tmp_path: Path, expected: list[list[Any]], kind: str
) -> None:
    assert read(parquet(tmp_path, who=WHO, at=COLUMN_TYPES[kind]())) == expected


def test_a_file_may_be_compressed(tmp_path: Path, expected: list[list[Any]]) -> None:
    path = tmp_path / "events.csv.gz"
    path.write_bytes(gzip.compress(written(tmp_path, SECONDS).read_bytes()))
    assert read(path) == expected


def test_recipients_are_what_is_written_not_numbers(tmp_path: Path) -> None:
    activity, _ = event_file.read(
        written(tmp_path, SECONDS, ["7", "07", "7.0", "12345678901234567890", "12345678901234567891", "x"]),
        COLUMNS,
    )
    assert len({*activity.recipient.tolist()}) == 6


def test_recipients_of_a_parquet_may_be_numbers(tmp_path: Path) -> None:
    activity, _ = event_file.read(parquet(tmp_path, who=[5, 5, 6, 7, 5, 6], at=SECONDS), COLUMNS)
    assert len({*activity.recipient.tolist()}) == 3


def test_a_late_kind_of_value_is_no_surprise(tmp_path: Path) -> None:
    """Kinds of columns are not told by their first rows."""
    count = 20_000
    who, at = [*range(count), "ann"], [SECONDS[0]] * (count + 1)
    activity, found = event_file.read(written(tmp_path, at, who), COLUMNS)
    assert (found, len(activity)) == (count + 1, count + 1)


def test_each_row_may_have_a_zone_or_an_offset(tmp_path: Path) -> None:
    zone = ["America/New_York", "+0530", "", " Asia/Tokyo ", "-02:00", "UTC"]
    told = [b"America/New_York", b"+0530", b"Europe/Vienna", b"Asia/Tokyo", b"-02:00", b"UTC"]
    offset = [-5, 5.5, 1, 9, -2, 0]
    who = [f"r{i}" for i in range(6)]
    for path in (
        written(tmp_path, [SECONDS[0]] * 6, who, zone=zone),
        parquet(tmp_path, who=who, at=[SECONDS[0]] * 6, zone=[name or None for name in zone]),
    ):
        activity, _ = event_file.read(path, ZONED)
        assert activity.zone.tolist() == told
        assert (activity.local - activity.hour).tolist() == [int(hours // 1) for hours in offset]


def test_the_zone_of_all_may_be_an_offset(tmp_path: Path) -> None:
    activity, _ = event_file.read(written(tmp_path, SECONDS), Columns("who", "at", None, "+02:00"))
    assert {*activity.zone.tolist()} == {b"+02:00"}


def refused(path: Path, columns: Columns = COLUMNS) -> str:
    with pytest.raises(BadEvents) as error:
        event_file.read(path, columns)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for name in ("nowhere.csv", "nowhere.csv.gz", "nowhere.parquet"):
        assert refused(tmp_path / name) == f"{tmp_path / name}: there is no such file"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    written(tmp_path, SECONDS)
    assert "is a folder" in refused(tmp_path)


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    written(tmp_path, SECONDS)
    assert "no such file" in refused(tmp_path / "*.csv")


@pytest.mark.parametrize("columns", [Columns("when", "at", None, "UTC"), Columns("who", "at", "tz", "UTC")])
def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path, columns: Columns) -> None:
    path = written(tmp_path, SECONDS)
    missing = columns.zone or columns.recipient
    assert refused(path, columns) == f"{path}: no column {missing!r}; there are: 'who', 'at'"


def test_a_file_without_events_is_told(tmp_path: Path) -> None:
    assert refused(written(tmp_path, [], [])).endswith("no events")
    assert refused(parquet(tmp_path, who=[], at=[])).endswith("no events")
    (tmp_path / "empty.csv").write_text("")
    assert refused(tmp_path / "empty.csv").endswith("no events")


@pytest.mark.parametrize("blank", ["", '""', '"  "'])
def test_an_empty_value_is_told_with_its_row(tmp_path: Path, blank: str) -> None:
    who, at = [*WHO[:3], blank, blank, "ann"], [*SECONDS[:4], blank, SECONDS[5]]
    text = refused(written(tmp_path, SECONDS, who))
    assert "who is empty in 2 rows, the first is row 3 (the first after the header is 0)" in text
    assert "at is empty in 1 rows, the first is row 4 (" in refused(written(tmp_path, at))


def test_an_empty_value_of_a_parquet_is_told_too(tmp_path: Path) -> None:
    assert "who is empty in 1 rows, the first is row 1 (" in refused(
        parquet(tmp_path, who=["ann", None], at=SECONDS[:2])
    )
    assert "at is empty in 1 rows, the first is row 0 (" in refused(
        parquet(tmp_path, who=["ann", "ben"], at=[None, SECONDS[0]])
    )


@pytest.mark.parametrize(
    "bad",
    [
        "yesterday",
        "2018-03-01",  # a day has no hour
        "2018-13-01T00:00:00",
        "2018-03-01T25:00:00",
        "01.03.2018 12:00",
        "10000-01-01T00:00:00",
        "1969-12-31T23:59:59Z",
    ],
)
def test_a_bad_time_is_told_with_its_row_and_what_to_write(tmp_path: Path, bad: str) -> None:
    at = [moment.isoformat() for moment in MOMENTS]
    at[4] = bad
    text = refused(written(tmp_path, at))
    assert f"at of row 4 (the first after the header is 0) is {bad!r}: write ISO 8601" in text
    assert refused(written(tmp_path, [bad] * 6)).endswith("write ISO 8601, Unix seconds or milliseconds")


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "-5", str(SECONDS[0] * 1_000_000)])
def test_a_number_that_is_no_time_is_told(tmp_path: Path, bad: str) -> None:
    at = [str(second * 1000) for second in SECONDS]
    at[2] = bad
    assert bad in refused(written(tmp_path, at))
    assert f"at of row 0 (the first after the header is 0) is '{bad}'" in refused(
        written(tmp_path, [bad] * 6)
    )


def test_seconds_and_milliseconds_in_one_column_are_told(tmp_path: Path) -> None:
    text = refused(written(tmp_path, [*SECONDS[:5], SECONDS[5] * 1000]))
    assert f"seconds, {SECONDS[0]}, and milliseconds, {SECONDS[5] * 1000}" in text


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([date(2018, 3, 1)] * 2),
        pl.Series([True, False]),
        pl.Series([timedelta(1)] * 2),
        pl.Series([[1], [2]]),
    ],
)
def test_a_column_of_no_times_is_told_with_its_type(tmp_path: Path, values: pl.Series) -> None:
    assert f"at holds {values.dtype}" in refused(parquet(tmp_path, who=["ann", "ben"], at=values))


def test_recipients_that_are_no_text_are_told(tmp_path: Path) -> None:
    assert "who holds List(Int64)" in refused(parquet(tmp_path, who=[[1], [2]], at=SECONDS[:2]))


@pytest.mark.parametrize("bad", ["Europe/Vjenna", "../UTC", "Europe", "+99:00", "02:00", "é", "x" * 400])
def test_a_zone_that_is_none_is_told_with_its_row(tmp_path: Path, bad: str) -> None:
    zone = ["UTC", "", bad, "UTC", bad, "UTC"]
    text = refused(written(tmp_path, SECONDS, zone=zone), ZONED)
    assert f"zone of row 2 (the first after the header is 0) is {bad!r}: write an IANA zone" in text
    for columns in (Columns("who", "at", None, bad), Columns("who", "at", "zone", bad)):
        text = refused(written(tmp_path, SECONDS, zone=["UTC"] * 6), columns)
        assert text.startswith(f"--default-zone is {bad!r}: write an IANA zone")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("picture.csv", bytes(range(256)) * 9),
        ("ragged.csv", b"who,at\nann,1,2\n"),
        ("cut.csv.gz", gzip.compress(b"who,at\n" + b"ann,1519905600\n" * 900, mtime=0)[:60]),
        ("text.parquet", b"who,at\nann,1519905600\n"),
        ("nothing.parquet", b""),
    ],
)
def test_what_is_no_table_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    text = refused(tmp_path / name)
    assert text.startswith(f"{tmp_path / name}: is no CSV or Parquet that can be read: ")
    assert not text.endswith(": ")


def test_bytes_that_pass_for_a_table_are_not_printed(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_bytes(b"\x1b[31m\x00\n\x03\x04")
    assert refused(tmp_path / "odd.csv").isprintable()
