"""Audit records put together from pieces are those that an encoder would write."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from fastavro import parse_schema
from fastavro.utils import generate_many
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, topics
from schemas.audit import DECISION, RELEASE, TRANSITION, AuditWriter, Body, Gate

LONG = st.integers(0, 2**63 - 1)
INT = st.integers(0, 2**31 - 1)
OF_A_RECORD = st.fixed_dictionaries(
    {
        "topic": st.sampled_from([topic.name for topic in topics.SOURCES]),
        "partition": INT,
        "offset": LONG,
        "event_id": st.text(min_size=1),
        "due_at": st.none(),
    }
)
OF_TIME = st.fixed_dictionaries(
    {
        "topic": st.none(),
        "partition": st.none(),
        "offset": st.none(),
        "event_id": st.none(),
        "due_at": st.integers(0, 2**47),
    }
)
CAUSE = OF_A_RECORD | OF_TIME
TRANSITIONS = st.fixed_dictionaries(
    {"segment": st.text(), "entered": st.booleans(), "cause": CAUSE, "definition": st.text()}
).map(lambda record: (TRANSITION, record))
CONSENTS = st.fixed_dictionaries(
    {
        "purpose": st.text(),
        "state": st.text(),
        "version": LONG,
        "reason": st.none() | st.text(),
        "cause": CAUSE,
    }
).map(lambda record: ("opportune.ConsentRecord", record))
MOMENT = st.none() | st.integers(0, 2**47)
NUMBER = st.none() | st.floats(allow_nan=False)
GATES = st.lists(st.builds(Gate, st.text(), st.booleans(), st.text(), st.text()), max_size=12)
DECISIONS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("decision_id", "campaign", "reason", "purpose", "policy"), st.text()),
        "outcome": st.sampled_from(["scheduled", "withheld"]),
        **dict.fromkeys(("due_at", "expires_at", "runner_up_at", "best_at", "would_be_due_at"), MOMENT),
        **dict.fromkeys(("first_at", "likeliest_at", "shadow_at"), MOMENT),
        **dict.fromkeys(("shadow_score", "shadow_propensity"), NUMBER),
        **dict.fromkeys(
            ("score", "runner_up_score", "propensity", "worth", "regret", "active_hours"), NUMBER
        ),
        **dict.fromkeys(("tier", "outranked_by", "model", "shadow_model"), st.none() | st.text()),
        "canary": st.booleans(),
        **dict.fromkeys(("hours_left", "hours_mask"), st.none() | INT),
        "terms": st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=3),
        "campaign_version": INT,
        "cause": CAUSE,
        "segments": st.lists(st.text(), max_size=9),
        "features": st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=9),
        "gates": GATES,
        "arm": st.text(),
    }
).map(lambda record: (DECISION, record))
RELEASES = st.fixed_dictionaries(
    {
        **dict.fromkeys(("decision_id", "dispatch_id", "campaign", "reason"), st.text()),
        "outcome": st.sampled_from(["released", "withheld", "deferred"]),
        "due_at": st.integers(0, 2**47),
        "lane": st.none() | st.text(),
        "history": st.booleans(),
        "gates": GATES,
    }
).map(lambda record: (RELEASE, record))
ABOUT = st.fixed_dictionaries(
    {"partition": INT, "cut": LONG, "at": st.integers(0, 2**47), "control_version": LONG}
)


@given(ABOUT, st.text(min_size=1), TRANSITIONS | CONSENTS | DECISIONS | RELEASES)
def test_a_record_is_byte_for_byte_what_the_codec_writes(
    about: Mapping[str, Any], name: str, body: Body
) -> None:
    plain = body[0], {field: as_avro(value) for field, value in body[1].items()}
    whole = codec.encode(topics.AUDIT.name, {"recipient_id": name, **about, "body": plain})
    assert AuditWriter(about).encode(name.encode(), body) == whole


def as_avro(value: Any) -> Any:
    gates = isinstance(value, list) and value and isinstance(value[0], Gate)
    return [gate._asdict() for gate in value] if gates else value


BODIES = json.loads(codec.schema_json(codec.current_id(topics.AUDIT.name)))["fields"][-1]["type"]


IN_PIECES = {TRANSITION, DECISION, RELEASE}
WHOLE = [n for n, body in enumerate(BODIES) if f"opportune.{body['name']}" not in IN_PIECES]


@pytest.mark.parametrize("place", WHOLE)
def test_every_other_kind_of_body_is_written_as_the_codec_writes_it(place: int) -> None:
    name = f"opportune.{BODIES[place]['name']}"
    named: dict[str, Any] = {}
    schemas = [parse_schema(body | {"namespace": "opportune"}, named) for body in BODIES]
    about = {"partition": 3, "cut": 70_000, "at": 1_500_000_000_000, "control_version": 2, "line": "deliver"}
    for record in generate_many(schemas[place], 50):
        whole = codec.encode(topics.AUDIT.name, {"recipient_id": "r", **about, "body": (name, record)})
        assert AuditWriter(about).encode(b"r", (name, record)) == whole


@given(ABOUT, TRANSITIONS)
def test_a_line_that_names_itself_stands_in_the_record(about: Mapping[str, Any], body: Body) -> None:
    value = AuditWriter({**about, "line": "deliver"}).encode(b"r", body)
    assert codec.decode(topics.AUDIT.name, value)["line"] == "deliver"


def test_what_does_not_fit_its_schema_is_refused() -> None:
    about = {"partition": 0, "cut": 1, "at": 0, "control_version": 0}
    with pytest.raises((ValueError, TypeError)):
        AuditWriter(about).encode(b"r", ("opportune.ConsentRecord", {"purpose": 3}))
