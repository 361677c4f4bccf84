"""Slots of docs/decisions.md: settled (section 2), withdrawn and closed by delivery (section 3)."""

import zlib
from collections.abc import Callable

from schemas import ids
from schemas.policy import Campaign
from schemas.profile import HOUR_MS, Consent, Suppression
from schemas.reasons import Reason
from tests.reference.clock import hour_of, is_quiet
from tests.reference.cuts import Work
from tests.reference.state import Recipient, Slot

UNCONFIRMED_MS = HOUR_MS
NO_PROVIDER = "other"


def zone_of(work: Work, recipient: Recipient) -> str:
    """The row's zone; the default zone if empty."""
    return recipient.zone or work.policy.contact.default_zone


def dispatch_of(work: Work, slot: Slot) -> str:
    """Dispatch id of the slot's decision."""
    return ids.dispatch_id(slot.decision, work.campaign(slot.campaign).channel)


def lane_of(work: Work, slot: Slot) -> str:
    """The lane of a released slot: `identity/provider#part`, without the default identity and part 0."""
    names = {number: f"{name}/" for name, number in work.policy.routes.identities.items()}
    return names.get(slot.identity, "") + slot.provider + (f"#{slot.part}" if slot.part else "")


def _parts(work: Work, identity: str, provider: str) -> int:
    """How many parts the lane has: its own, else the provider's, else the default's."""
    routes = work.policy.routes
    for name in (f"{identity}/{provider}", provider):
        if name in routes.parts:
            return routes.parts[name]
    return routes.default_parts


def settle(work: Work, recipient_id: str, recipient: Recipient) -> None:
    """Section 2, step 2: the slots in order of `(due_at, slot index)`."""
    taken = [(slot.due_at, index) for index, slot in enumerate(recipient.slots) if slot is not None]
    for _, index in sorted(taken):
        slot = recipient.slots[index]
        if slot is None:
            raise AssertionError("settling one slot freed another")
        if slot.campaign not in {campaign.number for campaign in work.policy.campaigns}:
            if slot.released:
                close(work, recipient_id, recipient, index, Reason.RETIRED)
            else:
                withhold(work, recipient_id, recipient, index, Reason.RETIRED)
        elif slot.released:
            if work.cut.now >= slot.expires_at + UNCONFIRMED_MS:
                close(work, recipient_id, recipient, index, Reason.UNCONFIRMED)
        elif work.cut.now >= slot.expires_at:
            withhold(work, recipient_id, recipient, index, Reason.EXPIRED)
        elif slot.due_at <= work.cut.now and not work.cut.paused:
            come_due(work, recipient_id, recipient, index)


def come_due(work: Work, recipient_id: str, recipient: Recipient, index: int) -> None:
    """The gates of a pending slot whose time has come."""
    slot = recipient.slots[index]
    if slot is None or slot.released:
        raise AssertionError("only what waits comes due")
    campaign = work.campaign(slot.campaign)
    if is_suppressed(work, recipient, campaign):
        withhold(work, recipient_id, recipient, index, Reason.SUPPRESSED)
        return
    if not has_consent(work, recipient, campaign):
        withhold(work, recipient_id, recipient, index, Reason.NO_CONSENT)
        return
    moved = _moved(work, recipient, campaign)
    if moved is None:
        _release(work, recipient_id, recipient, index, slot)
        return
    reason, due_at = moved
    dropped = reason == Reason.FREQUENCY_CAP and campaign.when_capped == "drop"
    if dropped or due_at >= slot.expires_at:
        withhold(work, recipient_id, recipient, index, reason)
        return
    slot.due_at = due_at
    _audit_release(work, recipient_id, slot, outcome="deferred", reason=reason)


def is_suppressed(work: Work, recipient: Recipient, campaign: Campaign) -> bool:
    """Whether the recipient's suppression is one that stops the campaign's purpose."""
    if recipient.suppressed == Suppression.NONE:
        return False
    return Suppression(recipient.suppressed).name.lower() in work.policy.rule(campaign).suppressed_by


def has_consent(work: Work, recipient: Recipient, campaign: Campaign) -> bool:
    """Whether the campaign's purpose has the consent that it needs."""
    state = recipient.consent.get(campaign.purpose, Consent.UNKNOWN)
    needs = work.policy.rule(campaign).consent
    if needs == "not_needed":
        return True
    return state == Consent.GRANTED if needs == "opt_in" else state != Consent.WITHDRAWN


def may_profile(work: Work, recipient: Recipient) -> bool:
    """Whether behaviour may be kept."""
    state = recipient.consent.get("profiling", Consent.UNKNOWN)
    if work.policy.contact.profiling == "opt_in":
        return state == Consent.GRANTED
    return state != Consent.WITHDRAWN


