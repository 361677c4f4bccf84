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
from schemas.audit import TRANSITION, AuditWriter, Body

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
CAUSE_OF_A_CLICK = {
    "topic": topics.CLICKS.name,
    "partition": 1,
    "offset": 300,
    "event_id": "e-1",
    "due_at": None,
}
ABOUT = st.fixed_dictionaries(
    {"partition": INT, "cut": LONG, "at": st.integers(0, 2**47), "control_version": LONG}
)


@given(ABOUT, st.text(min_size=1), TRANSITIONS | CONSENTS)
def test_a_record_is_byte_for_byte_what_the_codec_writes(
    about: Mapping[str, Any], name: str, body: Body
) -> None:
    whole = codec.encode(topics.AUDIT.name, {"recipient_id": name, **about, "body": body})
    assert AuditWriter(about).encode(name.encode(), body) == whole


BODIES = json.loads(codec.schema_json(codec.current_id(topics.AUDIT.name)))["fields"][-1]["type"]


@pytest.mark.parametrize("place", range(len(BODIES)))
def test_every_kind_of_body_is_written_as_the_codec_writes_it(place: int) -> None:
    name = f"opportune.{BODIES[place]['name']}"
    named: dict[str, Any] = {}
    schemas = [parse_schema(body | {"namespace": "opportune"}, named) for body in BODIES]
    about = {"partition": 3, "cut": 70_000, "at": 1_500_000_000_000, "control_version": 2, "line": "deliver"}
    for record in generate_many(schemas[place], 50):
        # A cause at random may be of a record and of time at once; there is none such.
        body = (name, {**record, "cause": CAUSE_OF_A_CLICK} if name == TRANSITION else record)
        whole = codec.encode(topics.AUDIT.name, {"recipient_id": "r", **about, "body": body})
        assert AuditWriter(about).encode(b"r", body) == whole


@given(ABOUT, TRANSITIONS)
def test_a_line_that_names_itself_stands_in_the_record(about: Mapping[str, Any], body: Body) -> None:
    value = AuditWriter({**about, "line": "deliver"}).encode(b"r", body)
    assert codec.decode(topics.AUDIT.name, value)["line"] == "deliver"


def test_what_does_not_fit_its_schema_is_refused() -> None:
    about = {"partition": 0, "cut": 1, "at": 0, "control_version": 0}
    with pytest.raises((ValueError, TypeError)):
        AuditWriter(about).encode(b"r", ("opportune.ConsentRecord", {"purpose": 3}))
