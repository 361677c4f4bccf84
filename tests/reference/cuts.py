"""What goes into the reference and what comes out: records, cuts, results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from models.sendtime.model import HourModel
from models.sendtime.serving import Models
from schemas.policy import Applied, Campaign, Policy
from schemas.topics import SOURCES

FATES = ("consumed", "no_trigger", "decided", "filtered", "dead_lettered", "rekeyed", "late")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RefRecord:
    """A record as consumed."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes] = field(default_factory=dict)
    timestamp: int = 0


@dataclass(frozen=True)
class RefCut:
    """A cut; its records are in cut order."""

    partition: int
    number: int
    now: int
    before: int
    control_version: int
    paused: bool
    history: bool
    records: list[RefRecord]
    segments: tuple[Applied, ...] = ()  # all that were ever put in force
    models: Models | None = None  # the send-time models, if any was ever promoted
    full: Mapping[str, frozenset[int]] = field(default_factory=dict)  # UTC hours without room, by provider


def _no_fates() -> dict[str, dict[str, int]]:
    return {topic.name: dict.fromkeys(FATES, 0) for topic in SOURCES}


@dataclass
class RefResult:
    """What came of a cut."""

    fates: dict[str, dict[str, int]] = field(default_factory=_no_fates)
    audit: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    recalls: list[dict[str, Any]] = field(default_factory=list)
    dead: list[tuple[str, int, str]] = field(default_factory=list)
    rekeyed: list[tuple[str, int]] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)

    def kinds(self, recipient_id: str) -> list[str]:
        """The recipient's audit records in short, for tests: `decision scheduled`, `closure failed`."""
        words = ("outcome", "state", "reason", "segment")
        return [
            " ".join([body["kind"], next(str(body[word]) for word in words if word in body)])
            for whose, body in self.audit
            if whose == recipient_id
        ]


@dataclass(frozen=True)
class Cause:
    """What set something off: `id` goes into decision ids, `body` into audit records."""

    id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Work:
    """What every rule needs besides the recipient: the policy, the cut, and where results go."""

    policy: Policy
    cut: RefCut
    result: RefResult

    @cached_property
    def models(self) -> Models:
        """The send-time models in force."""
        return self.cut.models or Models(HourModel.built_in(self.policy.send_time))

    @property
    def segments_version(self) -> int:
        """Of the definitions in force."""
        return self.cut.segments[-1].version if self.cut.segments else 0

    def campaign(self, number: int) -> Campaign:
        """The campaign of this number."""
        return self.policy.campaign(number)

    def audit(self, recipient_id: str, **body: Any) -> None:
        """Note an audit body."""
        self.result.audit.append((recipient_id, body))


def milliseconds(value: datetime | int) -> int:
    """A decoded timestamp as UTC milliseconds."""
    return (value - _EPOCH) // timedelta(milliseconds=1) if isinstance(value, datetime) else value
