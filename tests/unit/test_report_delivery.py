"""DELIVER's figures in `opportune report`: outcomes, lanes, latencies."""

import uuid
from typing import Any

import numpy as np
import pytest

from schemas import codec, topics
from schemas.dispatch import State, empty
from schemas.lanes import Lane, Lanes
from schemas.profile import NewerRow
from schemas.units import Rate
from streams.figures.delivery import Deliveries, LaneFigures, Outcomes, busiest, steps
from streams.figures.latency import Decided, Latencies, Latency, Stamps

HOUR = 3_600_000
DAY = 24 * HOUR
NOON = 1_488_369_600_000  # 2017-03-01 12:00 UTC, a Wednesday
WALL = 1_700_000_000_000
CLICKS = topics.CLICKS.name
LANES = Lanes(default=Lane(rate=Rate.parse("60/hr")), lane={"gmail": Lane(rate=Rate.parse("200/hr"))})


def uid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


# Records as they stand on the topics


def command(
    name: str, *, lane: str = "gmail", released: int = NOON, history: bool = False, campaign: str = "win_back"
) -> dict[str, Any]:
    fields = {
        "dispatch_id": uid(name), "decision_id": uid(f"decision {name}"), "recipient_id": "r1",
        "campaign": campaign, "template": "t", "purpose": "mail", "channel": "mail", "lane": lane,
        "due_at": released, "released_at": released, "expires_at": released + DAY, "history": history,
    }  # fmt: skip
    return codec.decode(topics.COMMANDS.name, codec.encode(topics.COMMANDS.name, fields))


def audit(line: str, body: tuple[str, dict[str, Any]], cut: int = 1) -> dict[str, Any]:
    fields = {
        "recipient_id": "r1", "partition": 0, "cut": cut, "at": NOON, "control_version": 1, "line": line,
        "body": body,
    }  # fmt: skip
    return codec.decode(topics.AUDIT.name, codec.encode(topics.AUDIT.name, fields))


def delivery(name: str, kind: str, at: int = NOON, *, lane: str = "gmail", code: int | None = None) -> Any:
    body = {
        "delivery_event_id": uid(f"{name} {kind}"), "dispatch_id": uid(name),
        "decision_id": uid(f"decision {name}"), "campaign": "win_back", "lane": lane, "kind": kind,
        "attempt": 1, "occurred_at": at, "code": code,
    }  # fmt: skip
    return audit("deliver", ("opportune.Delivery", body))["body"]


def decision(name: str, offset: int | None, cut: int = 1) -> dict[str, Any]:
    topic, partition = (None, None) if offset is None else (CLICKS, 0)
    cause = {
        "topic": topic, "partition": partition, "offset": offset, "event_id": None,
        "due_at": NOON if offset is None else None,
    }  # fmt: skip
    body = {
        "decision_id": uid(f"decision {name}"), "campaign": "win_back", "campaign_version": 1,
        "outcome": "scheduled", "reason": "scheduled", "cause": cause, "purpose": "mail", "segments": [],
        "features": {}, "gates": [], "policy": "p", "due_at": NOON, "expires_at": NOON + DAY,
        "tier": "prior", "score": 0.5, "propensity": 1.0,
    }  # fmt: skip
    return audit("decide", ("opportune.Decision", body), cut)


def release(name: str, cut: int = 1, outcome: str = "released") -> dict[str, Any]:
    body = {
        "decision_id": uid(f"decision {name}"), "dispatch_id": uid(name), "campaign": "win_back",
        "outcome": outcome, "reason": "released", "due_at": NOON, "lane": "gmail", "history": False,
        "gates": [],
    }  # fmt: skip
    return audit("decide", ("opportune.Release", body), cut)


def table(**states: State) -> dict[bytes, bytes]:
    found = {}
    for name, state in states.items():
        row = empty(1)
        row["state"] = state
        found[uid(name).encode()] = row.tobytes()
    return found


def lane_of(deliveries: Deliveries, name: str = "gmail") -> LaneFigures:
    (found,) = (lane for lane in deliveries.pacing(LANES).lanes if lane.lane == name)
    return found


# Outcomes


