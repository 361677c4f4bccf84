"""Section 3 of docs/decisions.md: what each kind of record does to a row, and segment transitions."""

from typing import Any

from schemas import ids
from schemas.policy import Applied, Campaign, Segment
from schemas.profile import (
    COUNTER_MAX,
    DAYS,
    HOURS,
    KINDS,
    MAX_SEGMENTS,
    WEIGHT_ONE,
    Consent,
    Suppression,
)
from schemas.reasons import Filtered, Reason
from schemas.topics import ATTRIBUTES, CLICKS, CONSENT, DELIVERY, PURCHASES
from tests.reference.clock import day_of_hour, hour_of, local_week_hour
from tests.reference.cuts import Cause, Work
from tests.reference.features import holding
from tests.reference.records import Event
from tests.reference.slots import close, dispatch_of, is_suppressed, may_profile, withdraw, zone_of
from tests.reference.state import Recipient
from tests.reference.triggers import decide

REVENUE_MAX = 2**32 - 1
ACTIVE_MAX = 65535
WEIGHTS = dict.fromkeys(KINDS, WEIGHT_ONE) | {"open": 77}
CONFIRMING = ("sent", "delivered")
FAILING = ("bounced", "expired", "recalled", "unknown", "complained", "unsubscribed")
QUARTERED = ("click", "open")
Transition = tuple[Segment, bool]


def suppression_of(event: Event) -> Suppression:
    """How a delivery event suppresses the recipient; NONE if it does not."""
    kind = event.body["kind"]
    if kind == "bounced":
        return Suppression.BOUNCED if event.body["permanent"] else Suppression.NONE
    return {"complained": Suppression.COMPLAINED, "unsubscribed": Suppression.UNSUBSCRIBED}.get(
        kind, Suppression.NONE
    )


def slot_of(work: Work, recipient: Recipient, dispatch_id: str | None) -> int | None:
    """Index of the first slot, pending or released, with this dispatch id."""
    for index, slot in enumerate(recipient.slots):
        if slot is not None and dispatch_of(work, slot) == dispatch_id:
            return index
    return None


def is_machine(event: Event) -> bool:
    """Section 1: what no person did."""
    prefetched = event.body["kind"] == "open" and event.body["network"] == "privacy_proxy"
    return bool(prefetched or event.body["agent"] == "scanner")


def weight_of(work: Work, recipient: Recipient, kind: str, event: Event) -> int:
    """Section 3: what an event counts; quarters of clicks and opens."""
    if kind not in QUARTERED:
        return 1
    proxied = kind == "open" and event.body["agent"] == "proxy"
    halvings = 2 if event.body["network"] == "datacenter" and not proxied else 0
    if kind == "click" and event.body["dispatch_id"] is not None:
        at = min(event.occurred_at, work.cut.now)
        waits = [at - second * 1000 for second, _ in recipient.sent if second * 1000 < at]
        since = min(waits, default=60_000)
        if event.occurred_at > work.cut.now - 3_600_000:
            halvings += (since < 10_000) + (since < 60_000)
        last = recipient.last.get("click", 0)
        between = abs(event.occurred_at - last) if last else 3_000
        halvings += (between < 1_000) + (between < 3_000)
    return max(4 >> halvings, 1)


def filtered(work: Work, recipient: Recipient, event: Event) -> Filtered | None:
    """The filtered rows of section 1's table, in order."""
    topic = event.record.topic
    if topic in (CLICKS.name, PURCHASES.name) and event.hash is not None and event.hash in recipient.recent:
        return Filtered.DUPLICATE
    if topic == CLICKS.name and is_machine(event):
        return Filtered.MACHINE
    if topic == CONSENT.name:
        stored = recipient.consent_version.get(event.body["purpose"], 0)
        return Filtered.STALE if event.body["version"] <= stored else None
    if topic == DELIVERY.name:
        dispatch_id = event.body["dispatch_id"]
        unknown = dispatch_id is not None and slot_of(work, recipient, dispatch_id) is None
        if unknown and suppression_of(event) == Suppression.NONE:
            return Filtered.UNKNOWN_DISPATCH
    return None


def apply(work: Work, recipient: Recipient, event: Event) -> bool:
    """Let an event take effect; whether it triggered a campaign."""
    topic = event.record.topic
    if topic == ATTRIBUTES.name:
        _attributes(recipient, event)
    elif topic == CONSENT.name:
        _consent(work, recipient, event)
    elif topic == DELIVERY.name:
        _delivery(work, recipient, event)
    else:
        return _behaviour(work, recipient, event)
    return False


