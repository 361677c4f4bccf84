"""Hours that are full are published while a worker decides: it chooses others, and may decide all again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.profile import HOUR_MS
from streams import control as changing
from streams.policy import load_policy
from streams.replay import completejourney, session
from tests.support import oracle, pipeline, whole
from tests.support import record as support
from tests.support import stack as stacks
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse]

HOUSEHOLDS, SPEED, HOURS = 300, 1200.0, 3
START = completejourney.FIRST + timedelta(days=3, hours=14)  # the shops are open
LATER = START + timedelta(hours=HOURS)


@dataclass
class Told:
    """What publishing said, and the hours that were full since a control version."""

    said: list[str]
    full: dict[str, frozenset[int]]
    since: int


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Told]]:
    """A while, after which the hours that are full are published, and another."""
    folder = tmp_path_factory.mktemp("full")
    policy = whole.eager_policy(folder, "2/hr")  # room for one message an hour
    with stacks.running(folder / "state") as stack, support.clickhouse(stack):
        stack.environment["OPPORTUNE_POLICY_DIR"] = str(policy)
        stack.settings = stack.settings.model_copy(update={"policy_dir": policy})
        worker, recorder = stack.start_worker(), stack.start_worker("record")
        people = completejourney.people(START, LATER + timedelta(hours=HOURS), HOUSEHOLDS)
        events = people + completejourney.events(START, LATER, HOUSEHOLDS)
        session.live(stack.client, events, START, LATER, SPEED, lambda _: None)
        stacks.await_quiet(stack)
        support.await_landed(stack, recorder)
        said = [_publish(stack), _publish(stack)]
        state = changing.current(stack.client)
        whole.live(stack, LATER, HOURS, SPEED, HOUSEHOLDS)
        stacks.await_quiet(stack)
        worker.terminate()
        assert worker.wait(60) == 0, stack.log(worker)[-3000:]
        yield stack, Told(said, dict(state.full), state.version)


def _publish(stack: Stack) -> str:
    done = stack.run("lanes", "publish")
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _planned(stack: Stack, since: int) -> list[tuple[int, str, int]]:
    """Of each send that was scheduled, and not over before: control version, provider, UTC hour."""
    attributes = pipeline.decoded(stack.client, topics.ATTRIBUTES.name, stack.settings.partitions)
    provider = {each["recipient_id"]: each["provider"] for each in attributes}
    audit: list[dict[str, Any]] = pipeline.decoded(stack.client, topics.AUDIT.name, stack.settings.partitions)
    over = {  # on a slow machine the clock has run on for a moment before it stood
        each["body"]["decision_id"]
        for each in audit
        if each["body"].get("outcome") in ("released", "withheld") and each["control_version"] < since
    }
    return [
        (each["control_version"], provider[each["recipient_id"]], each["body"]["due_at"] // HOUR_MS)
        for each in audit
        if each["body"].get("outcome") == "scheduled" and each["body"]["decision_id"] not in over
    ]


def test_the_hours_that_are_full_are_those_for_which_something_is_planned(lived: tuple[Stack, Told]) -> None:
    stack, told = lived
    first = round(LATER.timestamp() * 1000) // HOUR_MS
    expected: dict[str, set[int]] = {}
    for version, provider, hour in _planned(stack, told.since):
        if version < told.since and hour >= first:
            expected.setdefault(provider, set()).add(hour)
    assert expected
    assert told.full == expected
    assert f"from control version {told.since} on" in told.said[0]
    assert "as before" in told.said[1], "nothing has changed"


def test_what_is_decided_from_then_on_goes_in_other_hours(lived: tuple[Stack, Told]) -> None:
    stack, told = lived
    after = [
        (provider, hour) for version, provider, hour in _planned(stack, told.since) if version >= told.since
    ]
    assert any(provider in told.full for provider, _ in after)
    assert [each for each in after if each[1] in told.full.get(each[0], ())] == []


def test_all_of_it_comes_out_the_same_when_it_is_decided_again(lived: tuple[Stack, Told]) -> None:
    stack, _ = lived
    assert oracle.violations(stack, load_policy(stack.settings)) == []
    verified = stack.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    logged = stack.run("control", "log")
    assert "lanes publish" in logged.stdout
