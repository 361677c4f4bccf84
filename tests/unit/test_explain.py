"""What `opportune explain` tells, from records encoded and decoded as on Kafka."""

import json
from typing import Any

import pytest
from confluent_kafka import Message

from schemas import codec, topics
from schemas.scopes import Scoped
from sinks.audit_topic import AuditTopic
from streams.cli import explain, show
from streams.engine.control import Control
from streams.engine.partitioner import partition_of
from streams.explain import History, UnknownRecipient, history_of, kind_of
from tests.support.cuts import PACKAGED

CLICKS, AUDIT = topics.CLICKS.name, topics.AUDIT.name
EVENING = 1_486_141_920_000  # 2017-02-03 17:12 UTC
HOUR, MINUTE = 3_600_000, 60_000

BY_CLICK = {"topic": CLICKS, "partition": 3, "offset": 42, "event_id": "click-42", "due_at": None}
BY_TIME = {
    "topic": None,
    "partition": None,
    "offset": None,
    "event_id": None,
    "due_at": EVENING - 12 * MINUTE,
}
PASSED = {"name": "consent", "passed": True, "detail": "mail granted, version 1"}
FAILED = {"name": "cooldown", "passed": False, "detail": f"rests until {EVENING + HOUR}"}


def encoded(kind: str, body: dict[str, Any], at: int = EVENING, recipient: str = "r") -> bytes:
    about = {"recipient_id": recipient, "partition": 3, "cut": 17, "at": at, "control_version": 2}
    return codec.encode(AUDIT, {**about, "body": (f"opportune.{kind}", body)})


def record(kind: str, body: dict[str, Any], at: int = EVENING) -> dict[str, Any]:
    return codec.decode(AUDIT, encoded(kind, body, at))


def decision(number: int = 1, **changes: Any) -> dict[str, Any]:
    body = {
        "decision_id": f"decision-{number}",
        "campaign": "browse_abandonment",
        "campaign_version": 1,
        "outcome": "scheduled",
        "reason": "scheduled",
        "cause": BY_CLICK,
        "purpose": "mail",
        "segments": ["new_recipients", "active_browsers"],
        "features": {"views_7d": 21.0, "hours_since_view": 0.1234},
        "gates": [PASSED],
        "due_at": EVENING + 2 * HOUR,
        "expires_at": EVENING + 24 * HOUR,
        "tier": "recipient",
        "score": 0.04212,
        "runner_up_at": EVENING + 5 * HOUR,
        "runner_up_score": 0.031,
        "propensity": 1.0,
        "model": "st-0123456789ab",
        "canary": False,
        "active_hours": 17.25,
        "hours_left": 13,
        "first_at": EVENING + HOUR,
        "likeliest_at": EVENING + 2 * HOUR,
        "terms": {"everybody's hours": 0.25, "own hours": 1.5},
        "shadow_model": None,
        "shadow_at": None,
        "policy": "abc",
    }
    return record("Decision", body | changes)


def release(outcome: str, reason: str, at: int = EVENING + 2 * HOUR, **changes: Any) -> dict[str, Any]:
    body = {
        "decision_id": "decision-1",
        "dispatch_id": "dispatch-1",
        "campaign": "browse_abandonment",
        "outcome": outcome,
        "reason": reason,
        "due_at": EVENING + 2 * HOUR,
        "lane": "gmail" if outcome == "released" else None,
        "history": False,
        "gates": [],
    }
    return record("Release", body | changes, at)


def closure(reason: str) -> dict[str, Any]:
    body = {
        "decision_id": "decision-1",
        "dispatch_id": "dispatch-1",
        "campaign": "browse_abandonment",
        "reason": reason,
    }
    return record("Closure", body, EVENING + 3 * HOUR)


def transition(segment: str, entered: bool, cause: dict[str, Any]) -> dict[str, Any]:
    body = {"segment": segment, "entered": entered, "cause": cause, "definition": "d"}
    return record("SegmentTransition", body)


def consent(**changes: Any) -> dict[str, Any]:
    body = {"purpose": "mail", "state": "granted", "version": 3, "reason": None, "cause": BY_CLICK}
    return record("ConsentRecord", body | changes)