def _moved(work: Work, recipient: Recipient, campaign: Campaign) -> tuple[Reason, int] | None:
    """Gates *caps* and *quiet hours*: the first that holds, with the new due time."""
    contact, now = work.policy.contact, work.cut.now
    free = [now]
    for cap in contact.cap:
        if campaign.purpose not in cap.purposes:
            continue
        counted = [s for s, number in recipient.sent if work.campaign(number).purpose in cap.purposes]
        if len(counted) >= cap.most:
            free.append(counted[-cap.most] * 1000 + cap.window)
    if max(free) > now:
        return Reason.FREQUENCY_CAP, max(free)
    if not work.policy.rule(campaign).quiet_hours:
        return None
    zone, hour = zone_of(work, recipient), hour_of(now)
    if not is_quiet(contact, recipient.place, zone, hour):
        return None
    while is_quiet(contact, recipient.place, zone, hour):
        hour += 1
    return Reason.QUIET_HOURS, hour * HOUR_MS


def _release(work: Work, recipient_id: str, recipient: Recipient, index: int, slot: Slot) -> None:
    if any(work.campaign(slot.campaign).purpose in cap.purposes for cap in work.policy.contact.cap):
        recipient.remember_sent(work.cut.now, slot.campaign, _goes(work, recipient, slot.campaign))
    slot.released = True
    campaign = work.campaign(slot.campaign)
    slot.provider = recipient.provider or NO_PROVIDER
    if set("/#") & set(slot.provider):
        slot.provider = NO_PROVIDER  # it is written like a lane
    slot.identity = 0 if campaign.identity == "default" else work.policy.routes.identities[campaign.identity]
    slot.part = zlib.crc32(recipient_id.encode()) % _parts(work, campaign.identity, slot.provider)
    work.result.commands.append(
        {
            "dispatch_id": dispatch_of(work, slot),
            "decision_id": str(slot.decision),
            "recipient_id": recipient_id,
            "campaign": campaign.name,
            "template": campaign.template,
            "purpose": campaign.purpose,
            "channel": campaign.channel,
            "lane": lane_of(work, slot),
            "due_at": slot.due_at,
            "released_at": work.cut.now,
            "expires_at": slot.expires_at,
            "history": work.cut.history,
            "model": work.models.names[slot.model - 1] if slot.model else None,
        }
    )
    _audit_release(work, recipient_id, slot, outcome="released", reason=Reason.RELEASED)
    if work.cut.history:
        recipient.slots[index] = None


def _goes(work: Work, recipient: Recipient, campaign: int) -> int:
    """Which of a full list of sends makes room."""
    counted = {purpose for cap in work.policy.contact.cap for purpose in cap.purposes}
    purposes = [work.campaign(number).purpose for _, number in recipient.sent]
    for index, purpose in enumerate(purposes):
        if purpose not in counted:
            return index
    purposes.append(work.campaign(campaign).purpose)
    return purposes.index(max(purposes, key=purposes.count))


def withhold(work: Work, recipient_id: str, recipient: Recipient, index: int, reason: Reason) -> None:
    """A pending slot is freed without a command."""
    slot = recipient.slots[index]
    if slot is None:
        raise AssertionError("a free slot cannot be withheld")
    _audit_release(work, recipient_id, slot, outcome="withheld", reason=reason)
    recipient.slots[index] = None


def close(work: Work, recipient_id: str, recipient: Recipient, index: int, reason: Reason) -> None:
    """A slot is freed with a closure."""
    slot = recipient.slots[index]
    if slot is None:
        raise AssertionError("a free slot cannot be closed")
    work.audit(
        recipient_id,
        kind="closure",
        decision_id=str(slot.decision),
        dispatch_id=dispatch_of(work, slot),
        campaign=work.campaign(slot.campaign).name,
        reason=str(reason),
    )
    recipient.slots[index] = None


def withdraw(
    work: Work, recipient_id: str, recipient: Recipient, concerns: Callable[[Campaign], bool]
) -> None:
    """Section 3: every slot whose campaign it concerns is freed in slot order."""
    for index, slot in enumerate(recipient.slots):
        if slot is None or not concerns(work.campaign(slot.campaign)):
            continue
        if slot.pending:
            withhold(work, recipient_id, recipient, index, Reason.WITHDRAWN)
            continue
        work.result.recalls.append(
            {
                "dispatch_id": dispatch_of(work, slot),
                "recipient_id": recipient_id,
                "lane": lane_of(work, slot),
                "reason": str(Reason.WITHDRAWN),
                "recalled_at": work.cut.now,
                "expires_at": slot.expires_at,
            }
        )
        close(work, recipient_id, recipient, index, Reason.WITHDRAWN)


def _audit_release(work: Work, recipient_id: str, slot: Slot, *, outcome: str, reason: Reason) -> None:
    work.audit(
        recipient_id,
        kind="release",
        decision_id=str(slot.decision),
        dispatch_id=dispatch_of(work, slot),
        campaign=work.campaign(slot.campaign).name,
        outcome=outcome,
        reason=str(reason),
        due_at=slot.due_at,
        lane=lane_of(work, slot) if slot.released else None,
        history=work.cut.history,
    )