def test_every_command_to_send_has_ended_or_waits_or_is_in_flight() -> None:
    made = Deliveries()
    ends = ("delivered", "bounced", "expired", "recalled", "unknown")
    for name in (*ends, "waits", "untaken", "flies"):
        made.command(command(name), WALL)
    for name in ends:
        made.delivery(delivery(name, name), WALL)
    made.table(table(waits=State.WAITING, flies=State.CLAIMED, delivered=State.DELIVERED))
    assert made.outcomes() == [
        Outcomes(
            "win_back", commands=8, delivered=1, bounced=1, expired=1, recalled=1, unknown=1, waiting=2,
            in_flight=1,
        )
    ]  # fmt: skip


def test_history_is_counted_apart_and_is_nothing_to_send() -> None:
    made = Deliveries()
    made.command(command("a", history=True), WALL)
    made.delivery(delivery("a", "history"), WALL)
    assert made.outcomes() == [Outcomes("win_back", history=1)]
    assert made.pacing(LANES).lanes == []


def test_deferrals_and_duplicates_are_no_ends() -> None:
    made = Deliveries()
    for _ in range(2):
        made.command(command("a"), WALL)
    made.delivery(delivery("a", "duplicate"), WALL)
    for at in (NOON, NOON + HOUR):
        made.delivery(delivery("a", "deferred", at, code=451), WALL)
    assert made.outcomes() == [Outcomes("win_back", commands=1, waiting=1, deferred=2, duplicate=1)]


def test_asking_for_outcomes_again_gives_the_same() -> None:
    made = Deliveries()
    made.command(command("a"), WALL)
    made.delivery(delivery("a", "deferred"), WALL)
    assert made.outcomes() == made.outcomes()


def test_commands_that_delivery_has_not_seen_make_a_campaign_too() -> None:
    made = Deliveries()
    made.command(command("b", campaign="welcome"), WALL)
    made.delivery(delivery("a", "history"), WALL)
    assert [(some.name, some.waiting) for some in made.outcomes()] == [("welcome", 1), ("win_back", 0)]


def test_a_table_of_a_newer_program_is_refused() -> None:
    row = empty(1)
    row["version"] = 99
    with pytest.raises(NewerRow, match="newer program"):
        Deliveries().table({b"key": row.tobytes()})


# Lanes


def test_a_lane_counts_what_a_server_answered_when_it_answered() -> None:
    made = Deliveries()
    for name, kind, at, code in (
        ("a", "deferred", NOON, 451), ("a", "delivered", NOON + HOUR, 250),
        ("b", "bounced", NOON + HOUR, 550), ("no address", "bounced", NOON, None),
        ("lost", "unknown", NOON, None), ("late", "expired", NOON, None),
    ):  # fmt: skip
        made.delivery(delivery(name, kind, at, code=code), WALL)
    found = lane_of(made)
    assert (found.sent, found.busiest_hour) == (3, 2)
    assert found.per_step == [1, 2]
    assert made.pacing(LANES).times == [NOON, NOON + HOUR]


def test_a_lane_has_the_rate_that_lanes_toml_gives_its_name_or_else_the_default() -> None:
    made = Deliveries()
    for lane in ("gmail", "proton"):
        made.command(command(lane, lane=lane), WALL)
    assert lane_of(made).rate_per_hour == pytest.approx(200)
    assert lane_of(made, "proton").rate_per_hour == pytest.approx(60)


def test_the_longest_wait_is_that_of_an_ended_message_or_of_one_that_waits_until_now() -> None:
    made = Deliveries()
    made.reached(NOON + 5 * HOUR)
    made.reached(NOON + 2 * HOUR)
    made.command(command("a"), WALL)
    made.delivery(delivery("a", "delivered", NOON + 3 * HOUR), WALL)
    assert lane_of(made).longest_wait_ms == 3 * HOUR
    made.command(command("b", released=NOON + HOUR), WALL)
    assert (lane_of(made).waiting, lane_of(made).longest_wait_ms) == (1, 4 * HOUR)
    made.table(table(b=State.CLAIMED))
    assert (lane_of(made).waiting, lane_of(made).longest_wait_ms) == (0, 3 * HOUR)


def test_a_recalled_message_has_not_waited_for_the_lane() -> None:
    made = Deliveries()
    made.command(command("a"), WALL)
    made.delivery(delivery("a", "recalled", NOON + HOUR), WALL)
    assert lane_of(made).longest_wait_ms is None