def told(*records: dict[str, Any], last: int = 0) -> str:
    """The text, with line breaks and runs of blanks made one blank."""
    console = show.console()
    with console.capture() as capture:
        explain.tell(console, history_of("r", records), last)
    return " ".join(capture.get().split())


def test_the_kinds_of_audit_records_are_told_apart() -> None:
    records = (
        decision(),
        release("released", "released"),
        closure("confirmed"),
        transition("s", True, BY_TIME),
        consent(),
        delivery("delivered"),
    )

    kinds = [kind_of(each["body"]) for each in records]
    assert kinds == ["decision", "release", "closure", "transition", "consent", "delivery"]


def test_an_unknown_recipient_is_an_error_with_a_remedy() -> None:
    with pytest.raises(UnknownRecipient, match="dead-letters list"):
        history_of("nobody", [])


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ([decision()], "pending"),
        ([decision(outcome="withheld", reason="cooldown")], "withheld"),
        ([decision(), release("deferred", "quiet_hours")], "deferred"),
        ([decision(), release("withheld", "no_consent")], "withheld"),
        ([decision(), release("released", "released")], "released"),
        ([decision(), release("released", "released", history=True)], "recorded"),
        ([decision(), release("released", "released"), closure("confirmed")], "confirmed"),
        ([decision(), release("released", "released"), closure("unconfirmed")], "unconfirmed"),
        ([decision(), release("released", "released"), closure("failed")], "failed"),
        ([decision(), release("released", "released"), closure("withdrawn")], "recalled"),
    ],
)
def test_a_decision_stands_where_its_last_step_left_it(records: list[dict[str, Any]], state: str) -> None:
    [story] = history_of("r", records).stories

    assert story.state == state
    assert f"browse_abandonment version 1 – {state}" in told(*records)


def test_a_release_whose_decision_has_expired_is_still_told() -> None:
    text = told(release("released", "released"))

    assert "before the audit trail that is still there begins" in text
    assert "browse_abandonment – released" in text


def test_the_chain_of_a_decision_is_told_from_trigger_to_hour() -> None:
    text = told(decision())

    assert "trigger behaviour.clicks partition 3 offset 42" in text
    assert "event click-42" in text
    assert "decided 2017-02-03 17:12 UTC, in cut 17 of partition 3" in text
    assert "segments new_recipients, active_browsers" in text
    assert "features hours_since_view 0.123, views_7d 21" in text
    assert "gates ✔ consent mail granted, version 1" in text
    assert (
        "hour 2017-02-03 19:12 UTC, by the recipient's own active hours: score 0.0421, propensity 1" in text
    )
    assert "best other 2017-02-03 22:12 UTC with 0.031" in text
    assert "model st-0123456789ab, 17.25 active hours known, 13 hours left" in text
    assert "left; own hours +1.50, everybody's hours +0.25" in text
    assert "then 2017-02-03 17:12 UTC pending since then, due 2017-02-03 19:12 UTC" in text


def test_a_failed_gate_is_marked_and_its_times_are_readable() -> None:
    withheld: dict[str, Any] = {
        "outcome": "withheld",
        "reason": "cooldown",
        "gates": [PASSED, FAILED],
        "due_at": None,
        "tier": None,
    }
    text = told(decision(**withheld))

    assert "✘ cooldown rests until 2017-02-03 18:12 UTC" in text
    assert "withheld cooldown. The campaign was scheduled" in text
    assert "hour" not in text.replace("hours_since", "")


def test_what_the_passing_of_time_set_off_names_the_due_time() -> None:
    assert "trigger the passing of 2017-02-03 17:00 UTC" in told(decision(cause=BY_TIME))


def test_what_became_of_a_decision_is_told_step_by_step() -> None:
    text = told(
        decision(),
        release("deferred", "quiet_hours", due_at=EVENING + 14 * HOUR),
        release("released", "released", at=EVENING + 14 * HOUR, history=True),
    )

    assert "2017-02-03 19:12 UTC deferred to 2017-02-04 07:12 UTC by quiet_hours" in text
    assert "2017-02-04 07:12 UTC released on lane gmail" in text
    assert "of loaded history: recorded, never sent" in text


