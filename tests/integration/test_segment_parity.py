"""A segment's SQL holds for the same recipients in the stream (polars), in ClickHouse and in SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.embedded.clickhouse import ClickHouseServer
from models import features as live
from models import profile, segment_sql
from models.features import FEATURES, Feature
from models.segments import Segments
from schemas.policy import Segment
from schemas.profile import HOUR_MS, ROW, empty
from schemas.settings import Settings
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.query import ask
from streams import warehouse
from streams.warehouse import Warehouse
from tests.reference import features
from tests.support import year
from tests.support.cuts import PACKAGED, changelog
from tests.support.record import land_profiles
from tests.support.stack import shopping

pytestmark = pytest.mark.clickhouse

NAMES = ("views_7d", "clicks_1h", "revenue_30d", "hours_since_view", "hours_since_first")
VALUES = st.sampled_from([None, 0.0, 1.0, 2.0, 3.0, 0.5, -0.05, 20.0, 255.0, 40_000.0, 87_600.25])
LITERALS = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "3",
        "0.1",
        "0.5",
        "1.25",
        "20",
        "127",
        "128",
        "255",
        "256",
        "40000",
        "65536",
        "999999999999999",
    ]
)
HOUR = 412_500  # in 2017
COMPARISONS = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])

numbers = st.recursive(
    st.sampled_from(NAMES) | LITERALS | st.builds("-{}".format, LITERALS),
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*"), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
        st.builds("-({})".format, inner),
        st.builds("({} - {}) / {}".format, st.sampled_from(NAMES), inner, st.sampled_from(["2", "0.5"])),
        st.builds("COALESCE({}, {})".format, inner, LITERALS),
    ),
    max_leaves=4,
)
conditions = st.recursive(
    st.one_of(
        st.builds("{} {} {}".format, numbers, COMPARISONS, numbers),
        st.builds("{} BETWEEN {} AND {}".format, st.sampled_from(NAMES), LITERALS, LITERALS),
        st.builds("{} IS {}".format, st.sampled_from(NAMES), st.sampled_from(["NULL", "NOT NULL"])),
    ),
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from(["AND", "OR"]), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner),
        st.builds("NOT {}".format, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=5,
)
profiles = st.lists(st.tuples(*[VALUES] * len(NAMES)), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    folder = tmp_path_factory.mktemp("parity")
    server = ClickHouseServer(folder)
    server.up()
    try:
        yield warehouse.connect(Settings(state_dir=folder, clickhouse=None))
    finally:
        server.down()


@pytest.fixture(scope="module")
def client(house: Warehouse) -> Iterator[ClickHouse]:
    made = house.connect()
    yield made
    made.close()


def in_stream(wheres: Sequence[str], rows: Sequence[Sequence[float | None]]) -> list[list[bool]]:
    segments = Segments.compile(
        [Segment(number=n, name=f"s{n}", where=where, doc="For tests.") for n, where in enumerate(wheres)]
    )
    columns = [NAMES.index(feature.name) for feature in segments.features]
    values = np.array([[np.nan if row[c] is None else row[c] for c in columns] for row in rows], np.float64)
    return [list(map(bool, held)) for held in segments.holds(values).tolist()]


def in_clickhouse(
    client: ClickHouse, wheres: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[float | None]]
) -> list[list[bool]]:
    columns = ", ".join(f"{name} Nullable(Float64)" for name in names)
    tuples = ", ".join(
        f"({', '.join('NULL' if value is None else repr(value) for value in row)})" for row in rows
    )
    asked = ", ".join(f"ifNull(({where}), 0)" for where in wheres)
    # Made of this test's own names and numbers.
    found = client.execute(f"SELECT {asked} FROM values('{columns}', {tuples})")  # noqa: S608
    return [list(map(bool, row)) for row in found]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(conditions.filter(lambda where: not segment_sql.lint(where)), profiles)
def test_whatever_may_be_written_holds_for_the_same_profiles(
    client: ClickHouse, where: str, rows: list[tuple[float | None, ...]]
) -> None:
    held = in_stream([where], rows)
    assert held == in_clickhouse(client, [where], NAMES, rows)
    assert held == [[features.holds(where, dict(zip(NAMES, row, strict=True)))] for row in rows]


def test_much_of_what_is_generated_may_be_written() -> None:
    allowed: list[bool] = []

    @settings(max_examples=200, database=None)
    @given(conditions)
    def count(where: str) -> None:
        allowed.append(not segment_sql.lint(where))

    count()
    assert sum(allowed) > len(allowed) / 3


def test_the_packaged_segments_hold_for_the_same_profiles(client: ClickHouse) -> None:
    chance = np.random.default_rng(1)
    compiled = Segments.compile(PACKAGED.segments)
    values = chance.choice([np.nan, 0, 1, 3, 4, 5, 20, 21.5, 72, 120, 167.9, 504, 20_000], (500, 8))
    values = values[:, : len(compiled.features)]
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in values]
    names = [feature.name for feature in compiled.features]
    wheres = [segment.where for segment in PACKAGED.segments]
    held = compiled.holds(values)
    assert held.any(0).all() and not held.all(0).any(), "every segment holds for some and not for others"
    assert held.tolist() == in_clickhouse(client, wheres, names, rows)


def _random_profiles() -> dict[bytes, bytes]:
    chance = np.random.default_rng(6)
    rows = empty(300)
    for name in ("hourly", "daily", "revenue"):
        rows[name] = chance.integers(0, 200, rows[name].shape) * (chance.random(rows[name].shape) < 0.1)
    rows["hour"] = chance.integers(HOUR - 1_000, HOUR + 1, len(rows))
    at = rows["hour"].astype(np.int64)[:, None] * HOUR_MS - chance.integers(0, 10**9, rows["last"].shape)
    rows["last"] = at * (chance.random(at.shape) < 0.5)
    rows["first"] = rows["last"].max(1)
    return {b"%d" % n: row.tobytes() for n, row in enumerate(rows)}


def _real_profiles() -> dict[bytes, bytes]:
    events, start, end = shopping(days=30, households=60)
    nows = year.moments(_millis(start), _millis(end), 6 * HOUR_MS, seed=2)
    rows: dict[bytes, bytes] = {}
    for _, handled, _ in year.decided(PACKAGED, year.cuts(events, nows)):
        rows |= changelog(handled)
    return rows


def _values(feature: Feature, rows: np.ndarray, now: int) -> np.ndarray:
    if feature.parts:
        return live.rate(*(_values(part, rows, now) for part in feature.parts))
    return live.value(feature, live.base(rows, feature, now), now)


def _millis(at: datetime) -> int:
    return int(at.timestamp()) * 1000


@pytest.mark.parametrize("profiles", [_random_profiles, _real_profiles])
@pytest.mark.parametrize("hours", [0, 1, 30, 24 * 20, 24 * 50])
def test_features_of_stored_profiles_are_those_of_the_rows_at_any_time(
    house: Warehouse, profiles: Callable[[], dict[bytes, bytes]], hours: int
) -> None:
    """And so is membership, which `opportune segments plan` works out of them."""
    house.migrate()
    stored = profiles()
    land_profiles(house, stored)
    rows = np.frombuffer(b"".join(stored.values()), ROW).copy()
    now = (int(rows["hour"].max()) + hours) * HOUR_MS + 1_234_567
    profile.roll(rows, now)
    values = [_values(feature, rows, now) for feature in FEATURES.values()]
    compiled = Segments.compile(PACKAGED.segments)
    held = compiled.holds(np.column_stack([values[[*FEATURES].index(f.name)] for f in compiled.features]))

    sql = ", ".join(f"{live.in_clickhouse(feature, now)} AS {name}" for name, feature in FEATURES.items())
    asked = ", ".join(f"ifNull(({segment.where}), 0)" for segment in PACKAGED.segments)
    names = ", ".join(FEATURES)
    found = ask(
        house.address,
        house.views,
        f"SELECT recipient_id, [{names}], [{asked}] FROM (SELECT recipient_id, {sql} FROM profile_snapshot)",  # noqa: S608
    ).rows
    by_key = {who: (features_of, members) for who, features_of, members in found}
    for place, key in enumerate(stored):
        features_of, members = by_key[key.decode()]
        expected = [None if np.isnan(column[place]) else float(column[place]) for column in values]
        assert features_of == expected
        assert [bool(each) for each in members] == held[place].tolist()
