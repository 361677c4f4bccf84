"""A recipient's row as plain Python, and its bytes. docs/decisions.md says what is in it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from schemas.profile import (
    DAYS,
    HOURS,
    KINDS,
    PENDING_SLOTS,
    PURPOSES,
    RECENT_SLOTS,
    ROW,
    ROW_VERSION,
    SENT_SLOTS,
    WEEK_HOURS,
)
from schemas.profile import Slot as State

ALL_SEGMENTS = 128


@dataclass
class Slot:
    """A send that waits (`pending`) or went out and is not yet closed (`released`); a free slot is None."""

    released: bool
    campaign: int
    due_at: int
    expires_at: int
    decision: uuid.UUID
    provider: str = ""  # of its lane, as the next two, once released
    identity: int = 0
    part: int = 0
    model: int = 0  # that chose the hour, by `Models.names`, from 1 on

    @property
    def pending(self) -> bool:
        return not self.released


@dataclass
class Recipient:
    """What is stored of one recipient. Counters are kept by absolute UTC hour and day, absent where zero."""

    hour: int
    saturated: bool = False
    hourly: dict[tuple[str, int], int] = field(default_factory=dict)  # (kind, UTC hour)
    daily: dict[tuple[str, int], int] = field(default_factory=dict)  # (kind, UTC day)
    revenue: dict[int, int] = field(default_factory=dict)  # UTC day
    active: list[int] = field(default_factory=lambda: [0] * WEEK_HOURS)
    last: dict[str, int] = field(default_factory=dict)  # kind, absent if never
    first: int = 0
    zone: str = ""
    locale: str = ""
    provider: str = ""
    place: str = ""
    consent: dict[str, int] = field(default_factory=dict)  # purpose
    consent_version: dict[str, int] = field(default_factory=dict)
    suppressed: int = 0
    segments: set[int] = field(default_factory=set)
    segments_version: int = 0  # of the definitions by which it is in those
    cooldown: dict[int, int] = field(default_factory=dict)  # campaign -> minute
    sent: list[tuple[int, int]] = field(default_factory=list)  # (second, campaign), newest last, at most 12
    slots: list[Slot | None] = field(default_factory=lambda: [None] * PENDING_SLOTS)
    recent: list[int] = field(default_factory=list)  # hashes, newest last, at most 8

    def copy(self) -> Recipient:
        """An independent copy; `copy.deepcopy` gives the same in ten times the time."""
        copies: dict[str, Any] = {
            name: type(value)(value)
            for name, value in vars(self).items()
            if isinstance(value, dict | list | set)
        }
        copies["slots"] = [slot and replace(slot) for slot in self.slots]
        return replace(self, **copies)

    def forget(self) -> None:
        """Section 2: all behaviour."""
        self.saturated, self.first = False, 0
        self.hourly, self.daily, self.revenue, self.last = {}, {}, {}, {}
        self.active = [0] * WEEK_HOURS

    def remember_sent(self, now: int, campaign: int, goes: int) -> None:
        """Section 2: the second of `now`, rounded up, and the campaign are appended; of 12, one goes."""
        if len(self.sent) == SENT_SLOTS:
            self.sent.pop(goes)
        self.sent = [*self.sent, (-(-now // 1000), campaign)]

    def remember_event(self, event_hash: int) -> None:
        """Section 1: the last 8 hashes of accepted events."""
        self.recent = [*self.recent, event_hash][-RECENT_SLOTS:]


def pack(recipient: Recipient) -> bytes:
    """The bytes of the recipient's `ROW`; whatever is not in use is zero."""
    rows = np.zeros(1, ROW)
    row = rows[0]
    row["version"] = ROW_VERSION
    row["flags"] = 1 if recipient.saturated else 0
    row["hour"] = recipient.hour
    for (kind, hour), count in recipient.hourly.items():
        row["hourly"][KINDS.index(kind), hour % HOURS] = count
    for (kind, day), count in recipient.daily.items():
        row["daily"][KINDS.index(kind), day % DAYS] = count
    for day, amount in recipient.revenue.items():
        row["revenue"][day % DAYS] = amount
    for index, weight in enumerate(recipient.active):
        row["active"][index] = weight
    for kind, moment in recipient.last.items():
        row["last"][KINDS.index(kind)] = moment
    row["first"] = recipient.first
    for name in ("zone", "locale", "provider", "place"):
        row[name] = getattr(recipient, name).encode()
    for purpose, state in recipient.consent.items():
        row["consent"][PURPOSES.index(purpose)] = state
    for purpose, version in recipient.consent_version.items():
        row["consent_version"][PURPOSES.index(purpose)] = version
    row["suppressed"] = recipient.suppressed
    for word in range(ALL_SEGMENTS // 64):
        row["segments"][word] = sum(1 << (n % 64) for n in recipient.segments if n // 64 == word)
    row["segments_version"] = recipient.segments_version
    for campaign, minute in recipient.cooldown.items():
        row["cooldown"][campaign] = minute
    for index, (moment, campaign) in enumerate(recipient.sent, start=SENT_SLOTS - len(recipient.sent)):
        row["sent_at"][index] = moment
        row["sent_campaign"][index] = campaign
    for index, slot in enumerate(recipient.slots):
        if slot is not None:
            row["pending"][index] = (
                State.RELEASED if slot.released else State.PENDING,
                slot.campaign,
                slot.due_at,
                slot.expires_at,
                slot.decision.bytes,
                slot.provider.encode(),
                slot.identity,
                slot.part,
                slot.model,
            )
    for index, event_hash in enumerate(recipient.recent, start=RECENT_SLOTS - len(recipient.recent)):
        row["recent"][index] = event_hash
    return rows.tobytes()


def unpack(data: bytes) -> Recipient:
    """The recipient whose row has these bytes."""
    row = np.frombuffer(data, ROW)[0]
    hour = int(row["hour"])
    day = hour // 24
    recipient = Recipient(hour, saturated=bool(row["flags"] & 1))
    for index, kind in enumerate(KINDS):
        for past in range(hour - HOURS + 1, hour + 1):
            if count := int(row["hourly"][index, past % HOURS]):
                recipient.hourly[kind, past] = count
        for past in range(day - DAYS + 1, day + 1):
            if count := int(row["daily"][index, past % DAYS]):
                recipient.daily[kind, past] = count
        if moment := int(row["last"][index]):
            recipient.last[kind] = moment
    for past in range(day - DAYS + 1, day + 1):
        if amount := int(row["revenue"][past % DAYS]):
            recipient.revenue[past] = amount
    recipient.active = [int(weight) for weight in row["active"]]
    recipient.first = int(row["first"])
    recipient.zone = bytes(row["zone"]).decode()
    recipient.locale = bytes(row["locale"]).decode()
    recipient.provider = bytes(row["provider"]).decode()
    recipient.place = bytes(row["place"]).decode()
    for index, purpose in enumerate(PURPOSES):
        if state := int(row["consent"][index]):
            recipient.consent[purpose] = state
        if version := int(row["consent_version"][index]):
            recipient.consent_version[purpose] = version
    recipient.suppressed = int(row["suppressed"])
    words = [int(word) for word in row["segments"]]
    recipient.segments = {n for n in range(ALL_SEGMENTS) if words[n // 64] >> (n % 64) & 1}
    recipient.segments_version = int(row["segments_version"])
    recipient.cooldown = {n: int(minute) for n, minute in enumerate(row["cooldown"]) if minute}
    sent = zip(row["sent_at"], row["sent_campaign"], strict=True)
    recipient.sent = [(int(moment), int(campaign)) for moment, campaign in sent if moment]
    recipient.slots = [_slot(entry) for entry in row["pending"]]
    recipient.recent = [int(event_hash) for event_hash in row["recent"] if event_hash]
    return recipient


def _slot(entry: np.void) -> Slot | None:
    if entry["state"] == State.FREE:
        return None
    return Slot(
        released=bool(entry["state"] == State.RELEASED),
        campaign=int(entry["campaign"]),
        due_at=int(entry["due_at"]),
        expires_at=int(entry["expires_at"]),
        decision=uuid.UUID(bytes=entry["decision"].tobytes()),
        provider=bytes(entry["provider"]).decode(),
        identity=int(entry["identity"]),
        part=int(entry["part"]),
        model=int(entry["model"]),
    )
