"""Audit records put together from pieces are those that an encoder would write."""

from collections.abc import Mapping
from typing import Any

import pytest
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
ABOUT = st.fixed_dictionaries(
    {"partition": INT, "cut": LONG, "at": st.integers(0, 2**47), "control_version": LONG}
)


@given(ABOUT, st.text(min_size=1), TRANSITIONS | CONSENTS)
def test_a_record_is_byte_for_byte_what_the_codec_writes(
    about: Mapping[str, Any], name: str, body: Body
) -> None:
    whole = codec.encode(topics.AUDIT.name, {"recipient_id": name, **about, "body": body})
    assert AuditWriter(about).encode(name.encode(), body) == whole


@given(ABOUT, TRANSITIONS)
def test_a_line_that_names_itself_stands_in_the_record(about: Mapping[str, Any], body: Body) -> None:
    value = AuditWriter({**about, "line": "deliver"}).encode(b"r", body)
    assert codec.decode(topics.AUDIT.name, value)["line"] == "deliver"


def test_what_does_not_fit_its_schema_is_refused() -> None:
    about = {"partition": 0, "cut": 1, "at": 0, "control_version": 0}
    with pytest.raises((ValueError, TypeError)):
        AuditWriter(about).encode(b"r", ("opportune.ConsentRecord", {"purpose": 3}))