def _attributes(recipient: Recipient, event: Event) -> None:
    for name in ("zone", "locale", "provider", "place"):
        if event.body[name] is not None:
            # A row keeps these as zero-padded bytes: zeros at the end are not part of the text.
            setattr(recipient, name, event.body[name].rstrip("\0"))


def _consent(work: Work, recipient: Recipient, event: Event) -> None:
    purpose, state, version = (event.body[name] for name in ("purpose", "state", "version"))
    was_profiled = may_profile(work, recipient)
    recipient.consent[purpose] = Consent.GRANTED if state == "granted" else Consent.WITHDRAWN
    recipient.consent_version[purpose] = version
    work.audit(
        event.recipient_id,
        kind="consent",
        purpose=purpose,
        state=state,
        version=version,
        reason=None,
        cause=event.cause.body,
    )
    if was_profiled and not may_profile(work, recipient):
        recipient.forget()
        evaluate(work, event.recipient_id, recipient, event.cause.body)
    if state == "withdrawn":

        def concerns(campaign: Campaign) -> bool:
            return campaign.purpose == purpose and work.policy.rule(campaign).consent != "not_needed"

        withdraw(work, event.recipient_id, recipient, concerns)


def _delivery(work: Work, recipient: Recipient, event: Event) -> None:
    kind = event.body["kind"]
    index = slot_of(work, recipient, event.body["dispatch_id"])
    if index is not None and kind in CONFIRMING:
        close(work, event.recipient_id, recipient, index, Reason.CONFIRMED)
    if index is not None and kind in FAILING:
        close(work, event.recipient_id, recipient, index, Reason.FAILED)
    suppression = suppression_of(event)
    if suppression == Suppression.NONE:
        return
    if not recipient.suppressed or suppression < recipient.suppressed:
        recipient.suppressed = suppression
        work.audit(
            event.recipient_id,
            kind="consent",
            purpose="suppression",
            state="suppressed",
            version=0,
            reason=kind,
            cause=event.cause.body,
        )
    withdraw(work, event.recipient_id, recipient, lambda c: is_suppressed(work, recipient, c))


def _behaviour(work: Work, recipient: Recipient, event: Event) -> bool:
    kind = "purchase" if event.record.topic == PURCHASES.name else event.body["kind"]
    weight = weight_of(work, recipient, kind, event)
    if may_profile(work, recipient):
        count(work, recipient, kind, event, weight)
    if event.hash is not None:
        recipient.remember_event(event.hash)
    transitions = evaluate(work, event.recipient_id, recipient, event.cause.body)
    asking = [
        (campaign, event.cause)
        for campaign in work.policy.campaigns
        if (campaign.trigger.event == kind and 2 * weight >= unit_of(kind))
        or _named(campaign.trigger.enter, campaign.trigger.leave, transitions) is not None
    ]
    decide(work, event.recipient_id, recipient, asking)
    return bool(asking)


def unit_of(kind: str) -> int:
    """What a whole event of a kind counts."""
    return 4 if kind in QUARTERED else 1


def hour_weight(recipient: Recipient, kind: str, hour: int) -> int:
    """What a kind's events of an hour weigh together."""
    return WEIGHTS[kind] * min(recipient.hourly.get((kind, hour), 0), unit_of(kind)) // unit_of(kind)


def count(work: Work, recipient: Recipient, kind: str, event: Event, weight: int) -> None:
    """Counters, revenue, first and last, and the hour-of-week profile."""
    hour_now = hour_of(work.cut.now)
    hour = min(hour_of(event.occurred_at), hour_now)
    day = day_of_hour(hour)
    within_hours = hour > hour_now - HOURS
    if within_hours:
        heaviest = max(hour_weight(recipient, k, hour) for k in KINDS)
        events = recipient.hourly.get((kind, hour), 0)
        recipient.hourly[kind, hour] = _grown(recipient, events, weight, COUNTER_MAX)
        grown = hour_weight(recipient, kind, hour) - heaviest
        if grown > 0:
            s = local_week_hour(zone_of(work, recipient), hour)
            recipient.active[s] = min(recipient.active[s] + grown, ACTIVE_MAX)
    if day > day_of_hour(hour_now) - DAYS:
        events = recipient.daily.get((kind, day), 0)
        recipient.daily[kind, day] = _grown(recipient, events, weight, COUNTER_MAX)
        if kind == "purchase":
            amount = event.body["amount"]
            recipient.revenue[day] = _grown(recipient, recipient.revenue.get(day, 0), amount, REVENUE_MAX)
    recipient.last[kind] = max(recipient.last.get(kind, 0), event.occurred_at)
    if recipient.first == 0 or event.occurred_at < recipient.first:
        recipient.first = event.occurred_at


