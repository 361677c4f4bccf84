"""SMTP replies as outcomes, with every address taken out."""

from __future__ import annotations

import re
from typing import Final, Literal

from sinks.transports import Outcome

Stage = Literal["MAIL", "RCPT", "DATA", "content"]

LONGEST_DETAIL: Final = 200
_LONGEST_READ: Final = 1000  # the time to find addresses grows with the square of the length
_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?=\s|$)")
# A quoted local part may have spaces in it.
_ADDRESS: Final = re.compile(r"""<?(?:"(?:[^"\\]|\\.)*"|[^\s<>()\[\]"',;:]+)@[^\s<>()"',;]+>?""")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
# RFC 3463: of the codes about addresses, these are about the sender's.
_SENDERS: Final = ("5.1.7", "5.1.8")


def outcome_of(stage: Stage, code: int, text: str, recipient: str) -> Outcome:
    """Return what a reply means at `stage`; a reply that SMTP does not know there is the worst it can mean.

    `content` is the stage after the whole message was sent: only there can it have been taken.
    """
    enhanced = enhanced_code(text)
    words = "\n".join(_ENHANCED.sub("", line, count=1) for line in text.split("\n"))
    detail = f"{enhanced} {without_addresses(words, recipient)}".strip()[:LONGEST_DETAIL]
    if 500 <= code < 600:
        return Outcome("bounced", code, detail, permanent=stage == "RCPT" and is_of_bad_address(enhanced))
    if stage == "content" and not 400 <= code < 500:
        return Outcome("accepted" if 200 <= code < 300 else "unknown", code, detail)
    return Outcome("deferred", code, detail)


def enhanced_code(text: str) -> str:
    """Return the code of RFC 3463 that a reply begins with, such as 5.1.1; empty if there is none."""
    first = _ENHANCED.match(text)
    return first[1] if first else ""


def is_of_bad_address(enhanced: str) -> bool:
    """Return whether a code of RFC 3463 says for good that the recipient's address is bad."""
    return enhanced.startswith("5.1.") and enhanced not in _SENDERS


def without_addresses(text: str, recipient: str) -> str:
    """Return `text` on one line, at most 200 characters, without any address.

    The recipient's is taken out also where only its part before the @ is quoted, as many servers do.
    """
    plain = _UNPRINTABLE.sub(" ", text[: _LONGEST_READ + 1])
    if len(plain) > _LONGEST_READ:
        plain = plain.rpartition(" ")[0]  # or it might end within an address
    plain = _ADDRESS.sub("[address]", plain)
    local = recipient.rpartition("@")[0].strip('"')
    # Looked for first, since to compile takes longer than all else here. Outside ASCII IGNORECASE knows of
    # more pairs than `lower`.
    if local and (local.lower() in plain.lower() or not (local + plain).isascii()):
        # A whole word only: else the recipient `e` would leave nothing of any reply.
        plain = re.sub(rf"(?<![\w.]){re.escape(local)}(?![\w])", "[address]", plain, flags=re.IGNORECASE)
    return plain.strip()[:LONGEST_DETAIL]
