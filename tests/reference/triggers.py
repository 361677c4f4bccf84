"""Section 4 of docs/decisions.md: who asks, the gates, the hours that are left, the choice, and who goes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from schemas import ids
from schemas.policy import Campaign, Policy
from schemas.profile import HOUR_MS, MINUTE_MS, WEIGHT_ONE
from schemas.reasons import Reason
from tests.reference import sendtime
from tests.reference.clock import hour_of, is_quiet
from tests.reference.cuts import Cause, Work
from tests.reference.sendtime import Candidate, Choice
from tests.reference.slots import NO_PROVIDER, come_due, has_consent, is_suppressed, may_profile, zone_of
from tests.reference.state import Recipient, Slot

JITTER_MS = 45 * MINUTE_MS
CANDIDATES = 24


@dataclass
class Answer:
    """What becomes of a campaign that asks."""

    campaign: Campaign
    cause: Cause
    decision: uuid.UUID
    arm: str
    reason: Reason | None
    choice: Choice  # or what it would have been
    worth: float
    best: Candidate
    regret: float
    told: dict[str, Any]  # of the model that chose
    outranked_by: str | None = None


def decide(work: Work, recipient_id: str, recipient: Recipient, asking: list[tuple[Campaign, Cause]]) -> None:
    """Campaigns that ask at one moment: what is owed first; of each purpose at most one goes."""
    for purpose in ("transactional", "mail"):
        rivals = sorted((c for c in asking if c[0].purpose == purpose), key=lambda c: c[0].number)
        answers = [_answer(work, recipient_id, recipient, *each) for each in rivals]
        running = [answer for answer in answers if answer.reason is None]
        winner = None
        for answer in sorted(running, key=lambda answer: -answer.worth):
            if winner is not None:
                answer.reason, answer.outranked_by = Reason.OUTRANKED, winner.campaign.name
            elif answer.arm in ("hold_out", "global_hold_out"):
                answer.reason = Reason.HOLD_OUT
            else:
                winner = answer
        for answer in answers:
            _settled(work, recipient_id, recipient, answer)
        if winner is not None:
            _schedule(work, recipient_id, recipient, winner)


def _settled(work: Work, recipient_id: str, recipient: Recipient, answer: Answer) -> None:
    campaign, choice = answer.campaign, answer.choice
    goes = answer.reason is None
    plans = goes and campaign.timing == "best_hour"
    ran = answer.reason in (None, Reason.OUTRANKED, Reason.HOLD_OUT)
    if answer.reason == Reason.HOLD_OUT:
        _rest(work, recipient, campaign)
    work.audit(
        recipient_id,
        kind="decision",
        decision_id=str(answer.decision),
        campaign=campaign.name,
        campaign_version=campaign.version,
        outcome="scheduled" if goes else "withheld",
        reason=str(Reason.SCHEDULED if goes else answer.reason),
        cause=answer.cause.body,
        purpose=campaign.purpose,
        due_at=choice.chosen.due_at if goes else None,
        expires_at=work.cut.now + campaign.expiry if goes else None,
        tier=choice.tier if goes else None,
        score=choice.score if goes else None,
        runner_up_at=choice.runner_up.due_at if goes and choice.runner_up else None,
        runner_up_score=choice.runner_up_score if goes else None,
        propensity=choice.propensity if goes else None,
        arm=answer.arm,
        worth=answer.worth if ran else None,
        outranked_by=answer.outranked_by,
        best_at=answer.best.due_at if plans and answer.regret else None,
        regret=answer.regret if plans else None,
        would_be_due_at=None if goes else choice.chosen.due_at,
        **(answer.told if goes else {**dict.fromkeys(answer.told), "canary": False, "terms": {}}),
    )


def _schedule(work: Work, recipient_id: str, recipient: Recipient, answer: Answer) -> None:
    due_at, now = answer.choice.chosen.due_at, work.cut.now
    free = recipient.slots.index(None)
    expires_at = now + answer.campaign.expiry
    chosen = answer.campaign.timing == "best_hour"
    model = work.models.names.index(answer.told["model"]) + 1 if chosen else 0
    recipient.slots[free] = Slot(
        False, answer.campaign.number, due_at, expires_at, answer.decision, model=model
    )
    _rest(work, recipient, answer.campaign)
    if due_at <= now and not work.cut.paused:
        come_due(work, recipient_id, recipient, free)


def _rest(work: Work, recipient: Recipient, campaign: Campaign) -> None:
    recipient.cooldown[campaign.number] = -(-(work.cut.now + campaign.cooldown) // MINUTE_MS)


def _answer(work: Work, recipient_id: str, recipient: Recipient, campaign: Campaign, cause: Cause) -> Answer:
    decision = ids.decision_id(cause.id, recipient_id, campaign.name, campaign.version)
    arm = arm_of(work.policy, recipient_id, campaign)
    candidates = _candidates(work, decision, campaign)
    empty, allowed = _hours_left(work, recipient, campaign, candidates)
    zone = zone_of(work, recipient)
    if campaign.timing == "at_once":
        allowed = allowed[:1]
    models, now = work.models, work.cut.now
    canary = (
        models.canary is not None and _share(f"canary/{models.canary.version}", recipient_id) < models.share
    )
    model = models.canary if canary and models.canary is not None else models.champion
    own = sendtime.tier_of(model, recipient, may_profile(work, recipient))
    tier = sendtime.PRIOR if arm == "control" else own
    choice = sendtime.choose(model, recipient, zone, decision, allowed, tier, now)
    of_all = sendtime.judge(model, recipient, zone, candidates, tier)
    best = sendtime.probability(model, recipient, now, tier, max(of_all.scores))
    of_own = sendtime.judge(model, recipient, zone, allowed, own)
    expected = sendtime.probability(model, recipient, now, own, max(of_own.scores))
    terms = sendtime.terms(model, recipient, zone, allowed, tier, allowed.index(choice.chosen))
    shadow: dict[str, Any] = dict.fromkeys(("shadow_model", "shadow_at", "shadow_score", "shadow_propensity"))
    if models.shadow is not None:
        there = sendtime.tier_of(models.shadow, recipient, may_profile(work, recipient))
        there = sendtime.PRIOR if arm == "control" else there
        would = sendtime.choose(models.shadow, recipient, zone, decision, allowed, there, now)
        shadow = {
            "shadow_model": models.shadow.version,
            "shadow_at": would.chosen.due_at,
            "shadow_score": would.score,
            "shadow_propensity": sendtime.chance(
                models.shadow, recipient, zone, allowed, there, choice.chosen
            ),
        }
    if not may_profile(work, recipient):
        choice = replace(choice, tier="unprofiled")
    drops = campaign.when_capped == "drop" and _capped(work, recipient, campaign, choice.chosen.due_at)
    if drops and empty in (None, Reason.LANE_FULL):  # the cap is asked before the room
        empty = Reason.FREQUENCY_CAP
    return Answer(
        campaign=campaign,
        cause=cause,
        decision=decision,
        arm=arm,
        reason=_first_gate(work, recipient, campaign) or empty,
        choice=choice,
        worth=campaign.priority * (campaign.value * expected),
        best=candidates[of_all.best],
        regret=best - max(choice.score, choice.runner_up_score or 0.0),
        told={
            "model": model.version,
            "canary": canary,
            "active_hours": sum(recipient.active) / WEIGHT_ONE,
            "hours_left": len(allowed),
            "hours_mask": sum(1 << place for place, each in enumerate(candidates) if each in allowed),
            "first_at": allowed[0].due_at,
            "likeliest_at": allowed[of_own.best].due_at,
            "terms": terms,
            **shadow,
        },
    )


def arm_of(policy: Policy, recipient_id: str, campaign: Campaign) -> str:
    """Who is in which arm."""
    if policy.rule(campaign).hold_out and _share("hold_out", recipient_id) < policy.contact.hold_out:
        return "global_hold_out"
    share = _share(f"campaign/{campaign.name}", recipient_id)
    if share < campaign.arms.hold_out:
        return "hold_out"
    return "control" if share >= 1 - campaign.arms.control else "model"


def _share(experiment: str, recipient_id: str) -> float:
    return xxhash.xxh3_64(f"{experiment}/{recipient_id}".encode()).intdigest() / 2**64


def _first_gate(work: Work, recipient: Recipient, campaign: Campaign) -> Reason | None:
    """Gates 1 to 5."""
    if is_suppressed(work, recipient, campaign):
        return Reason.SUPPRESSED
    if not has_consent(work, recipient, campaign):
        return Reason.NO_CONSENT
    if campaign.audience is not None:
        [audience] = (each for each in work.policy.segments if each.name == campaign.audience)
        if audience.number not in recipient.segments:
            return Reason.NOT_IN_AUDIENCE
    if work.cut.now < recipient.cooldown.get(campaign.number, 0) * MINUTE_MS:
        return Reason.COOLDOWN
    if None not in recipient.slots:
        return Reason.PENDING_FULL
    return None


def _candidates(work: Work, decision: uuid.UUID, campaign: Campaign) -> list[Candidate]:
    jitter = int.from_bytes(decision.bytes[8:16], "big") % JITTER_MS
    now = work.cut.now
    first = hour_of(now) + 1
    found = [Candidate(h, h * HOUR_MS + jitter) for h in range(first, first + CANDIDATES)]
    return [Candidate(hour_of(now), now), *found[:-1]] if campaign.timing == "at_once" else found


def _hours_left(
    work: Work, recipient: Recipient, campaign: Campaign, candidates: list[Candidate]
) -> tuple[Reason | None, list[Candidate]]:
    """Gate 6: the first gate that leaves no candidate, and what is left by those that leave some."""
    now, zone, contact = work.cut.now, zone_of(work, recipient), work.policy.contact

    def in_time(c: Candidate) -> bool:
        return c.due_at == now or (c.hour + 1) * HOUR_MS <= now + campaign.expiry

    def awake(c: Candidate) -> bool:
        return not work.policy.rule(campaign).quiet_hours or not is_quiet(
            contact, recipient.place, zone, c.hour
        )

    def uncapped(c: Candidate) -> bool:
        return campaign.when_capped == "drop" or not _capped(work, recipient, campaign, c.due_at)

    def has_room(c: Candidate) -> bool:
        full = work.cut.full.get(recipient.provider or NO_PROVIDER, frozenset())
        return campaign.purpose == "transactional" or c.hour not in full

    first = None
    gates: list[tuple[Reason, Callable[[Candidate], bool]]] = [
        (Reason.EXPIRED, in_time),
        (Reason.QUIET_HOURS, awake),
        (Reason.FREQUENCY_CAP, uncapped),
        (Reason.LANE_FULL, has_room),
    ]
    for reason, gate in gates:
        left = [candidate for candidate in candidates if gate(candidate)]
        if left:
            candidates = left
        else:
            first = first or reason
    return first, candidates


def _capped(work: Work, recipient: Recipient, campaign: Campaign, due_at: int) -> bool:
    """Whether any cap that holds the campaign is reached at that time."""
    for cap in work.policy.contact.cap:
        if campaign.purpose not in cap.purposes:
            continue
        count = 0
        for second, number in recipient.sent:
            if work.campaign(number).purpose in cap.purposes and second * 1000 > due_at - cap.window:
                count += 1
        for slot in recipient.slots:
            if slot is None or slot.released or work.campaign(slot.campaign).purpose not in cap.purposes:
                continue
            if abs(slot.due_at - due_at) < cap.window:
                count += 1
        if count >= cap.most:
            return True
    return False