def _grown(recipient: Recipient, value: int, by: int, limit: int) -> int:
    if value + by > limit:
        recipient.saturated = True
        return limit
    return value + by


def evaluate(work: Work, recipient_id: str, recipient: Recipient, cause: dict[str, Any]) -> list[Transition]:
    """Evaluate all segments at `now`; note and return the changes, by segment number."""
    holds = holding(work.policy, recipient, work.cut.now)
    defined = {segment.number for segment in work.policy.segments}
    recipient.segments &= defined
    transitions = []
    for segment in sorted(work.policy.segments, key=lambda s: s.number):
        number = segment.number
        entered = number in holds
        if entered == (number in recipient.segments):
            continue
        if entered:
            recipient.segments.add(number)
        else:
            recipient.segments.remove(number)
        work.audit(
            recipient_id,
            kind="transition",
            segment=segment.name,
            entered=entered,
            cause=cause,
            definition=segment.definition,
        )
        transitions.append((segment, entered))
    return transitions


def redefine(work: Work, recipient_id: str, recipient: Recipient) -> None:
    """Section 2, step 4: segments that are defined otherwise than the row knows."""
    holds = holding(work.policy, recipient, work.cut.now)
    known = [each for each in work.cut.segments if each.version <= recipient.segments_version][-1]
    later = [each for each in work.cut.segments if each.version > recipient.segments_version]
    for number in range(MAX_SEGMENTS):
        before = now = _numbered(known, number)
        version = known.version
        for applied in later:
            latter = _numbered(applied, number)
            if (latter and latter.definition) != (now and now.definition):
                now, version = latter, applied.version
        if (now and now.definition) == (before and before.definition):
            continue
        member = before is not None and number in recipient.segments
        recipient.segments.discard(number)
        if before is not None and member and (now is None or now.name != before.name):
            _redefined(work, recipient_id, before, False, version)
            member = False
        if now is not None:
            if member != (number in holds):
                _redefined(work, recipient_id, now, not member, version)
            if number in holds:
                recipient.segments.add(number)
    recipient.segments_version = work.segments_version


def _numbered(applied: Applied, number: int) -> Segment | None:
    return next((segment for segment in applied.segments if segment.number == number), None)


def _redefined(work: Work, recipient_id: str, segment: Segment, entered: bool, version: int) -> None:
    cause = {
        "topic": "control.changes",
        "partition": 0,
        "offset": version - 1,
        "event_id": ids.event_id("control.changes", 0, version - 1),
        "due_at": None,
    }
    work.audit(
        recipient_id,
        kind="transition",
        segment=segment.name,
        entered=entered,
        cause=cause,
        definition=segment.definition,
    )


def pass_time(work: Work, recipient_id: str, recipient: Recipient, due_at: int, *, ask: bool) -> None:
    """Section 2, step 5, once an evaluation time `due_at` has passed; without `ask` no campaign is asked."""
    body: dict[str, Any] = {
        "topic": None,
        "partition": None,
        "offset": None,
        "event_id": None,
        "due_at": due_at,
    }
    transitions = evaluate(work, recipient_id, recipient, body)
    asking = [
        (campaign, Cause(ids.due_id(condition, due_at), body))
        for campaign in work.policy.campaigns
        if (condition := _named(campaign.trigger.enter, campaign.trigger.leave, transitions)) is not None
    ]
    decide(work, recipient_id, recipient, asking if ask else [])


def _named(enter: str | None, leave: str | None, transitions: list[Transition]) -> str | None:
    """The transition that a trigger names, as it stands in a due id; None if it did not happen."""
    for segment, entered in transitions:
        if entered and segment.name == enter:
            return f"enter:{segment.name}"
        if not entered and segment.name == leave:
            return f"leave:{segment.name}"
    return None
