"""A small world for worked examples: one policy, one partition, Ann, and short words for records."""

import uuid
from datetime import UTC, datetime
from typing import Any

from schemas import codec, ids
from schemas.policy import Campaign, Contact, Policy, Segment, SendTime, Trigger
from schemas.profile import Consent
from tests.reference.cuts import RefCut, RefRecord, RefResult
from tests.reference.rules import Reference
from tests.reference.state import Recipient, Slot

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
CLICKS, PURCHASES, CONSENT = "behaviour.clicks", "behaviour.purchases", "consent.changes"
ATTRIBUTES, DELIVERY = "recipients.attributes", "delivery.events"


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


NOW = at("2024-03-06T12:30")  # a Wednesday
NOON_HOUR = at("2024-03-06T12:00") // HOUR

# 0.01 in 21 hours, the rest at 10, 11 and 12.
PRIOR_HOURS = tuple({10: 0.20, 11: 0.30, 12: 0.29}.get(hour, 0.01) for hour in range(24))
PRIOR_WEEKDAYS = (0.1, 0.1, 0.2, 0.1, 0.1, 0.2, 0.2)


def campaign(
    number: int, name: str, expiry: str = "24 h", audience: str | None = None, **more: Any
) -> Campaign:
    trigger = {word: more.pop(word) for word in ("enter", "leave", "event") if word in more}
    return Campaign(
        number=number,
        name=name,
        version=1,
        doc="",
        trigger=Trigger(**trigger),
        audience=audience,
        template=f"{name}_template",
        cooldown="7 days",
        expiry=expiry,
        **more,
    )


def contact(most: int, window: str = "16 h") -> Contact:
    """One cap, quiet from nine to eight."""
    return Contact.model_validate(
        {
            "default_zone": "UTC",
            "profiling": "opt_out",
            "purpose": {"mail": {"consent": "opt_in"}},
            "cap": [{"most": most, "window": window}],
            "quiet": {"default": {"from": "21:00", "to": "08:00"}},
        }
    )


POLICY = Policy(
    segments=(
        Segment(number=0, name="viewers", where="views_24h >= 3", doc=""),
        Segment(number=1, name="rested", where="hours_since_view >= 20", doc=""),
        Segment(number=9, name="buyers", where="purchases_7d >= 1", doc=""),
    ),
    campaigns=(
        campaign(0, "look_again", enter="viewers"),
        campaign(1, "come_back", enter="rested", expiry="48 h"),
        campaign(2, "thank_you", event="purchase", audience="viewers"),
    ),
    contact=contact(most=1),
    send_time=SendTime(
        kappa_day=10.0,
        kappa_week=30.0,
        thin_history=5.0,
        prior_hours=PRIOR_HOURS,
        prior_weekdays=PRIOR_WEEKDAYS,
    ),
)


def policy_with(**changes: Any) -> Policy:
    """The policy with other parts; a copy by pydantic would keep what the old one has worked out."""
    parts = {name: getattr(POLICY, name) for name in Policy.model_fields}
    return Policy(**parts | changes)


Body = tuple[str, dict[str, Any], dict[str, bytes]]


def click(kind: str = "view", when: int = NOW, **more: Any) -> Body:
    headers = more.pop("headers", {})
    return CLICKS, {"recipient_id": "ann", "occurred_at": when, "kind": kind, **more}, headers


def buy(amount: int = 100, when: int = NOW, **more: Any) -> Body:
    return PURCHASES, {"recipient_id": "ann", "occurred_at": when, "amount": amount, **more}, {}


def consent(state: str = "granted", version: int = 1, purpose: str = "mail", when: int = NOW) -> Body:
    body = {
        "recipient_id": "ann",
        "occurred_at": when,
        "purpose": purpose,
        "state": state,
        "version": version,
    }
    return CONSENT, body, {}


def attributes(**fields: Any) -> Body:
    return ATTRIBUTES, {"recipient_id": "ann", "occurred_at": NOW, **fields}, {}


def delivery(kind: str, dispatch_id: str | None = None, when: int = NOW, **more: Any) -> Body:
    body = {"recipient_id": "ann", "occurred_at": when, "kind": kind, "dispatch_id": dispatch_id, **more}
    return DELIVERY, body, {}


class World:
    """A reference with one partition, cut by cut; Ann has consented."""

    def __init__(self, policy: Policy = POLICY, now: int = NOW, partitions: int = 1) -> None:
        self.reference = Reference(policy, partitions)
        self.before = now
        self.number = 0
        self.offset = 0
        self.ann = Recipient(hour=now // HOUR, consent={"mail": Consent.GRANTED}, consent_version={"mail": 0})
        self.reference.recipients[0] = {"ann": self.ann}

    def record(self, body: Body) -> RefRecord:
        topic, fields, headers = body
        self.offset += 1
        value = codec.encode(topic, fields)
        return RefRecord(topic, 0, self.offset, fields["recipient_id"].encode(), value, headers)

    def cut(
        self, now: int, *bodies: Body | RefRecord, paused: bool = False, history: bool = False
    ) -> RefResult:
        taken = [body if isinstance(body, RefRecord) else self.record(body) for body in bodies]
        self.number += 1
        result = self.reference.handle(RefCut(0, self.number, now, self.before, 0, paused, history, taken))
        self.before = now
        self.ann = self.reference.recipients[0]["ann"]
        return result

    def wait(self, due_at: int, expires_at: int, number: int = 0, index: int = 0) -> str:
        """Put a pending slot into Ann's row; its dispatch id."""
        decision = uuid.UUID(int=index + 1)
        self.ann.slots[index] = Slot(False, number, due_at, expires_at, decision)
        return ids.dispatch_id(decision, "mail")


def bodies(result: RefResult, kind: str) -> list[dict[str, Any]]:
    return [body for _, body in result.audit if body["kind"] == kind]
