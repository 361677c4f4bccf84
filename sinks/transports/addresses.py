"""Mail addresses: whether a text is one, and whose a message is."""

from __future__ import annotations

import re
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import parseaddr
from typing import Final

_QUOTED_LOCAL_PART: Final = re.compile(r'^"(?:[^"\\]|\\.)*"(?=@)')
_OUTSIDE_QUOTES: Final = re.compile(r'[\s<>"]')


def is_mailbox(address: str) -> bool:
    """Return whether a text is one address and says nothing besides, wherever it is put."""
    return (
        "@" in address
        and address.isprintable()
        and parseaddr(address)[1] == address
        and not _OUTSIDE_QUOTES.search(_QUOTED_LOCAL_PART.sub("", address))
    )


def sender_of(content: bytes) -> str | None:
    """Return the address in a message's From header, or None if there is none."""
    headers = BytesHeaderParser(policy=compat32).parsebytes(content)
    address = parseaddr(str(headers["From"] or ""))[1]
    return address if is_mailbox(address) else None
