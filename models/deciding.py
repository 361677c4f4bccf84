"""A trigger's answer: the gates, the hour, who goes first, the slot; one call for triggers of many rows."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models import contact, gates
from models.arms import Arm, arm_of
from models.gates import Gates, Seen
from models.hours import FullHours, Hours, hours_of
from models.sendtime import TIERS, Chosen, SendTimeModel
from schemas.audit import Gate
from schemas.layouts import picked
from schemas.policy import Campaign, Policy
from schemas.profile import MINUTE_MS, PURPOSES, Slot
from schemas.reasons import Reason

_UNPROFILED: Final = "unprofiled"  # the tier of an hour of the prior, where a recipient wants no profile


@dataclass(frozen=True)
class Asked:
    """n triggers: number of the row, id of its recipient, campaign, the decision's id, the audience answer.

    Those of one row are next to each other, ask at one moment and for one purpose: at most one of them goes.
    """

    row: np.ndarray
    names: Sequence[str]
    campaigns: Sequence[Campaign]
    decisions: Sequence[uuid.UUID]
    in_audience: np.ndarray


@dataclass
class _Answer:
    """What becomes of a trigger, the i-th of those asked; `reason` is None if it goes."""

    i: int
    campaign: Campaign
    decision: uuid.UUID
    arm: Arm
    gates: list[Gate]
    reason: Reason | None
    due_at: int  # or when it would have been
    worth: float | None  # None: a gate held it back
    outranked_by: str | None = None


def decide(
    rows: np.ndarray, asked: Asked, policy: Policy, model: SendTimeModel, now: int, full: FullHours
) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """Decide, and write slots and cooldowns into owned rows.

    Returns
    -------
    One partial Decision record a trigger, to which the caller adds what the trigger was (cause, segments,
    features, policy); and row and slot of every send that is due at once.
    """
    some = picked(rows, asked.row)
    arms = [arm_of(*each, policy) for each in zip(asked.names, asked.campaigns, strict=True)]
    hours = hours_of(some, asked.campaigns, asked.decisions, policy, now, full)
    profiled = contact.may_profile(some["consent"][:, PURPOSES.index("profiling")], policy.contact)
    chosen = model.choose(
        some["active"],
        ~profiled | np.array([arm is Arm.CONTROL for arm in arms]),
        hours.local,
        _at_once_first(hours.allowed, asked.campaigns),
        np.array([int.from_bytes(d.bytes[:8], "big") / 2**64 for d in asked.decisions]),
    )
    told = _Told(hours, chosen, profiled.tolist(), now)
    answers = _answers(some, asked, arms, told, policy, full)
    at_once: list[tuple[int, int]] = []
    begins = np.flatnonzero(np.append(True, asked.row[1:] != asked.row[:-1])).tolist()
    for begin, end in zip(begins, [*begins[1:], len(answers)], strict=True):
        row, rivals = int(asked.row[begin]), answers[begin:end]
        winner = _compete(rivals)
        for answer in rivals:
            if answer.reason is Reason.HOLD_OUT:
                _rest(rows, row, answer.campaign, now)  # or one held out would be asked ever again
        if winner is not None:
            slot = _occupy(rows, row, winner, now)
            _rest(rows, row, winner.campaign, now)
            if winner.due_at <= now:
                at_once.append((row, slot))
    return [told.record(answer) for answer in answers], at_once


def _answers(
    some: np.ndarray, asked: Asked, arms: Sequence[Arm], told: "_Told", policy: Policy, full: FullHours
) -> list[_Answer]:
    """What becomes of each trigger, whoever else asks."""
    slot, score = told.chosen.slot.tolist(), told.chosen.score.tolist()
    due_at = told.hours.due[np.arange(len(some)), slot].tolist()
    seen = Seen.of(some, asked.campaigns)
    asks = Gates(seen, asked.in_audience.tolist(), told.hours, slot, policy, told.now, full)
    answers = []
    for i, (campaign, decision) in enumerate(zip(asked.campaigns, asked.decisions, strict=True)):
        found = asks.of(i, campaign, arms[i])
        reason = next((reason for reason, gate in found if not gate.passed), None)
        worth = campaign.priority * (campaign.value * score[i]) if reason is None else None
        shown = [gate for _, gate in found]
        answers.append(_Answer(i, campaign, decision, arms[i], shown, reason, due_at[i], worth))
    return answers


def _compete(rivals: Sequence[_Answer]) -> _Answer | None:
    """Let the worthiest of those that could go outrank the others."""
    running = [(answer.worth, answer) for answer in rivals if answer.worth is not None]
    if not running:
        return None
    best, winner = max(running, key=lambda each: each[0])
    for worth, answer in running if len(running) > 1 else ():
        answer.gates.append(gates.competition(answer is winner, worth, best, winner.campaign.name))
        if answer is not winner:
            answer.reason, answer.outranked_by = Reason.OUTRANKED, winner.campaign.name
    return winner


def _at_once_first(allowed: np.ndarray, campaigns: Sequence[Campaign]) -> np.ndarray:
    """The allowed hours; of a campaign that sends at once only the first of them."""
    first = np.zeros_like(allowed)
    first[np.arange(len(allowed)), np.argmax(allowed, axis=1)] = True
    return np.where(
        np.array([campaign.timing == "at_once" for campaign in campaigns])[:, None], first, allowed
    )


@dataclass(frozen=True)
class _Told:
    """What Decision records are made of besides the answers."""

    hours: Hours
    chosen: Chosen
    profiled: list[bool]
    now: int

    def record(self, answer: _Answer) -> dict[str, Any]:
        """Partial Decision record."""
        campaign, goes = answer.campaign, answer.reason is None
        return {
            **(self._scheduled(answer) if goes else _NOT_SCHEDULED),
            "decision_id": str(answer.decision),
            "campaign": campaign.name,
            "campaign_version": campaign.version,
            "outcome": "scheduled" if goes else "withheld",
            "reason": (answer.reason or Reason.SCHEDULED).value,
            "purpose": campaign.purpose,
            "gates": answer.gates,
            "arm": answer.arm.value,
            "worth": answer.worth,
            "outranked_by": answer.outranked_by,
            "would_be_due_at": None if goes else answer.due_at,
        }

    def _scheduled(self, answer: _Answer) -> dict[str, Any]:
        i, chosen, due = answer.i, self.chosen, self.hours.due[answer.i]
        score, runner_up = float(chosen.score[i]), int(chosen.runner_up[i])
        best_allowed = max(score, float(chosen.runner_up_score[i])) if runner_up >= 0 else score
        plans = answer.campaign.timing == "best_hour"
        regret = float(chosen.best_score[i]) - best_allowed if plans else None
        return {
            "due_at": answer.due_at,
            "expires_at": self.now + int(answer.campaign.expiry),
            "tier": TIERS[chosen.tier[i]] if self.profiled[i] else _UNPROFILED,
            "score": score,
            "runner_up_at": int(due[runner_up]) if runner_up >= 0 else None,
            "runner_up_score": float(chosen.runner_up_score[i]) if runner_up >= 0 else None,
            "propensity": float(chosen.propensity[i]),
            "best_at": int(due[chosen.best[i]]) if regret else None,
            "regret": regret,
        }


_NOT_SCHEDULED: Final[dict[str, Any]] = dict.fromkeys(
    (
        *("due_at", "expires_at", "tier", "score", "runner_up_at", "runner_up_score", "propensity"),
        *("best_at", "regret"),
    )
)


def _occupy(rows: np.ndarray, number: int, answer: _Answer, now: int) -> int:
    """Take the first free slot; returns which."""
    slot = int(np.argmin(rows["pending"]["state"][number] != Slot.FREE))
    campaign = answer.campaign
    send = (
        Slot.PENDING,
        campaign.number,
        answer.due_at,
        now + int(campaign.expiry),
        answer.decision.bytes,
        b"",
    )
    rows["pending"][number, slot] = send
    return slot


def _rest(rows: np.ndarray, number: int, campaign: Campaign, now: int) -> None:
    """Start the cooldown."""
    rows["cooldown"][number, campaign.number] = -(-(now + int(campaign.cooldown)) // MINUTE_MS)
