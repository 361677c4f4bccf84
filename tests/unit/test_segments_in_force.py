"""Segments put in force by control: which go with the policy files, what they change and what not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from schemas import topics
from schemas.policy import Applied, Policy, PolicyError, Segment
from schemas.profile import HOUR_MS, LAYOUTS, MINUTE_MS, SATURATED
from streams.engine.control import Control
from streams.engine.kafka import Client
from streams.recording import names
from tests.support.cuts import HOME, POLICY, Fast, Planned, World, bodies

WITHOUT_IDLE = tuple(segment for segment in POLICY.segments if segment.name != "idle")
ELDER = (
    *POLICY.segments[:4],
    Segment(number=64, name="old", where="hours_since_first > 1", doc="For tests."),
)


def _files(**changes: object) -> Policy:
    return Policy(**{name: getattr(POLICY, name) for name in Policy.model_fields} | changes)


def _views(*who: str) -> list[Planned]:
    grants = [
        Planned(topics.CONSENT.name, each, 0, {"purpose": purpose, "state": "granted", "version": 1})
        for each in who
        for purpose in ("mail", "profiling")
    ]
    return grants + [Planned(topics.CLICKS.name, each, 0, {"kind": "view"}) for each in who]


def test_a_worker_whose_campaigns_need_what_is_gone_goes_back_and_writes_to_nobody() -> None:
    world = World()
    newer = Fast(_files(campaigns=tuple(c for c in POLICY.campaigns if c.trigger.enter != "idle")))
    newer.handle(world.cut(0, _views(*HOME), segments=POLICY.segments))
    newer.handle(world.cut(MINUTE_MS, [], segments=WITHOUT_IDLE))
    newer.handle(world.cut(3 * HOUR_MS, []))
    assert {int(row["segments_version"]) for _, _, rows in newer.store.batches() for row in rows} == {2}

    older = Fast()
    older.store = newer.store
    older.observe(cut := world.cut(MINUTE_MS, []))
    told = bodies(older.handle(cut))

    assert sorted(who for who, _ in told) == sorted(HOME)
    for _, body in told:
        assert (body["segment"], body["entered"], body["cause"]["topic"]) == (
            "idle",
            True,
            topics.CONTROL.name,
        )
        assert body["cause"]["offset"] == 1
    assert {int(row["segments_version"]) for _, _, rows in older.store.batches() for row in rows} == {0}


def test_what_is_defined_as_before_waits_for_its_time() -> None:
    world, fast = World(), Fast()
    fast.handle(world.cut(MINUTE_MS, _views(*HOME), segments=POLICY.segments))
    told = bodies(fast.handle(world.cut(2 * HOUR_MS - 30 * MINUTE_MS, [])))
    assert told == [], "two hours since the view are not over"
    swept = bodies(fast.handle(world.cut(40 * MINUTE_MS, [], segments=ELDER)))
    assert {(body["segment"], body["entered"]) for _, body in swept if "segment" in body} == {
        ("old", True),
        ("idle", True),
    }
    cut = world.cut(59 * MINUTE_MS, [], segments=POLICY.segments)
    assert {body["segment"] for _, body in bodies(fast.handle(cut)) if "definition" in body} <= {"old"}


def test_segments_that_go_with_no_campaigns_of_the_files_end_the_worker() -> None:
    fast, control = Fast(), Control(1, segments=(Applied(0, WITHOUT_IDLE),))
    with pytest.raises(PolicyError, match="there is no segment idle.*opportune segments apply"):
        fast.decider.policy(control)


def test_an_older_control_is_answered_by_what_was_in_force_then() -> None:
    fast, first = Fast(), Applied(0, POLICY.segments)
    before, after = Control(1, segments=(first,)), Control(5, segments=(first, Applied(5, ELDER)))
    policies = [fast.decider.policy(control) for control in (Control(), before, after, before, Control())]
    assert policies == [POLICY.digest, POLICY.digest, policies[2], POLICY.digest, POLICY.digest]
    assert policies[2] != POLICY.digest


def test_rows_from_before_count_clicks_in_quarters_and_say_so_where_that_is_too_much() -> None:
    old = np.zeros(2, LAYOUTS.versions[1])
    old["version"] = 2
    old["hourly"][:, 1, 0] = [3, 100]
    old["daily"][:, 0, 0] = 200
    rows = LAYOUTS.read([row.tobytes() for row in old])
    assert rows["hourly"][:, 1, 0].tolist() == [12, 255]
    assert rows["daily"][:, 0, 0].tolist() == [200, 200]
    assert (rows["flags"] & SATURATED).tolist() == [0, SATURATED]
    assert rows["segments_version"].tolist() == [0, 0]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Control]], names.ControlledNames]:
    def made(states: list[Control]) -> names.ControlledNames:
        class Reader:
            def __init__(self, client: Client) -> None:
                pass

            def poll(self, timeout: float = 0.0) -> Control:
                return states.pop(0) if len(states) > 1 else states[0]

        monkeypatch.setattr(names, "ControlReader", Reader)
        return names.ControlledNames(Client("nowhere:1", {}), POLICY.segments)

    return made


def test_names_are_those_of_the_version_that_a_row_knows(
    named: Callable[[list[Control]], names.ControlledNames],
) -> None:
    renamed = (Segment(number=0, name="lookers", where="views_6h >= 1", doc=""),)
    later = Control(7, segments=(Applied(0, POLICY.segments), Applied(7, renamed)))
    of = named([Control(3), later])
    assert of(7) == {0: "lookers"}, "it waits for control"
    assert of(0)[0] == "viewers"
    assert named([Control()])(0)[0] == "viewers", "of the files"
