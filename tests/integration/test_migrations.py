"""Tables that an older program made and filled, and this one migrates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.embedded.clickhouse import ClickHouseServer
from schemas.settings import Settings
from sinks.clickhouse import migrate
from sinks.clickhouse.client import ClickHouse
from streams import warehouse

pytestmark = pytest.mark.clickhouse


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ClickHouse]:
    server = ClickHouseServer(tmp_path)
    server.up()
    try:
        made = warehouse.connect(Settings(state_dir=tmp_path, clickhouse=None)).connect()
        yield made
        made.close()
    finally:
        server.down()


def test_a_cut_from_before_rows_were_counted_says_so(client: ClickHouse) -> None:
    known = migrate.migrations()
    before = [each for each in known if each.number < 10]
    migrate.migrate(client, "older", before)
    columns: list[list[Any]] = [["decide"], [1], [datetime(2017, 2, 3, tzinfo=UTC)], [datetime.now(UTC)]]
    client.insert("older_stored.cut", ("line", "cut", "at", "written_at"), columns, {"async_insert": 0})
    assert migrate.migrate(client, "older")[0] == "0010_cut_rows"
    assert client.execute("SELECT cut, rows FROM older.cut") == [(1, -1)]
    client.insert(
        "older_stored.cut",
        ("line", "cut", "at", "written_at", "rows"),
        [["decide"], [2], *columns[2:], [7]],
        {"async_insert": 0},
    )
    assert client.execute("SELECT cut, rows FROM older.cut ORDER BY cut") == [(1, -1), (2, 7)]


def test_a_decision_from_before_arms_is_of_the_model_and_its_gates_needed_nothing_known(
    client: ClickHouse,
) -> None:
    migrate.migrate(client, "older", [each for each in migrate.migrations() if each.number < 11])
    row = {
        "recipient_id": "ann",
        "at": datetime(2017, 2, 3, tzinfo=UTC),
        "written_at": datetime.now(UTC),
        "gates.name": ["suppression", "cooldown"],
        "gates.passed": [True, False],
        "gates.detail": ["none", "rests until 5"],
    }
    client.insert(
        "older_stored.decision", tuple(row), [[value] for value in row.values()], {"async_insert": 0}
    )
    assert "0011_arms_and_needs" in migrate.migrate(client, "older")
    told = client.execute("SELECT gates.name, gates.needed, arm, worth, would_be_due_at FROM older.decision")
    assert told == [(["suppression", "cooldown"], ["", ""], "model", None, None)]
