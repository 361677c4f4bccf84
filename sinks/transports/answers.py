"""HTTP answers as outcomes, with every address taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

from sinks.transports import Outcome, OutcomeKind
from sinks.transports.replies import LONGEST_DETAIL, enhanced_code, is_of_bad_address, without_addresses

LONGEST_RETRY_AFTER_S: Final = 3600.0  # who wants to be left alone for longer says so again
_LATER: Final = (408, 421, 425, 429)
_REFUSED: Final = (400, 413, 422)
_UNDER_WAY: Final = 409


@dataclass(frozen=True)
class Answer:
    """What a service answered to a whole request, and when (UTC, s).

    `headers` are by their names in lower case; `body` is the first 64 kB.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: float


def kind_of(answer: Answer) -> OutcomeKind:
    """Return what an answer means by its status alone.

    A 5xx says that something broke, and not that it broke before the message was taken: gateways write 502,
    503 and 504 also for a service that they have lost after they had handed the request on. So it may have
    been sent; only a 503 with `Retry-After` is a service that speaks for itself and did not begin. 409 is an
    earlier request with the same key that is not over. What is left is the wrong door: a wrong key, path or
    method, or a redirect.
    """
    status = answer.status
    if 200 <= status < 300:
        return "accepted"
    if status in _LATER or (status == 503 and "retry-after" in answer.headers):
        return "deferred"
    if status in _REFUSED:
        return "bounced"
    return "unknown" if status >= 500 or status == _UNDER_WAY else "not_sent"


def outcome_of(kind: OutcomeKind, answer: Answer, text: str, recipient: str, name: str = "") -> Outcome:
    """Return an answer as an outcome; `text` is the service's own words, `name` what it calls its error.

    `permanent` is a bounce whose text begins with a code of RFC 3463 about the recipient's address.
    """
    enhanced = enhanced_code(text)
    words = without_addresses(text.removeprefix(enhanced), recipient)
    detail = " ".join(part for part in (enhanced, name and f"{name}:", words) if part)[:LONGEST_DETAIL]
    permanent = kind == "bounced" and is_of_bad_address(enhanced)
    wait = retry_after_s(answer.headers.get("retry-after", ""), answer.at) if kind == "deferred" else None
    return Outcome(kind, answer.status, detail, permanent, wait)


def retry_after_s(value: str, now: float) -> float | None:
    """Return the seconds from `now` (UTC, s) that a Retry-After asks for, at most an hour.

    None where it is neither whole seconds nor a date as HTTP writes them today (RFC 9110, 10.2.3).
    """
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        date = parsedate_to_datetime(value)
        written = format_datetime(date, usegmt=True)  # ValueError, too, where it is no time of GMT
    except ValueError:
        return None
    if written != value:
        return None
    return min(max(date.timestamp() - now, 0.0), LONGEST_RETRY_AFTER_S)
