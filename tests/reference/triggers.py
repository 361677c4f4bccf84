"""Section 4 of docs/decisions.md: a trigger's gates, the hours that are left, and the choice among them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from schemas import ids
from schemas.policy import Campaign, SendTime
from schemas.profile import HOUR_MS, MINUTE_MS, WEEK_HOURS, WEIGHT_ONE, Consent
from schemas.reasons import Reason
from tests.reference.clock import hour_of, is_quiet, local_week_hour
from tests.reference.cuts import Cause, Work
from tests.reference.slots import zone_of
from tests.reference.state import Recipient, Slot

JITTER_MS = 45 * MINUTE_MS
CANDIDATES = 24


@dataclass(frozen=True)
class Candidate:
    """An hour in which the message might go."""

    hour: int
    due_at: int


@dataclass(frozen=True)
class Choice:
    """The hour that was chosen and how."""

    tier: str
    chosen: Candidate
    score: float
    runner_up: Candidate | None
    runner_up_score: float | None
    propensity: float


def decide(work: Work, recipient_id: str, recipient: Recipient, campaign: Campaign, cause: Cause) -> None:
    """A trigger gives a decision; only a scheduled one changes the row."""
    now = work.cut.now
    decision = ids.decision_id(cause.id, recipient_id, campaign.name, campaign.version)
    expires_at = now + campaign.expiry
    allowed: list[Candidate] = []
    reason = _first_gate(work, recipient, campaign)
    if reason is None:
        reason, allowed = _hours_left(work, recipient, decision, expires_at)
    choice = None
    if reason is None:
        choice = choose(work.policy.send_time, recipient, zone_of(work, recipient), decision, allowed)
        free = recipient.slots.index(None)
        recipient.slots[free] = Slot(False, campaign.number, choice.chosen.due_at, expires_at, decision)
        recipient.cooldown[campaign.number] = -(-(now + campaign.cooldown) // MINUTE_MS)
    work.audit(
        recipient_id,
        kind="decision",
        decision_id=str(decision),
        campaign=campaign.name,
        campaign_version=campaign.version,
        outcome="withheld" if choice is None else "scheduled",
        reason=str(Reason.SCHEDULED if reason is None else reason),
        cause=cause.body,
        purpose=campaign.purpose,
        due_at=choice and choice.chosen.due_at,
        expires_at=choice and expires_at,
        tier=choice and choice.tier,
        score=choice and choice.score,
        runner_up_at=choice and choice.runner_up and choice.runner_up.due_at,
        runner_up_score=choice and choice.runner_up_score,
        propensity=choice and choice.propensity,
    )


def _first_gate(work: Work, recipient: Recipient, campaign: Campaign) -> Reason | None:
    """Gates 1 to 5."""
    if recipient.suppressed:
        return Reason.SUPPRESSED
    if recipient.consent.get(campaign.purpose) != Consent.GRANTED:
        return Reason.NO_CONSENT
    if campaign.audience is not None:
        audience = work.policy.segment(campaign.audience)
        if audience.number not in recipient.segments:
            return Reason.NOT_IN_AUDIENCE
    if work.cut.now < recipient.cooldown.get(campaign.number, 0) * MINUTE_MS:
        return Reason.COOLDOWN
    if None not in recipient.slots:
        return Reason.PENDING_FULL
    return None


def _hours_left(
    work: Work, recipient: Recipient, decision: uuid.UUID, expires_at: int
) -> tuple[Reason | None, list[Candidate]]:
    """Gate 6: the candidates that are allowed, or why none is."""
    jitter = int.from_bytes(decision.bytes[8:16], "big") % JITTER_MS
    first = hour_of(work.cut.now) + 1
    candidates = [Candidate(h, h * HOUR_MS + jitter) for h in range(first, first + CANDIDATES)]
    candidates = [c for c in candidates if (c.hour + 1) * HOUR_MS <= expires_at]
    if not candidates:
        return Reason.EXPIRED, []
    zone = zone_of(work, recipient)
    candidates = [c for c in candidates if not is_quiet(work.policy.contact, zone, c.hour)]
    if not candidates:
        return Reason.QUIET_HOURS, []
    candidates = [c for c in candidates if not _cap_reached(work, recipient, c.due_at)]
    if not candidates:
        return Reason.FREQUENCY_CAP, []
    return None, candidates


def _cap_reached(work: Work, recipient: Recipient, due_at: int) -> bool:
    contact = work.policy.contact
    count = 0
    for moment, _ in recipient.sent:
        if moment > due_at - contact.cap_window:
            count += 1
    for slot in recipient.slots:
        if slot is not None and slot.pending and abs(slot.due_at - due_at) < contact.cap_window:
            count += 1
    return count >= contact.cap


def choose(
    send_time: SendTime, recipient: Recipient, zone: str, decision: uuid.UUID, allowed: list[Candidate]
) -> Choice:
    """Gate 7: the choice among the allowed, of which there is at least one."""
    n = sum(recipient.active) / WEIGHT_ONE
    if n < send_time.thin_history:
        return _by_prior(send_time, zone, decision, allowed)
    return _by_history(send_time, recipient.active, n, zone, allowed)


def _by_prior(send_time: SendTime, zone: str, decision: uuid.UUID, allowed: list[Candidate]) -> Choice:
    weights = []
    for candidate in allowed:
        s = local_week_hour(zone, candidate.hour)
        weights.append(send_time.prior_hours[s % 24] * send_time.prior_weekdays[s // 24])
    sums = []
    total = 0.0
    for weight in weights:
        total += weight
        sums.append(total)
    u = int.from_bytes(decision.bytes[0:8], "big") / 2**64
    chosen = len(allowed) - 1  # if u rounds to 1, no running sum exceeds the total
    for index, running in enumerate(sums):
        if running > u * total:
            chosen = index
            break
    return _choice("prior", allowed, weights, chosen, weights[chosen] / total)


def _by_history(send_time: SendTime, a: list[int], n: float, zone: str, allowed: list[Candidate]) -> Choice:
    b = [sum(a[day * 24 + h] for day in range(7)) for h in range(24)]
    kappa_day, kappa_week = send_time.kappa_day, send_time.kappa_week
    scores = []
    for candidate in allowed:
        s = local_week_hour(zone, candidate.hour)
        h, weekday = s % 24, s // 24
        day = b[(h - 1) % 24] + 2 * b[h] + b[(h + 1) % 24]
        week = a[(s - 1) % WEEK_HOURS] + 2 * a[s] + a[(s + 1) % WEEK_HOURS]
        day_share = (day / 1024 + kappa_day * send_time.prior_hours[h]) / (n + kappa_day)
        scores.append(
            (week / 1024 + kappa_week * (day_share * send_time.prior_weekdays[weekday])) / (n + kappa_week)
        )
    return _choice("recipient", allowed, scores, scores.index(max(scores)), 1.0)


def _choice(
    tier: str, allowed: list[Candidate], scores: list[float], chosen: int, propensity: float
) -> Choice:
    """The runner-up is the best-scored other, the earliest of equals."""
    runner_up: int | None = None
    for index, score in enumerate(scores):
        if index != chosen and (runner_up is None or score > scores[runner_up]):
            runner_up = index
    return Choice(
        tier=tier,
        chosen=allowed[chosen],
        score=scores[chosen],
        runner_up=None if runner_up is None else allowed[runner_up],
        runner_up_score=None if runner_up is None else scores[runner_up],
        propensity=propensity,
    )
