"""What an API in the shape of Amazon SES is asked, and how it is told that it is us."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from sinks.transports.ses import bearer, signature
from tests.support.http import Asked, Service
from tests.support.peers import SesPeer
from tests.support.smtp import ADDRESS, dispatch, message, sent


def asked(**changed: Any) -> Asked:
    service = SesPeer().server("accepts")
    assert isinstance(service, Service)

    async def run() -> None:
        async with service.listening() as port:
            through = SesPeer().transport(port, **changed)
            await sent(through, message(1))
            await through.close()

    uvloop.run(run())
    [found] = service.asked
    return found


def test_a_message_goes_as_it_is_with_its_dispatch_as_key_and_tag() -> None:
    found = asked()

    assert found.line == "POST /v2/email/outbound-emails HTTP/1.1"
    assert found.headers["content-type"] == "application/json"
    assert found.headers["authorization"] == "Bearer key"
    assert found.headers["idempotency-key"] == dispatch(1)
    told = json.loads(found.body)
    assert b64decode(told["Content"]["Raw"].pop("Data")) == message(1).content
    assert told == {
        "FromEmailAddress": "hello@opportune.example",
        "Destination": {"ToAddresses": [ADDRESS]},
        "Content": {"Raw": {}},
        "EmailTags": [{"Name": "dispatch_id", "Value": dispatch(1)}],
    }


def test_a_configuration_set_is_named_where_one_is_set() -> None:
    assert json.loads(asked(configuration_set="news").body)["ConfigurationSetName"] == "news"


def test_a_signature_is_that_of_amazon_s_own_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As botocore 1.44.8 signs the same request at the same time."""
    noon = SimpleNamespace(utcnow=lambda: datetime(2026, 11, 28, 12, tzinfo=UTC))
    monkeypatch.setattr("aws_request_signer.datetime", SimpleNamespace(datetime=noon))
    authorise = signature("eu-west-1", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")

    assert authorise(
        "https://email.eu-west-1.amazonaws.com/v2/email/outbound-emails",
        b'{"FromEmailAddress": "hello@opportune.example"}',
    ) == {
        "x-amz-content-sha256": "25a9507667943c228044fb80502083a02b92f4105b4ae8e576315234f6af9ada",
        "x-amz-date": "20261128T120000Z",
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261128/eu-west-1/ses/aws4_request, "
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        "Signature=cd39336a5fc2ab572a21675be20735828bda1e6535a595b9bbfede4709c3f627",
    }


def test_a_signed_request_goes_with_what_was_signed() -> None:
    found = asked(authorise=signature("eu-west-1", "AKIDEXAMPLE", "secret"))

    assert found.headers["host"].startswith("127.0.0.1:")
    assert "Credential=AKIDEXAMPLE/" in found.headers["authorization"]
    assert {"x-amz-date", "x-amz-content-sha256"} <= found.headers.keys()


def test_a_key_with_a_line_break_is_refused_and_not_quoted() -> None:
    async def run() -> str:
        async with SesPeer().server("accepts").listening() as port:
            through = SesPeer().transport(port, authorise=bearer("secret\n"))
            [outcome] = await sent(through, message())
            await through.close()
            return repr(outcome) + repr(through) + repr(vars(through))

    told = uvloop.run(run())
    assert "not_sent" in told
    assert "secret" not in told