def test_a_released_send_that_nobody_confirmed_says_so() -> None:
    assert "not confirmed yet" in told(decision(), release("released", "released"))
    assert "not confirmed yet" not in told(decision(), release("released", "released"), closure("confirmed"))


def test_a_reason_of_a_newer_version_does_not_break_the_telling() -> None:
    assert "This version does not know that reason" in told(decision(outcome="withheld", reason="brand_new"))


def test_changes_are_single_lines_in_the_order_of_time() -> None:
    text = told(
        consent(),
        consent(purpose="suppression", state="suppressed", reason="complained"),
        transition("lapsing", True, BY_TIME),
        transition("lapsing", False, BY_CLICK),
    )

    assert "mail granted (version 3), by behaviour.clicks partition 3 offset 42" in text
    assert "suppressed: complained" in text
    entered = text.index("entered lapsing, by the passing of 2017-02-03 17:00 UTC")
    assert entered < text.index("left lapsing, by behaviour.clicks partition 3 offset 42")
    assert "No campaign was ever triggered" in text


def test_only_the_last_decisions_are_told_if_so_wished_and_the_rest_counted() -> None:
    text = told(decision(1), decision(2), decision(3), last=2)

    assert "1 older decision not shown" in text
    assert "Decision 1 of 3" not in text
    assert text.index("Decision 2 of 3") < text.index("Decision 3 of 3")


def test_an_id_with_control_characters_or_markup_is_printed_harmlessly() -> None:
    console = show.console()
    with console.capture() as capture:
        explain.tell(console, History("[red]\x1b[31mr"), 0)

    assert "[red]\\x1b[31mr" in capture.get()


def test_the_machine_form_is_json_with_every_record() -> None:
    history = history_of("r", [decision(), release("released", "released"), consent()])

    form = json.loads(show.as_json(explain.machine_form(history)))

    assert form["stories"][0]["state"] == "released"
    assert form["stories"][0]["decision"]["at"] == "2017-02-03T17:12:00.000Z"
    assert form["consents"][0]["body"]["state"] == "granted"


# Delivery


def delivery(kind: str, at: int = EVENING + 3 * HOUR, **changes: Any) -> dict[str, Any]:
    body = {
        "delivery_event_id": f"{kind}-1",
        "dispatch_id": "dispatch-1",
        "decision_id": "decision-1",
        "campaign": "browse_abandonment",
        "lane": "gmail",
        "kind": kind,
        "attempt": 1,
        "occurred_at": at,
        "code": None,
        "detail": None,
        "permanent": False,
        "template": None,
    }
    return record("Delivery", body | changes, at)


RELEASED = [decision(), release("released", "released")]
SENT: dict[str, Any] = {
    "code": 250,
    "detail": "2.0.0 kept",
    "template": "browse_abandonment@0a1b2c3d4e5f6789",
}
PUT_OFF: dict[str, Any] = {"code": 450, "detail": "4.2.1 greylisted"}


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([delivery("delivered")], "delivered"),
        ([delivery("delivered"), closure("confirmed")], "confirmed"),
        ([delivery("deferred")], "deferred"),
        ([delivery("deferred"), delivery("bounced")], "bounced"),
        ([delivery("expired")], "expired"),
        ([delivery("unknown")], "unknown"),
        ([closure("withdrawn"), delivery("recalled")], "recalled"),
        ([closure("withdrawn"), delivery("delivered")], "delivered"),
        ([delivery("delivered"), delivery("duplicate")], "delivered"),
        ([delivery("duplicate")], "released"),
    ],
)
def test_a_released_decision_stands_where_delivery_left_it(steps: list[dict[str, Any]], state: str) -> None:
    [story] = history_of("r", [*RELEASED, *steps]).stories

    assert story.state == state


def test_loaded_history_stays_recorded_when_delivery_has_seen_it() -> None:
    historic = [decision(), release("released", "released", history=True), delivery("history", attempt=0)]

    assert history_of("r", historic).stories[0].state == "recorded"
    assert history_of("r", historic[2:]).stories[0].state == "recorded"
    assert "recorded taken up as loaded history, never sent" in told(*historic)


