"""Models are trained from the audit trail and take their roles while a worker decides, and is killed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from models.arms import in_canary
from schemas import topics
from schemas.policy import BUILT_IN
from sinks.clickhouse.query import ask
from streams import control as changing
from streams.control import ModelChange, ModelIntercept
from streams.model_registry import change_of
from streams.policy import load_policy
from streams.replay import completejourney, session
from streams.warehouse import Warehouse
from tests.support import models, oracle, pipeline
from tests.support import record as support
from tests.support import stack as stacks
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse]

DAYS, HOUSEHOLDS = 45, 350
START = completejourney.FIRST + timedelta(days=DAYS, hours=14)  # the shops are open
STRETCH = timedelta(hours=12)  # so that each stage has a part of two of them
SPEED = 6000.0
SHARE = 0.5


@dataclass
class Told:
    """The version that was trained, and the control version from which on each thing was in force."""

    version: str
    since: dict[str, int]
    said: dict[str, str]


def _run(stack: Stack, *command: str) -> str:
    done = stack.run(*command)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _version_of(said: str) -> int:
    return int(said.split("control version ")[1].split()[0])


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Warehouse, Told]]:
    with stacks.running(tmp_path_factory.mktemp("models")) as stack, support.clickhouse(stack) as house:
        ends = stacks.load(stack, days=DAYS, households=HOUSEHOLDS)
        worker, recorder = stack.start_worker(), stack.start_worker("record")
        stacks.await_plan(stack, ends)
        support.await_landed(stack, recorder)
        said = {"none": _run(stack, "model", "list")}
        said["trained"] = _run(stack, "model", "train", "--default-zone", "America/New_York")
        version = said["trained"].split()[0]
        said["listed"] = _run(stack, "model", "list")

        since: dict[str, int] = {}

        def promote(stage: str) -> None:
            words = ["model", "promote", version[:8], "--to", stage, "--why", "a test"]
            said[stage] = _run(stack, *words, *(["--share", str(SHARE)] if stage == "canary" else []))
            since[stage] = _version_of(said[stage])

        def kill() -> None:
            worker.kill()
            worker.wait()
            stack.start_worker()

        def correct() -> None:
            changing.set_intercept(stack.client, ModelIntercept(version, 0.9), "a test", "a wrong one")
            said["guarded"] = _run(stack, "model", "guard")
            since["guarded"] = _version_of(said["guarded"])

        def tamper() -> None:
            since["tampered"] = changing.set_model(stack.client, _tampered(), "mallory", "a test")

        def go_back() -> None:
            said["undone"] = _run(stack, "model", "rollback", "--why", "a test")
            said["rollback"] = _run(stack, "model", "rollback", "--why", "a test")
            since["rollback"] = _version_of(said["rollback"])

        stages: list[Callable[[], None]] = [
            *(partial(promote, stage) for stage in ("shadow", "canary", "champion")),
            kill,
            correct,
            tamper,
            go_back,
        ]
        for number, change in enumerate(stages):
            _live_through(stack, number, change)
        stacks.await_quiet(stack)
        support.await_landed(stack, recorder)
        yield stack, house, Told(version, since, said)


def _live_through(stack: Stack, number: int, change: Callable[[], None]) -> None:
    """Live through one stretch, with a change in its midst."""
    begin = START + number * STRETCH
    events = completejourney.events(begin, begin + STRETCH, HOUSEHOLDS)
    living = Thread(
        target=session.live, args=(stack.client, events, begin, begin + STRETCH, SPEED, lambda _: None)
    )
    living.start()
    time.sleep(STRETCH.total_seconds() / SPEED / 2)
    change()
    living.join(stacks.PATIENCE_S)
    assert not living.is_alive()
    stacks.await_quiet(stack)


def _tampered() -> ModelChange:
    """Another model, signed by nobody's key that is trusted, and with a byte of its arrays changed."""
    change = change_of(models.artefact(1), "champion", 0.0)
    npz = bytearray(change.npz)
    npz[-2000] ^= 1
    return ModelChange(change.version, "champion", 0.0, change.card, bytes(npz), change.signature)


def test_a_model_is_trained_from_clickhouse_and_listed_as_a_candidate(
    deployed: tuple[Stack, Warehouse, Told],
) -> None:
    _, _, told = deployed
    assert "built-in one serves" in told.said["none"]
    assert told.version.startswith("st-")
    assert "is a candidate" in told.said["trained"]
    assert told.version in told.said["listed"]
    assert "candidate" in told.said["listed"]
    assert "clickhouse" in told.said["listed"]


