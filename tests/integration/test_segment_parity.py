"""A segment's SQL holds for the same recipients in the stream (polars), in ClickHouse and in SQLite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.embedded.clickhouse import ClickHouseServer
from models import segment_sql
from models.segments import Segments
from schemas.policy import Segment
from schemas.settings import Settings
from sinks.clickhouse.client import ClickHouse
from streams import warehouse
from tests.reference import features
from tests.support.cuts import PACKAGED

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
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    folder = tmp_path_factory.mktemp("parity")
    server = ClickHouseServer(folder)
    server.up()
    try:
        made = warehouse.connect(Settings(state_dir=folder, clickhouse=None)).connect()
        yield made
        made.close()
    finally:
        server.down()


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