def test_each_attempt_is_told_with_the_servers_answer_and_its_template() -> None:
    text = told(
        *RELEASED,
        delivery("deferred", EVENING + 2 * HOUR + MINUTE, **PUT_OFF),
        delivery("delivered", attempt=2, **SENT),
    )

    assert "2017-02-03 19:12 UTC released on lane gmail" in text
    assert "2017-02-03 19:13 UTC deferred on lane gmail, attempt 1: 450 4.2.1 greylisted" in text
    assert "2017-02-03 20:12 UTC delivered on lane gmail, attempt 2: 250 2.0.0 kept" in text
    assert text.endswith("template browse_abandonment@0a1b2c3d4e5f")
    assert "not confirmed yet" not in text


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            delivery("bounced", code=550, detail="5.1.1 no such user", permanent=True),
            "no such user; for ever",
        ),
        (delivery("expired", attempt=3), "expired its time passed on lane gmail after 3 attempts"),
        (delivery("recalled", detail="withdrawn"), "recalled withdrawn"),
        (delivery("unknown", detail="connection lost"), "it may have gone, so it is not sent again"),
        (delivery("duplicate"), "repeated the command came again"),
    ],
)
def test_every_end_is_told_in_words(step: dict[str, Any], words: str) -> None:
    assert words in told(*RELEASED, step)


@pytest.mark.parametrize("steps", [[], [delivery("deferred", **PUT_OFF)]])
def test_what_waits_is_told_with_its_lane_and_what_is_paused(steps: list[dict[str, Any]]) -> None:
    history = history_of("r", [*RELEASED, *steps])

    def shown(control: Control) -> str:
        console = show.console()
        with console.capture() as capture:
            explain.tell(console, history, 0, control, PACKAGED.campaigns)
        return " ".join(capture.get().split())

    assert "waits on lane gmail since 2017-02-03 19:12 UTC, or is on its way" in shown(Control())
    assert "paused: lane gmail" in shown(Control(held=frozenset({("lane", "gmail")})))
    assert "paused" not in shown(Control(held=frozenset({("lane", "yahoo")})))
    scopes: list[Scoped] = [("provider", "gmail"), ("segment", "browse_abandoners")]
    scopes += [("template", "browse_abandonment"), ("model", "st-0123456789ab")]
    for of in scopes:
        assert f"paused: {' '.join(of)}" in shown(Control(held=frozenset({of})))
    both = Control(paused=True, held=frozenset({("campaign", "browse_abandonment")}))
    assert "paused: everything and campaign browse_abandonment" in shown(both)


def test_a_consent_version_that_looks_like_a_time_is_shown_as_it_is() -> None:
    gate = {"name": "consent", "passed": True, "detail": f"mail granted, version {EVENING}"}

    assert f"mail granted, version {EVENING}" in told(decision(gates=[gate]))
    assert f"mail granted (version {EVENING})" in told(consent(version=EVENING))


# The audit trail on Kafka


def read(partition: int) -> Any:
    """Two partitions' worth of messages; each test key stands where it belongs."""
    body = {"purpose": "mail", "state": "granted", "version": 1, "reason": None, "cause": BY_CLICK}
    batches = []
    for key in ("r", "s", "t", "u", "v"):
        if partition_of(key.encode(), 2) == partition:
            value = encoded("ConsentRecord", body, recipient=key)
            batches.append([Message(topic=AUDIT, partition=partition, key=key.encode(), value=value)])
    return iter(batches)


def test_records_of_a_recipient_come_from_the_one_partition_of_its_key() -> None:
    asked = []

    def noted(partition: int) -> Any:
        asked.append(partition)
        return read(partition)

    reader = AuditTopic(noted, lambda key: partition_of(key, 2), 2)

    assert [each["recipient_id"] for each in reader.of_recipient("s")] == ["s"]
    assert asked == [partition_of(b"s", 2)]


def test_all_records_come_from_all_partitions() -> None:
    reader = AuditTopic(read, lambda key: partition_of(key, 2), 2)

    assert sorted(each["recipient_id"] for each in reader.all()) == ["r", "s", "t", "u", "v"]
