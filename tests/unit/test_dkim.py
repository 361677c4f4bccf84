"""DKIM: what a signature covers, which keys and domains may sign, who sends, and what is to be published."""

from __future__ import annotations

import re
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from pydantic import ValidationError

from schemas.settings import Settings
from sinks.key_files import KeyFileRefused
from sinks.transports.dkim import SIGNED, Signer, load_key
from streams import mail
from streams.cli.expected import EXPECTED
from tests.support.signing import DOMAIN, ED25519, RSA, SELECTOR, SIGNERS, record, verifies, write_key

AT = 1_700_000_000_999
HEAD = (
    b"From: Opportune <hello@opportune.example>\r\nTo: jane@mail.example\r\nSubject: Hello\r\n"
    b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <1@opportune.example>\r\n"
    b"List-Unsubscribe: <mailto:bye@opportune.example>,\r\n <https://opportune.example/bye>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nFeedback-ID: a:b:c:sender\r\n"
    b"X-Opportune-Lane: gmail\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n"
    b"Content-Transfer-Encoding: 7bit\r\nReply-To: help@opportune.example\r\n"
)
SHOP: dict[str, Any] = {"dkim_key": Path("k"), "mail_from": "news@shop.example"}
DOC = Path(mail.__file__).parents[1] / "docs" / "delivery.md"


def tags(signed: bytes) -> dict[str, str]:
    """The tags of the first header, white space taken out."""
    header = re.split(rb"\r\n(?![ \t])", signed, maxsplit=1)[0].decode()
    name, _, value = re.sub(r"\s", "", header).partition(":")
    assert name == "DKIM-Signature"
    return dict(tag.split("=", 1) for tag in value.split(";"))


@pytest.mark.parametrize("signer", SIGNERS)
def test_a_signature_names_its_key_its_time_and_what_it_covers(signer: Signer) -> None:
    found = tags(signer.sign(HEAD + b"\r\nhello\r\n", AT))

    assert list(found) == ["v", "a", "c", "d", "s", "t", "h", "bh", "b"]
    assert (found["c"], found["d"], found["s"], found["t"]) == (
        "relaxed/relaxed",
        DOMAIN,
        SELECTOR,
        "1700000000",
    )
    named = found["h"].split(":")
    assert set(named) == set(SIGNED)
    assert {name: named.count(name) for name in ("From", "List-Unsubscribe", "Feedback-ID", "Date")} == {
        "From": 2,
        "List-Unsubscribe": 2,
        "Feedback-ID": 1,
        "Date": 1,
    }


@pytest.mark.parametrize(("signer", "algorithm"), [(RSA, "rsa-sha256"), (ED25519, "ed25519-sha256")])
def test_the_algorithm_is_that_of_the_key(signer: Signer, algorithm: str) -> None:
    assert tags(signer.sign(HEAD, AT))["a"] == algorithm


def test_a_header_that_is_not_there_is_not_signed_but_those_that_none_may_add() -> None:
    named = tags(RSA.sign(b"From: a@opportune.example\r\n\r\nhello\r\n", AT))["h"]

    assert named == "From:From:To:Subject:List-Unsubscribe:List-Unsubscribe-Post"


@pytest.mark.parametrize("signer", SIGNERS)
def test_lines_are_short_and_the_message_follows_as_it_goes_over_the_wire(signer: Signer) -> None:
    signed = signer.sign(HEAD.replace(b"\r\n", b"\n") + b"\nhello\n.dot", AT)

    header, separator, rest = signed.partition(b"\r\nFrom: ")
    assert separator + rest == b"\r\n" + HEAD + b"\r\nhello\r\n.dot\r\n"
    assert max(map(len, header.split(b"\r\n"))) <= 78


@pytest.mark.parametrize("signer", SIGNERS)
def test_the_same_message_at_the_same_time_gives_the_same_bytes(signer: Signer) -> None:
    assert signer.sign(HEAD, AT) == signer.sign(HEAD, AT)
    assert signer.sign(HEAD, AT) != signer.sign(HEAD, AT + 1000)