def test_each_decision_is_by_the_model_that_its_cut_names(deployed: tuple[Stack, Warehouse, Told]) -> None:
    stack, _, told = deployed
    chosen: Counter[tuple[str, bool, bool]] = Counter()
    for record in _scheduled(stack):
        body, version = record["body"], record["control_version"]
        canary = told.since["canary"] <= version < told.since["champion"]
        canary = canary and in_canary(record["recipient_id"], told.version, SHARE)
        champion = told.since["champion"] <= version < told.since["rollback"]
        shadow = told.since["shadow"] <= version < told.since["canary"]
        assert body["model"] == (told.version if canary or champion else BUILT_IN), record
        assert body["canary"] == canary, record
        assert body["shadow_model"] == (told.version if shadow else None), record
        chosen[body["model"], canary, shadow] += 1
    wanted = {(BUILT_IN, False, False), (BUILT_IN, False, True), (told.version, True, False)}
    assert wanted | {(told.version, False, False)} == chosen.keys(), chosen


def _scheduled(stack: Stack) -> list[dict[str, Any]]:
    audit = pipeline.decoded(stack.client, topics.AUDIT.name, stack.settings.partitions)
    return [record for record in audit if record["body"].get("outcome") == "scheduled"]


def test_a_tampered_model_leaves_the_former_champion_in_force_with_a_clear_error(
    deployed: tuple[Stack, Warehouse, Told],
) -> None:
    stack, _, told = deployed
    logs = "".join(stack.log(child) for child in stack.children)
    refused = [line for line in logs.splitlines() if "model_refused" in line]
    assert len({json.loads(line[line.index("{") :])["model"] for line in refused}) == 1, refused
    assert "trusted are" in refused[0]
    between = [
        record["body"]["model"]
        for record in _scheduled(stack)
        if told.since["tampered"] <= record["control_version"] < told.since["rollback"]
    ]
    assert set(between) == {told.version}


def test_the_guard_corrects_the_champions_probabilities_from_a_cut_on(
    deployed: tuple[Stack, Warehouse, Told],
) -> None:
    stack, _, told = deployed
    assert f"{told.version}: log-odds" in told.said["guarded"]
    logged = _run(stack, "control", "log")
    wrong, right = (line for line in logged.splitlines() if "log-odds" in line)
    assert "log-odds +0.90" in wrong
    assert "model guard" in right
    assert right.split()[0] == str(told.since["guarded"])
    after = [each for each in _scheduled(stack) if each["control_version"] >= told.since["guarded"]]
    assert any(each["body"]["model"] == told.version for each in after)


def test_nothing_is_lost_and_the_reference_decides_the_same(deployed: tuple[Stack, Warehouse, Told]) -> None:
    stack, _, _ = deployed
    assert oracle.violations(stack, load_policy(stack.settings)) == []
    reconciled = stack.run("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr


def test_going_back_goes_to_the_model_before(deployed: tuple[Stack, Warehouse, Told]) -> None:
    stack, _, told = deployed
    assert f"{told.version} is champion again" in told.said["undone"]
    assert f"{BUILT_IN} is champion again" in told.said["rollback"]
    listed = _run(stack, "model", "list")
    assert "retired" in next(line for line in listed.splitlines() if told.version in line)
    shown = _run(stack, "control", "log")
    assert f"model {told.version}: canary for 50%" in shown
    again = stack.run("model", "rollback", "--why", "a test")
    assert again.returncode == 1
    assert "nothing to go back from" in again.stderr


def test_the_tables_tell_which_model_chose_and_what_else_would_have(
    deployed: tuple[Stack, Warehouse, Told],
) -> None:
    stack, house, told = deployed
    sql = "SELECT countIf(model = '{0}'), countIf(canary), countIf(shadow_model = '{0}') FROM decision"
    found = ask(house.address, house.views, sql.format(told.version)).rows[0]
    bodies = [record["body"] for record in _scheduled(stack)]
    assert found == (
        sum(body["model"] == told.version for body in bodies),
        sum(body["canary"] for body in bodies),
        sum(body["shadow_model"] == told.version for body in bodies),
    )
    valued = json.loads(_run(stack, "model", "ope", "--days", "3", "--json"))
    policies = {each["policy"] for each in valued["policies"]}
    assert {"logged", "uniform", "send_now", "likeliest", f"shadow {told.version}"} == policies
    refined = stack.run("model", "refine", told.version, "--days", "3")
    assert refined.returncode == 1, refined.stdout + refined.stderr
    assert "at least 300 are needed" in refined.stderr
    assert "No canary on trial" in told.said["guarded"]
    drift = json.loads(_run(stack, "model", "drift", "--days", "2", "--json"))
    assert drift["version"] == BUILT_IN
    assert drift["surprise"]["windows"] > 0


def test_a_card_tells_how_a_version_did(deployed: tuple[Stack, Warehouse, Told]) -> None:
    stack, _, told = deployed
    text = _run(stack, "model", "card", told.version)
    assert f"# Model card: {told.version}" in text
    assert "| activity |" in text
    card = json.loads(_run(stack, "model", "card", told.version, "--json"))
    assert card["source"] == "clickhouse"
    folder = Path(stack.settings.state_dir) / "models" / told.version
    (folder / "model.npz").write_bytes((folder / "model.npz").read_bytes()[:-1])
    refused = stack.run("model", "promote", told.version, "--to", "champion", "--why", "a test")
    assert refused.returncode == 1
    assert "not the one that its card names" in refused.stderr
