"""Segments are planned over profiles in ClickHouse, and put in force while a worker runs, and is killed."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import infra
from schemas import topics
from schemas.profile import LAYOUTS
from sinks.clickhouse.query import ask
from streams.engine.control import Clock
from streams.policy import load_policy
from streams.warehouse import Warehouse
from tests.support import oracle, pipeline
from tests.support import record as support
from tests.support import stack as stacks
from tests.support.stack import PATIENCE_S, Stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse]

PACKAGED = Path(infra.__file__).parent / "policy"
NOON = datetime(
    2017, 1, 15, 12, 5, tzinfo=UTC
)  # after the history; the next hour is minutes of the test away
SPEED = 2.0  # the sweep takes 30 s


@dataclass
class Told:
    """What the commands said, in their order."""

    planned_first: dict[str, object]
    refused: str
    adopted: str
    planned: dict[str, object]
    broken: str
    applied: str
    again: str
    version: int


def _changed(folder: Path) -> Path:
    """One segment wider, one renamed, one gone, one new."""
    shutil.copytree(PACKAGED, folder)
    segments = folder / "segments"
    _edit(segments / "active_browsers.toml", "views_7d >= 20", "views_7d >= 5")
    _edit(segments / "frequent_buyers.toml", '"frequent_buyers"', '"regulars"')
    (segments / "new_recipients.toml").unlink()
    (segments / "weekly.toml").write_text(
        'number = 8\nname = "weekly"\ndoc = "Bought within a week."\nwhere = "purchases_7d >= 1"\n'
    )
    return folder


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Warehouse, Told]]:
    changed = _changed(tmp_path_factory.mktemp("policy") / "changed")
    broken = Path(shutil.copytree(changed, changed.parent / "broken"))
    _edit(broken / "segments" / "weekly.toml", "purchases_7d >=", "purchases_8d >=")
    with stacks.running(tmp_path_factory.mktemp("segments")) as stack, support.clickhouse(stack) as house:
        ends = stacks.load(stack, days=14, households=150)
        worker, recorder = stack.start_worker(), stack.start_worker("record")
        stacks.await_plan(stack, ends)
        stacks.set_clock(stack, Clock("scaled", _millis(NOON), time.time_ns() // 1_000_000, SPEED))
        stacks.await_quiet(stack)
        support.await_landed(stack, recorder)
        planned_first = _json(stack, str(changed))
        refused = stack.run("segments", "apply", str(changed), "--why", "too soon")
        adopted = stack.run("segments", "apply", "--why", "as they are")
        planned = _json(stack, str(changed))
        wrong = stack.run("segments", "apply", str(broken), "--why", "a slip")
        done = stack.run("segments", "apply", str(changed), "--why", "a test")
        assert done.returncode == 0, done.stderr
        version = int(done.stdout.split("control version ")[1].split()[0])
        _await_versions(stack, {0, version})  # the sweep is under way
        worker.kill()
        worker.wait()
        worker = stack.start_worker()
        _await_versions(stack, {version})
        again = stack.run("segments", "apply", str(changed), "--why", "a test")
        worker.terminate()
        worker.wait(60)
        support.await_landed(stack, recorder)
        recorder.terminate()
        recorder.wait(60)
        said = (refused.stderr, adopted.stdout, planned, wrong.stdout, done.stdout, again.stdout)
        yield stack, house, Told(planned_first, *said, version)


def _millis(at: datetime) -> int:
    return int(at.timestamp()) * 1000


def _json(stack: Stack, folder: str) -> dict[str, object]:
    done = stack.run("segments", "plan", folder, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _versions(stack: Stack) -> set[int]:
    values = [
        row for p in range(stack.settings.partitions) for row in pipeline.rows(stack.client, p).values()
    ]
    return set(np.unique(LAYOUTS.read(values)["segments_version"]).tolist())


def _await_versions(stack: Stack, wanted: set[int]) -> None:
    """Wait until the rows know segments of these versions."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := _versions(stack)) != wanted:
        assert time.monotonic() < deadline, f"rows know segments of {found}, not of {wanted}"
        time.sleep(0.5)


