"""What is read without a parser is what the parser reads."""

from __future__ import annotations

import re
from email.utils import parseaddr
from typing import Any

from aiosmtpd.smtp import SMTP
from aiosmtplib.protocol import normalize_message_line_endings
from hypothesis import example, given
from hypothesis import strategies as st

from infra.embedded.smtp_sandbox import USUAL_ADDRESS, Conversation
from schemas.addresses import PLAIN_ADDRESS
from sinks.transports.replies import without_addresses
from sinks.transports.session import _in_lines

WORDS = st.sampled_from(
    ["jane", "JANE", "Jane.Doe", "e", "jane.doe@mail.example", "ſ", "K", "k", "5", " ", ".", "<", ">"]
)


@given(st.from_regex(PLAIN_ADDRESS, fullmatch=True))
def test_a_plain_address_is_what_the_mail_library_reads(address: str) -> None:
    assert parseaddr(address) == ("", address)
    assert address.isprintable()


@given(st.from_regex(USUAL_ADDRESS, fullmatch=True))
@example("<a@b> BODY=8BITMIME SMTPUTF8")
def test_the_sandbox_reads_a_path_as_aiosmtpd_does(path: str) -> None:
    conversation: Any = object.__new__(Conversation)
    conversation.local_part_limit = 0
    assert conversation._getaddr(path) == SMTP._getaddr(conversation, path)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a"]), max_size=12).map(b"".join))
def test_content_goes_in_lines_without_a_dot_that_would_end_it(content: bytes) -> None:
    assert _in_lines(content) == re.sub(rb"(?m)^\.", b"..", normalize_message_line_endings(content))


@given(
    st.lists(WORDS, max_size=8).map("".join),
    st.sampled_from(["jane@x.y", "e@x.y", "ſ@x.y", "k@x.y", '"jane doe"@x.y']),
)
def test_a_recipient_is_not_found_in_a_reply_in_any_case(text: str, recipient: str) -> None:
    local = re.escape(recipient.rpartition("@")[0].strip('"'))
    found = without_addresses(text, recipient)
    assert not re.search(rf"(?<![\w.]){local}(?![\w])", found, re.IGNORECASE)