def test_the_busiest_hour_may_begin_at_any_minute_and_excludes_its_end() -> None:
    minute = HOUR // 60
    times = np.array([0, 50, 60, 70, 109, 110]) * minute
    assert busiest(times, HOUR) == 4  # from 50 to 109; 110 would be the 61st minute
    assert busiest(np.array([], np.int64), HOUR) == 0


@pytest.mark.parametrize(
    ("stretch", "step"),
    [
        (0, HOUR),
        (DAY - 1, HOUR),
        (DAY, 6 * HOUR),
        (2 * DAY, 6 * HOUR),
        (20 * DAY, DAY),
        (1000 * DAY, 7 * DAY),
    ],
)
def test_steps_are_as_fine_as_a_plot_can_hold(stretch: int, step: int) -> None:
    found, begins = steps([np.array([], np.int64), np.array([NOON]), np.array([NOON + stretch])])
    assert found == step
    assert begins[0] <= NOON < begins[0] + step
    assert begins[-1] <= NOON + stretch < begins[-1] + step
    assert set(np.diff(begins).tolist()) <= {step}


# Latencies


def decided(*records: tuple[dict[str, Any], int]) -> Decided:
    made = Decided()
    for record, written_at in records:
        made.add(record, written_at)
    return made


def stamps(*at: int) -> Stamps:
    made = Stamps()
    for offset, each in enumerate(at):
        made.add(CLICKS, 0, [2 * offset], [each])  # transaction markers take offsets too
    return made


def figures(found: Latencies) -> list[tuple[int, int | None, int | None]]:
    return [(each.count, each.p50, each.most) for each in (*found.wall, *found.stream)]


NONE = (0, None, None)


def test_a_decision_is_measured_from_its_event_to_its_audit_record_in_live_cuts_only() -> None:
    made = decided(
        (decision("live", 2, cut=7), WALL + 10), (decision("old", 0, cut=6), WALL + 5000),
        (decision("of a moment", None, cut=7), WALL + 20),
    )  # fmt: skip
    found = made.latencies(stamps(WALL - 9999, WALL), {(0, 6)}, Deliveries())
    assert figures(found) == [(1, 10, 10), NONE, NONE, NONE]


def test_an_event_that_retention_has_taken_gives_no_figure() -> None:
    made = decided((decision("a", 3), WALL), (decision("b", 8), WALL))
    assert figures(made.latencies(stamps(0, 0, 0), set(), Deliveries()))[0] == NONE
    assert figures(made.latencies(Stamps(), set(), Deliveries()))[0] == NONE


def test_a_command_counts_from_the_event_if_it_was_released_in_the_cut_that_decided_it() -> None:
    made = decided(
        (decision("at once", 0), WALL + 8), (release("at once"), WALL + 8), (decision("later", 2), WALL + 8),
        (release("later", cut=2), WALL + 60_000), (decision("put off", 2), WALL + 8),
        (release("put off", outcome="deferred"), WALL + 8),
    )  # fmt: skip
    deliveries = Deliveries()
    for name in ("at once", "later", "put off"):
        deliveries.command(command(name), WALL + 12)
    assert figures(made.latencies(stamps(WALL, WALL), set(), deliveries))[1] == (1, 12, 12)


def test_equal_durations_all_count() -> None:
    deliveries, made = Deliveries(), Decided()
    for name in ("a", "b"):
        made.add(decision(name, 0), WALL + 8)
        made.add(release(name), WALL + 8)
        deliveries.command(command(name), WALL + 12)
    assert figures(made.latencies(stamps(WALL), set(), deliveries))[1] == (2, 12, 12)


def test_an_outcome_counts_on_the_wall_and_its_wait_in_stream_time() -> None:
    deliveries = Deliveries()
    for name, kind in (("a", "delivered"), ("b", "bounced"), ("c", "expired"), ("d", "unknown")):
        deliveries.command(command(name), WALL)
        deliveries.delivery(delivery(name, kind, NOON + HOUR), WALL + 6000)
    deliveries.delivery(delivery("older than the commands", "delivered"), WALL)
    found = Decided().latencies(Stamps(), set(), deliveries)
    assert figures(found) == [NONE, NONE, (2, 6000, 6000), (1, HOUR, HOUR)]


def test_percentiles_are_durations_that_occurred() -> None:
    assert Latency.of("x", list(range(1, 101))) == Latency("x", 100, 50, 95, 99, 100)
    assert Latency.of("x", [7, 1000]) == Latency("x", 2, 7, 1000, 1000, 1000)
