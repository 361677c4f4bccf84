"""A trigger's answer: the gates in order, the hour, the slot; one call for one trigger of each of n rows."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models import audit, contact, zones
from models.sendtime import CANDIDATES, TIERS, Chosen, SendTimeModel
from schemas.layouts import picked
from schemas.policy import Campaign, Policy
from schemas.profile import HOUR_MS, MINUTE_MS, PURPOSES, Consent, Slot, Suppression
from schemas.reasons import Reason

# A release up to 15 minutes late stays in the hour that was chosen, and so outside quiet hours.
_JITTER_MS: Final = 45 * MINUTE_MS
_PASSED: Final = ""


@dataclass(frozen=True)
class Asked:
    """n triggers of distinct rows: the row's number, its campaign, the decision's id, the audience answer."""

    row: np.ndarray
    campaigns: Sequence[Campaign]
    decisions: Sequence[uuid.UUID]
    in_audience: np.ndarray


@dataclass(frozen=True)
class Hours:
    """The candidate hours of n triggers (n, 24) and what is left of them after each gate (n, 3)."""

    due: np.ndarray
    local: np.ndarray
    allowed: np.ndarray
    left: np.ndarray


def decide(
    rows: np.ndarray, asked: Asked, policy: Policy, model: SendTimeModel, now: int
) -> list[dict[str, Any]]:
    """Decide, write slots and cooldowns into owned rows, and return one partial Decision record a trigger.

    The caller adds what the trigger was: cause, segments, features, policy.
    """
    some = picked(rows, asked.row)
    number = np.array([campaign.number for campaign in asked.campaigns])
    consent = some["consent"][
        np.arange(len(some)), [PURPOSES.index(campaign.purpose) for campaign in asked.campaigns]
    ]
    rests_until = some["cooldown"][np.arange(len(some)), number].astype(np.int64) * MINUTE_MS
    occupied = (some["pending"]["state"] != Slot.FREE).sum(1)
    expires = now + np.array([int(campaign.expiry) for campaign in asked.campaigns])
    hours = _hours(some, asked, policy, expires, now)
    gates = (
        (Reason.SUPPRESSED, some["suppressed"] == Suppression.NONE),
        (Reason.NO_CONSENT, consent == Consent.GRANTED),
        (Reason.NOT_IN_AUDIENCE, asked.in_audience),
        (Reason.COOLDOWN, rests_until <= now),
        (Reason.PENDING_FULL, occupied < some["pending"].shape[1]),
        (Reason.EXPIRED, hours.left[:, 0] > 0),
        (Reason.QUIET_HOURS, hours.left[:, 1] > 0),
        (Reason.FREQUENCY_CAP, hours.left[:, 2] > 0),
    )
    failed = np.stack([~passed for _, passed in gates], axis=1)
    held = np.asarray(failed.any(1))
    first = np.argmax(failed, axis=1)

    records: list[dict[str, Any]] = [{} for _ in range(len(some))]
    goes = np.flatnonzero(~held)
    if len(goes):
        chosen = model.choose(
            some["active"][goes],
            hours.local[goes],
            hours.allowed[goes],
            _draw([asked.decisions[i] for i in goes.tolist()]),
        )
        for place, i in enumerate(goes.tolist()):
            records[i] = _scheduled(hours, chosen, place, i, int(expires[i]))
            _occupy(rows, int(asked.row[i]), asked.campaigns[i], asked.decisions[i], records[i], now)
    for i, record in enumerate(records):
        campaign = asked.campaigns[i]
        reason = gates[first[i]][0] if held[i] else Reason.SCHEDULED
        details = _details(
            some[i], campaign, Consent(consent[i]), int(rests_until[i]), int(occupied[i]), hours, i, policy
        )
        seen = details[: int(first[i]) + 1] if held[i] else details
        records[i] = {
            **_NOT_SCHEDULED,
            **record,
            "decision_id": str(asked.decisions[i]),
            "campaign": campaign.name,
            "campaign_version": campaign.version,
            "outcome": "withheld" if held[i] else "scheduled",
            "reason": reason.value,
            "purpose": campaign.purpose,
            "gates": [
                audit.gate(name, not (held[i] and place == first[i]), detail)
                for place, (name, detail) in enumerate(seen)
            ],
        }
    return records


_NOT_SCHEDULED: Final[dict[str, Any]] = dict.fromkeys(
    ("due_at", "expires_at", "tier", "score", "runner_up_at", "runner_up_score", "propensity")
)


def _hours(some: np.ndarray, asked: Asked, policy: Policy, expires: np.ndarray, now: int) -> Hours:
    jitter = np.array([int.from_bytes(d.bytes[8:], "big") % _JITTER_MS for d in asked.decisions], np.int64)
    start = now // HOUR_MS + 1 + np.arange(CANDIDATES)
    due = start * HOUR_MS + jitter[:, None]
    zone = contact.zone_of(some, policy.contact)
    local = zones.local_hours(zone, np.broadcast_to(start, (len(some), CANDIDATES)).copy())
    in_time = (start + 1) * HOUR_MS <= expires[:, None]
    awake = in_time & ~contact.is_quiet(local, policy.contact)
    allowed = awake & (contact.cap_count(some, due, policy.contact) < policy.contact.cap)
    return Hours(due, local, allowed, np.stack([in_time.sum(1), awake.sum(1), allowed.sum(1)], axis=1))


def _draw(decisions: Sequence[uuid.UUID]) -> np.ndarray:
    """Uniform numbers in [0, 1) that follow from the decisions, float64 (n,)."""
    return np.array([int.from_bytes(d.bytes[:8], "big") / 2**64 for d in decisions])


def _scheduled(hours: Hours, chosen: Chosen, place: int, i: int, expires: int) -> dict[str, Any]:
    runner_up = int(chosen.runner_up[place])
    return {
        "due_at": int(hours.due[i, chosen.slot[place]]),
        "expires_at": expires,
        "tier": TIERS[chosen.tier[place]],
        "score": float(chosen.score[place]),
        "runner_up_at": int(hours.due[i, runner_up]) if runner_up >= 0 else None,
        "runner_up_score": float(chosen.runner_up_score[place]) if runner_up >= 0 else None,
        "propensity": float(chosen.propensity[place]),
    }


def _occupy(
    rows: np.ndarray, number: int, campaign: Campaign, decision: uuid.UUID, record: dict[str, Any], now: int
) -> None:
    """Take the first free slot and start the cooldown."""
    slot = int(np.argmin(rows["pending"]["state"][number] != Slot.FREE))
    rows["pending"][number, slot] = (
        Slot.PENDING,
        campaign.number,
        record["due_at"],
        record["expires_at"],
        decision.bytes,
        b"",
    )
    rows["cooldown"][number, campaign.number] = -(-(now + int(campaign.cooldown)) // MINUTE_MS)


def _details(
    row: np.void,
    campaign: Campaign,
    consent: Consent,
    rests_until: int,
    occupied: int,
    hours: Hours,
    i: int,
    policy: Policy,
) -> list[tuple[str, str]]:
    """Name and figures of every gate, in order."""
    in_time, awake, allowed = hours.left[i].tolist()
    version = row["consent_version"][PURPOSES.index(campaign.purpose)]
    return [
        ("suppression", Suppression(row["suppressed"]).name.lower()),
        (
            "consent",
            f"{campaign.purpose} {consent.name.lower()}, version {version}",
        ),
        ("audience", campaign.audience or "everyone"),
        ("cooldown", f"rests until {rests_until}" if rests_until else "never decided before"),
        ("pending", f"{occupied} of {len(row['pending'])} slots taken"),
        ("expiry", f"{in_time} of {CANDIDATES} hours before expiry in {campaign.expiry}"),
        (
            "quiet_hours",
            f"{awake} of those outside {policy.contact.quiet_from}:00 to {policy.contact.quiet_to}:00",
        ),
        (
            "frequency_cap",
            f"{allowed} of those with fewer than {policy.contact.cap} in {policy.contact.cap_window}",
        ),
    ]