@pytest.mark.parametrize(
    ("body", "relaxed"),
    [
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376, 3.4.5
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b" \t\r\n\r\n", b""),
        (b"a", b"a\r\n"),
        (b"a\n\n \nb \n", b"a\r\n\r\n\r\nb\r\n"),
        (b"a\rb\t\t \tc  ", b"a\r\nb c\r\n"),
        (b"\t  indented\r\n", b" indented\r\n"),
        (b"..\r\n.\r\n", b"..\r\n.\r\n"),
        ("ü\xa0 \r\n".encode(), "ü\xa0\r\n".encode()),
    ],
)
def test_the_body_hash_is_of_the_relaxed_body(body: bytes, relaxed: bytes) -> None:
    signed = RSA.sign(HEAD + b"\r\n" + body, AT)

    assert tags(signed)["bh"] == b64encode(sha256(relaxed).digest()).decode()
    assert verifies(signed, record(RSA.key))


@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"To: jane@mail.example", b"TO:\t jane@mail.example \t"),
        (b"Subject: Hello", b"Subject:\r\n Hello"),
        (b"X-Opportune-Lane: gmail", b"X-Opportune-Lane: other"),
        (b"X-Opportune-Lane: gmail\r\n", b""),
        (b"DKIM-Signature: ", b"Received: by mx.example\r\n\tfrom there\r\nDKIM-Signature: "),
        (b"X-Opportune-Lane", b"Feedback-ID: of:the:relay\r\nX-Opportune-Lane"),
        (b"hello  you", b"hello\tyou   "),
        (b"you\r\n", b"you\r\n\r\n\r\n"),
    ],
)
def test_what_a_relay_may_do_leaves_the_signature_whole(signer: Signer, before: bytes, after: bytes) -> None:
    # Feedback-ID before ours: the last of a name is the one that is signed.
    head = HEAD.replace(b"X-Opportune-Lane: gmail\r\n", b"").replace(
        b"Feedback-ID", b"X-Opportune-Lane: gmail\r\nFeedback-ID"
    )
    signed = signer.sign(head + b"\r\nhello  you\r\n", AT)
    changed = signed.replace(before, after, 1)

    assert changed != signed
    assert verifies(changed, record(signer.key))


@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        *((b"%b: " % name.encode(), b"%b: x" % name.encode()) for name in SIGNED),
        (b"DKIM-Signature: ", b"From: evil@phish.example\r\nDKIM-Signature: "),
        (b"X-Opportune-Lane", b"From: evil@phish.example\r\nX-Opportune-Lane"),
        (b"X-Opportune-Lane", b"List-Unsubscribe: <https://phish.example>\r\nX-Opportune-Lane"),
        (b"DKIM-Signature: ", b"List-Unsubscribe: <https://phish.example>\r\nDKIM-Signature: "),
        (b"DKIM-Signature: ", b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nDKIM-Signature: "),
        (b"DKIM-Signature: ", b"Subject: You have won\r\nDKIM-Signature: "),
        (b"DKIM-Signature: ", b"To: you@phish.example\r\nDKIM-Signature: "),
        (b"List-Unsubscribe: ", b"X-Was-List-Unsubscribe: "),
        (b"t=1700000000", b"t=1700000001"),
        (b"hello  you", b"helloyou"),
        (b"hello  you", b"hello you\r\nyou"),
        (b"hello  you\r\n", b""),
    ],
)
def test_what_a_recipient_would_be_deceived_by_breaks_it(signer: Signer, before: bytes, after: bytes) -> None:
    signed = signer.sign(HEAD + b"\r\nhello  you\r\n", AT)
    changed = signed.replace(before, after, 1)

    assert changed != signed
    assert not verifies(changed, record(signer.key))


def test_a_list_unsubscribe_that_was_not_there_cannot_be_added() -> None:
    signed = RSA.sign(b"From: a@opportune.example\r\n\r\nhello\r\n", AT)

    assert verifies(signed, record(RSA.key))
    assert not verifies(b"List-Unsubscribe: <https://phish.example>\r\n" + signed, record(RSA.key))


def test_another_key_does_not_verify() -> None:
    other = generate_rsa(65537, 2048)

    assert not verifies(RSA.sign(HEAD, AT), record(other))


def test_a_signer_shows_no_key_in_its_repr() -> None:
    assert repr(ED25519) == "Signer(domain='opportune.example', selector='opportune')"


# Keys and settings


