"""Mail addresses: whether a text is one, and whose a message is."""

from __future__ import annotations

import re
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import parseaddr
from functools import lru_cache
from typing import Final

from schemas.addresses import PLAIN_ADDRESS

_QUOTED_LOCAL_PART: Final = re.compile(r'^"(?:[^"\\]|\\.)*"(?=@)')
_HEADERS_END: Final = re.compile(rb"(?m)^\r?\n")
_FROM: Final = re.compile(rb"(?im)^From:.*(?:\n[ \t].*)*")
_OUTSIDE_QUOTES: Final = re.compile(r'[\s<>"]')


def is_mailbox(address: str) -> bool:
    """Return whether a text is one address and says nothing besides, wherever it is put."""
    if PLAIN_ADDRESS.fullmatch(address):
        return True  # as nearly all are; to parse one takes twenty times as long
    return (
        "@" in address
        and address.isprintable()
        and parseaddr(address)[1] == address
        and not _OUTSIDE_QUOTES.search(_QUOTED_LOCAL_PART.sub("", address))
    )


def sender_of(content: bytes) -> str | None:
    """Return the address in a message's From header, or None if there is none."""
    found = _FROM.match(content)  # as in all that `models.templates` composes
    if found is None:
        end = _HEADERS_END.search(content)
        found = _FROM.search(content[: end.start()] if end else content)
    return found and _sender(found[0])


@lru_cache(64)
def _sender(header: bytes) -> str | None:
    value = BytesHeaderParser(policy=compat32).parsebytes(header)["From"]
    address = parseaddr(str(value))[1]
    return address if is_mailbox(address) else None
