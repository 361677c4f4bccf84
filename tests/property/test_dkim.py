"""Whatever a message says, its signature holds for a verifier that is not ours, and for no other message."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from models.templates import Rendered, compose
from sinks.transports.dkim import NEVER_ADDED, SIGNED, Signer
from tests.support.signing import SIGNERS, record, verifies

DISPATCH = "7a0e3b0e-7f0a-5f0e-9f0a-0123456789ab"
WHITE = st.sampled_from(["", " ", "  ", "\t", " \t ", "\n", "\r\n", "\n\n \n", "\r", ".", "=", "ü", "x" * 90])
BODIES = st.lists(WHITE | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)).map("".join)
PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=200)
SUBJECTS = PRINTABLE.map(lambda text: text.strip(" ")).filter(bool)
ADDRESSES = ["jane@mail.example", "jürgen@exämple.example", f"{'j' * 64}@{'mail.' * 20}example"]
SENDERS = [
    "hello@opportune.example",
    "Opportune <hello@opportune.example>",
    "Größe & Co <hi@opportune.example>",
]
RAW = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\n", b"\r", b".", b"a", b"\xc3\xbc", b"\x0b", b"\x00"])
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message of any subject, texts, addresses, names and time."""
    url = f"https://opportune.example/{draw(st.sampled_from(['', 'u', 'u' * 90]))}"
    varied: dict[str, Any] = {
        "lane": draw(st.sampled_from(["gmail", "other"])),
        "campaign": draw(st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)),
        "sender": draw(st.sampled_from(SENDERS)),
        "recipient_address": draw(st.sampled_from(ADDRESSES)),
        "at": draw(st.integers(0, 1_700_000_000_000)),
        "unsubscribe_url": url,
        "feedback": draw(st.from_regex(r"[a-z0-9_]{1,150}:mail:opportune", fullmatch=True)),
    }
    return compose(
        Rendered(draw(SUBJECTS), draw(BODIES), draw(BODIES)),
        dispatch_id=DISPATCH,
        domain="opportune.example",
        unsubscribe_mailto="unsubscribe@opportune.example",
        **varied,
    )


signers = st.sampled_from(SIGNERS)


def _headers(signed: bytes) -> list[bytes]:
    """All headers, ours first, each with the end of its last line."""
    head = signed.partition(b"\r\n\r\n")[0] + b"\r\n"
    return re.findall(rb"[^\r\n]+\r\n(?:[ \t][^\r\n]*\r\n)*", head)


@given(messages(), signers, st.integers(0, 1_700_000_000_000))
def test_whatever_is_composed_verifies(content: bytes, signer: Signer, at: int) -> None:
    signed = signer.sign(content, at)

    assert signed.endswith(content)
    assert verifies(signed, record(signer.key))


@given(RAW, signers)
def test_whatever_bytes_a_body_has_it_verifies(body: list[bytes], signer: Signer) -> None:
    content = b"From: hello@opportune.example\nSubject: \xc3\xbc\n\n" + b"".join(body)

    assert verifies(signer.sign(content, 0), record(signer.key))


@given(messages(), signers, st.data())
def test_a_change_of_any_signed_header_breaks_it_and_of_any_other_does_not(
    content: bytes, signer: Signer, data: st.DataObject
) -> None:
    signed = signer.sign(content, 0)
    header = data.draw(st.sampled_from(_headers(signed)[1:]))
    changed = signed.replace(header, header[:-2] + b"x\r\n", 1)

    is_signed = header.partition(b":")[0].decode() in SIGNED
    assert verifies(changed, record(signer.key)) is not is_signed


@given(messages(), signers, st.data())
def test_a_letter_anywhere_in_the_body_breaks_it(content: bytes, signer: Signer, data: st.DataObject) -> None:
    signed = signer.sign(content, 0)
    place = data.draw(st.integers(signed.index(b"\r\n\r\n") + 4, len(signed)))

    assert not verifies(signed[:place] + b"x" + signed[place:], record(signer.key))


@given(messages(), signers, st.sampled_from(NEVER_ADDED), st.data())
def test_a_second_one_of_what_is_shown_or_obeyed_breaks_it_wherever_it_stands(
    content: bytes, signer: Signer, name: str, data: st.DataObject
) -> None:
    signed = signer.sign(content, 0)
    headers = _headers(signed)
    headers.insert(data.draw(st.integers(0, len(headers))), f"{name}: <evil@phish.example>\r\n".encode())

    changed = b"".join(headers) + signed[signed.index(b"\r\n\r\n") + 2 :]
    assert not verifies(changed, record(signer.key))