@pytest.mark.parametrize("signer", SIGNERS)
def test_a_key_in_a_file_signs_for_the_domain_of_mail_from(tmp_path: Path, signer: Signer) -> None:
    write_key(tmp_path / "dkim.pem", signer.key)
    loaded = mail.signers(
        Settings(dkim_key=tmp_path / "dkim.pem", mail_from="Shop <news@Mail.Shop.example>")
    )["default"]

    assert loaded is not None
    assert verifies(loaded.sign(HEAD, AT), record(signer.key), "mail.shop.example")


def test_without_a_key_nobody_signs_here() -> None:
    assert mail.signers(Settings())["default"] is None


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (
            generate_rsa(65537, 1024),  # noqa: S505 - what must be refused
            r"an RSA key of 1024 bits; mail is signed by 2048 or more: make a new key",
        ),
        (generate_private_key(SECP256R1()), r"another kind; mail is signed by RSA or Ed25519: make one"),
    ],
)
def test_a_key_that_receivers_would_not_take_is_refused(tmp_path: Path, key: Any, says: str) -> None:
    write_key(tmp_path / "dkim.pem", key)
    with pytest.raises(KeyFileRefused, match=says):
        load_key(tmp_path / "dkim.pem")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    write_key(tmp_path / "dkim.pem", ED25519.key)
    (tmp_path / "dkim.pem").chmod(mode)
    with pytest.raises(KeyFileRefused, match="chmod 600"):
        load_key(tmp_path / "dkim.pem")


def test_a_missing_key_is_an_error_that_a_user_can_act_on(tmp_path: Path) -> None:
    with pytest.raises(EXPECTED, match="no key at .*dkim.pem; put it there, or name the file where it is"):
        mail.signers(Settings(dkim_key=tmp_path / "dkim.pem"))["default"]


@pytest.mark.parametrize("domain", ["mail.shop.example", "shop.example", "SHOP.example", None])
def test_the_domain_of_mail_from_or_one_above_it_may_sign(domain: str | None) -> None:
    settings = Settings(dkim_key=Path("k"), mail_from="Shop <news@mail.shop.example>", dkim_domain=domain)

    assert settings.signing_domain == (domain or "mail.shop.example").lower()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"dkim_domain": "other.example"},
            "neither the domain of mail_from nor above it; write shop.example",
        ),
        ({"dkim_domain": "hop.example"}, "neither the domain of mail_from"),
        ({"dkim_domain": "mail.shop.example"}, "neither the domain of mail_from"),
        ({"dkim_domain": "example"}, "cannot sign"),
        ({"dkim_domain": "shop.example; l=0"}, "cannot sign"),
        ({"mail_from": "news@exämple.example"}, "as DNS has it, in ASCII"),
        ({"dkim_selector": "a; l=0"}, "dkim_selector"),
        ({"dkim_selector": ""}, "dkim_selector"),
    ],
)
def test_who_would_not_be_aligned_or_is_no_name_is_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**SHOP | changed)


@pytest.mark.parametrize(
    ("changed", "sender"),
    [
        ({}, "opportune.examp"),
        ({"mail_domain": "a.co"}, "a.co-"),
        ({"mail_domain": "exämple.co"}, "ex-mple.co"),
        ({"sender_id": "acme_1"}, "acme_1"),
    ],
)
def test_who_sends_is_named_by_five_to_fifteen_plain_characters(changed: dict[str, Any], sender: str) -> None:
    assert Settings(**changed).feedback_sender == sender


@pytest.mark.parametrize("wrong", ["acme", "a" * 16, "acme:1", "ac me1"])
def test_another_name_of_who_sends_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="sender_id"):
        Settings(sender_id=wrong)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_what_the_guide_says_to_publish_verifies_what_is_signed(tmp_path: Path, kind: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the guide's commands are openssl's")
    section = DOC.read_text().partition("\n## DKIM\n")[2].partition("\n## ")[0]
    blocks = [block for block in re.findall(r"```\n(.*?)```", section, re.DOTALL) if "openssl" in block]
    [commands] = [block for block in blocks if f"k={kind};" in block]
    ran = subprocess.run(  # noqa: S603 - of the guide
        ["/bin/bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    signer = mail.signers(Settings(dkim_key=tmp_path / "dkim.pem"))["default"]
    assert signer is not None
    assert verifies(signer.sign(HEAD + b"\r\nhello\r\n", AT), ran.stdout.strip())