def _moves(planned: dict[str, object]) -> Counter[tuple[str, bool]]:
    """Who enters and leaves by a plan; of one that has another name everybody does."""
    moves: Counter[tuple[str, bool]] = Counter()
    for each in planned["movements"]:  # type: ignore[attr-defined]
        before, now = each["before"], each["after"]
        if before is None or now is None or before["name"] == now["name"]:
            moves[(now or before)["name"], True] += each["enters"]
            moves[(now or before)["name"], False] += each["leaves"]
        else:
            moves[before["name"], False] += each["members"]
            moves[now["name"], True] += each["members"] + each["enters"] - each["leaves"]
    return +moves


def test_a_plan_tells_who_moves_and_the_audit_trail_that_they_did(
    applied: tuple[Stack, Warehouse, Told],
) -> None:
    stack, _, told = applied
    moved: Counter[tuple[str, bool]] = Counter()
    for record in pipeline.decoded(stack.client, topics.AUDIT.name, stack.settings.partitions):
        body = record["body"]
        if "definition" in body and body["cause"]["topic"] == topics.CONTROL.name:
            assert body["cause"]["offset"] == told.version - 1
            moved[body["segment"], body["entered"]] += 1
    assert moved == _moves(told.planned)
    assert {name for name, _ in moved} == {
        "active_browsers",
        "frequent_buyers",
        "regulars",
        "new_recipients",
        "weekly",
    }
    assert min(moved.values()) > 3


def test_what_was_decided_is_what_the_reference_decides(applied: tuple[Stack, Warehouse, Told]) -> None:
    stack, _, _ = applied
    assert oracle.violations(stack, load_policy(stack.settings)) == []
    verified = stack.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_profiles_name_segments_as_they_are_in_force(applied: tuple[Stack, Warehouse, Told]) -> None:
    _, house, told = applied
    profiles = dict(
        ask(house.address, house.views, "SELECT recipient_id, segments FROM profile_snapshot").rows
    )
    transitions = ask(
        house.address,
        house.views,
        "SELECT recipient_id, groupArrayIf(segment, inside) FROM (SELECT recipient_id, segment, "
        "argMax(entered, offset) AS inside FROM segment_transition GROUP BY ALL) GROUP BY recipient_id",
    ).rows
    members = {recipient: sorted(names) for recipient, names in profiles.items() if names}
    assert members == {recipient: sorted(names) for recipient, names in transitions if names}
    named = {name for names in members.values() for name in names}
    assert {"regulars", "weekly"} <= named
    assert not {"frequent_buyers", "new_recipients"} & named
    versions = ask(house.address, house.views, "SELECT DISTINCT segments_version FROM profile_snapshot").rows
    assert versions == [(told.version,)]


def test_before_anything_was_applied_a_plan_compares_with_what_everybody_is_in(
    applied: tuple[Stack, Warehouse, Told],
) -> None:
    told = applied[2]
    first = {each["after"]["name"]: each for each in told.planned_first["movements"]}  # type: ignore[attr-defined]
    assert first["active_browsers"]["enters"] > 3
    assert first["weekly"]["members"] == 0


def test_what_is_not_what_runs_or_is_wrong_is_refused_and_the_old_stays(
    applied: tuple[Stack, Warehouse, Told],
) -> None:
    stack, _, told = applied
    assert "put the segments of the files that run in force first" in " ".join(told.refused.split())
    assert "nobody moves" in told.adopted
    assert "weekly.toml:4:10: where: there is no feature purchases_8d" in told.broken
    assert "Nothing changes" in told.again
    log = stack.run("control", "log").stdout
    assert log.count("segments in force") == 2
    assert f"since control version {told.version}" in stack.run("control", "show").stdout
    shown = stack.run("segments", "show").stdout
    assert "regulars" in shown
    assert "views_7d >= 5" in shown
