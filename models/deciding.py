"""A trigger's answer: the gates, the hour, who goes first, the slot; many triggers at once."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models import columns, contact, gates
from models.arms import Arm
from models.gates import Seen
from models.hours import CANDIDATES, GATES, FullHours, Hours, hours_of
from models.inputs import Moment, Rules
from models.sendtime.histories import Histories
from models.sendtime.model import TIERS, Chosen, Question
from models.sendtime.serving import Shadowed
from schemas.audit import Gate
from schemas.layouts import picked
from schemas.policy import Campaign
from schemas.profile import HOUR_MS, MINUTE_MS, PURPOSES, Slot
from schemas.reasons import Reason

_CAP: Final = GATES.index(Reason.FREQUENCY_CAP)
_NO_SHADOW: Final = dict.fromkeys(("shadow_model", "shadow_at", "shadow_score", "shadow_propensity"))
_BITS: Final = 1 << np.arange(CANDIDATES)
_UNPROFILED: Final = "unprofiled"  # the tier of an hour of the prior, where a recipient wants no profile


@dataclass(frozen=True)
class Asked:
    """n triggers: the row, the campaign's place in the policy, and what else is known of each.

    Those of one `group` are next to each other: they ask for one recipient at one moment and for one purpose,
    and at most one of them goes.
    """

    row: np.ndarray
    group: np.ndarray
    campaign: np.ndarray
    decisions: Sequence[uuid.UUID]
    arms: Sequence[Arm]
    in_audience: np.ndarray
    canary: np.ndarray  # whose hours the model on trial chooses

    def picked(self, which: np.ndarray) -> "Asked":
        """Some of them, by number."""
        decisions, arms = [self.decisions[i] for i in which.tolist()], [self.arms[i] for i in which.tolist()]
        row, group, campaign = self.row[which], self.group[which], self.campaign[which]
        return Asked(row, group, campaign, decisions, arms, self.in_audience[which], self.canary[which])


@dataclass(frozen=True)
class Weighed:
    """What would become of n triggers if each asked the rows as they stand; nothing is changed yet.

    `passed` is bool (n, g), by `gates.ORDER`.
    """

    asked: Asked
    some: np.ndarray  # their rows
    hours: Hours
    question: Question
    chosen: Chosen
    profiled: np.ndarray
    passed: np.ndarray
    rules: Rules
    now: int
    full: FullHours

    @property
    def changes(self) -> np.ndarray:
        """Bool (n,): which would change the row, by going, or by the rest of one that is held out."""
        return np.asarray(self.passed[:, :-1].all(1))


@dataclass
class _Answer:
    """What becomes of a trigger, the i-th of those weighed; `reason` is None if it goes."""

    i: int
    campaign: Campaign
    decision: uuid.UUID
    arm: Arm
    gates: list[Gate]
    reason: Reason | None
    due_at: int  # or when it would have been
    worth: float | None  # None: a gate held it back
    outranked_by: str | None = None


def weigh(rows: np.ndarray, histories: Histories, asked: Asked, rules: Rules, moment: Moment) -> Weighed:
    """Ask every gate and choose the hour; `histories` are the recipients' at each trigger."""
    some, which, now = picked(rows, asked.row), asked.campaign, moment.now
    campaigns, policy, number = rules.campaigns, rules.policy, np.arange(len(asked.row))
    hours = hours_of(some, campaigns, which, asked.decisions, policy, now, moment.full)
    profiled = contact.may_profile(some["consent"][:, PURPOSES.index("profiling")], policy.contact)
    question = Question(
        histories,
        profiled,
        np.array([arm is Arm.CONTROL for arm in asked.arms], np.bool_),
        np.full(len(some), now // HOUR_MS),
        hours.start,
        hours.local,
        _at_once_first(hours.allowed, campaigns.at_once[which]),
        np.array([int.from_bytes(d.bytes[:8], "big") / 2**64 for d in asked.decisions]),
    )
    chosen = rules.models.choose(question, asked.canary)
    consent = np.append(some["consent"], np.zeros((len(some), 1), np.uint8), axis=1)
    most = np.array([cap.most for cap in policy.contact.cap], np.int64)[:, None]
    capped = (hours.caps[:, number, chosen.slot] >= most).any(0)
    of_hours = ~hours.emptied
    of_hours[:, _CAP] &= ~(campaigns.drops[which] & capped)
    passed = np.column_stack(
        (
            ~campaigns.suppressed[which, some["suppressed"]],
            campaigns.consented[which, consent[number, campaigns.consent[which]]],
            asked.in_audience,
            some["cooldown"][number, campaigns.number[which]].astype(np.int64) * MINUTE_MS <= now,
            (some["pending"]["state"] == Slot.FREE).any(1),
            of_hours,
            ~np.array([arm.held_out for arm in asked.arms]),
        )
    )
    return Weighed(asked, some, hours, question, chosen, profiled, passed, rules, now, moment.full)


def settle(
    rows: np.ndarray, weighed: Weighed, which: np.ndarray
) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """Decide some of the triggers that were weighed, whole groups, of each row at most one that changes it.

    Slots and cooldowns are written into the owned rows.

    Returns
    -------
    One partial Decision record a trigger, to which the caller adds what the trigger was (cause, segments,
    features, policy); and row and slot of every send that is due at once.
    """
    answers = _answers(weighed, which)
    told = _Told(weighed, _explained(weighed, which))
    at_once: list[tuple[int, int]] = []
    group = weighed.asked.group[which]
    begins = np.flatnonzero(columns.starts(group)).tolist()
    for begin, end in zip(begins, [*begins[1:], len(answers)], strict=True):
        row, rivals = int(weighed.asked.row[which[begin]]), answers[begin:end]
        winner = _compete(rivals)
        for answer in rivals:
            if answer.reason is Reason.HOLD_OUT:
                _rest(rows, row, answer.campaign, weighed.now)  # or one held out would be asked ever again
        if winner is not None:
            slot = _occupy(rows, row, winner, weighed)
            _rest(rows, row, winner.campaign, weighed.now)
            if winner.due_at <= weighed.now:
                at_once.append((row, slot))
    return [told.record(answer) for answer in answers], at_once


def _answers(weighed: Weighed, which: np.ndarray) -> list[_Answer]:
    """What becomes of each trigger, whoever else asks."""
    asked, expected = weighed.asked, weighed.chosen.expected[which].tolist()
    seen = _seen(weighed, which)
    first = np.argmin(weighed.passed[which], axis=1).tolist()
    running = weighed.changes[which].tolist()
    answers = []
    for place, i in enumerate(which.tolist()):
        campaign, arm = weighed.rules.campaigns.definitions[asked.campaign[i]], asked.arms[i]
        reason = None if running[place] else gates.ORDER[first[place]]
        worth = campaign.priority * (campaign.value * expected[place]) if running[place] else None
        shown = seen.gates(place, campaign, arm)
        due_at = seen.due_at[place]
        answers.append(_Answer(i, campaign, asked.decisions[i], arm, shown, reason, due_at, worth))
    return answers


def _seen(weighed: Weighed, which: np.ndarray) -> Seen:
    some, hours, slot = picked(weighed.some, which), weighed.hours, weighed.chosen.slot[which]
    number = weighed.rules.campaigns.number[weighed.asked.campaign[which]]
    rests_until = some["cooldown"][np.arange(len(some)), number].astype(np.int64) * MINUTE_MS
    return Seen(
        passed=weighed.passed[which].tolist(),
        suppressed=some["suppressed"].tolist(),
        consent=some["consent"].tolist(),
        version=some["consent_version"].tolist(),
        rests_until=rests_until.tolist(),
        occupied=(some["pending"]["state"] != Slot.FREE).sum(1).tolist(),
        slots=some["pending"].shape[1],
        place=some["place"].tolist(),
        provider=some["provider"].tolist(),
        left=hours.left[which].tolist(),
        caps=hours.caps[:, which, slot].T.tolist(),
        due_at=hours.due[which, slot].tolist(),
        local=(hours.local[which, slot] % 24).tolist(),
        policy=weighed.rules.policy,
        now=weighed.now,
        full=weighed.full,
    )


def _compete(rivals: Sequence[_Answer]) -> _Answer | None:
    """Of those that pass all gates the worthiest goes; a worthier one that is held out would have gone."""
    running = sorted(
        ((answer.worth, answer) for answer in rivals if answer.worth is not None),
        key=lambda each: -each[0],  # stable: of equals the first
    )
    winner = next((answer for _, answer in running if not answer.arm.held_out), None)
    before = True
    for worth, answer in running:
        before = before and answer is not winner
        if before:
            answer.reason = Reason.HOLD_OUT
        elif answer is not winner and winner is not None:
            answer.reason, answer.outranked_by = Reason.OUTRANKED, winner.campaign.name
        if len(running) > 1:
            passed, (best, first) = answer.outranked_by is None, running[0]
            answer.gates.append(gates.competition(passed, worth, best, first.campaign.name))
    return winner


def _at_once_first(allowed: np.ndarray, at_once: np.ndarray) -> np.ndarray:
    """The allowed hours; of a campaign that sends at once only the first of them."""
    first = np.zeros_like(allowed)
    first[np.arange(len(allowed)), np.argmax(allowed, axis=1)] = True
    return np.where(at_once[:, None], first, allowed)


def _explained(weighed: Weighed, which: np.ndarray) -> dict[int, dict[str, Any]]:
    """What spoke for the hours of those that pass all gates, and what the shadow says; by number."""
    some = which[weighed.changes[which]]
    if not len(some):
        return {}
    models, question, slot = weighed.rules.models, weighed.question.picked(some), weighed.chosen.slot[some]
    terms = models.terms_of(question, weighed.asked.canary[some], weighed.chosen.tier[some], slot)
    told: dict[int, dict[str, Any]] = {
        i: {"terms": each, **_NO_SHADOW} for i, each in zip(some.tolist(), terms, strict=True)
    }
    if models.shadow is not None:
        found = Shadowed.of(models.shadow, question, slot)
        due = weighed.hours.due[some, found.slot]
        columns = (each.tolist() for each in (some, due, found.score, found.propensity))
        for i, at, score, propensity in zip(*columns, strict=True):
            told[i] |= {
                "shadow_model": models.shadow.version,
                "shadow_at": at,
                "shadow_score": score,
                "shadow_propensity": propensity,
            }
    return told


@dataclass(frozen=True)
class _Told:
    """What Decision records are made of besides the answers."""

    weighed: Weighed
    explained: Mapping[int, dict[str, Any]]

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
        i, weighed, chosen = answer.i, self.weighed, self.weighed.chosen
        due, allowed = weighed.hours.due[i], weighed.question.allowed[i]
        score, runner_up = float(chosen.score[i]), int(chosen.runner_up[i])
        best_allowed = max(score, float(chosen.runner_up_score[i])) if runner_up >= 0 else score
        plans = answer.campaign.timing == "best_hour"
        regret = float(chosen.best_score[i]) - best_allowed if plans else None
        canary = bool(weighed.asked.canary[i])
        return {
            "due_at": answer.due_at,
            "expires_at": weighed.now + int(answer.campaign.expiry),
            "tier": TIERS[chosen.tier[i]] if weighed.profiled[i] else _UNPROFILED,
            "score": score,
            "runner_up_at": int(due[runner_up]) if runner_up >= 0 else None,
            "runner_up_score": float(chosen.runner_up_score[i]) if runner_up >= 0 else None,
            "propensity": float(chosen.propensity[i]),
            "best_at": int(due[chosen.best[i]]) if regret else None,
            "regret": regret,
            "model": weighed.rules.models.of(canary).version,
            "canary": canary,
            "active_hours": float(weighed.question.histories.active_hours[i]),
            "hours_left": int(allowed.sum()),
            "hours_mask": int(allowed @ _BITS),
            "first_at": int(due[np.argmax(allowed)]),
            "likeliest_at": int(due[chosen.likeliest[i]]),
            **self.explained[i],
        }


_NOT_SCHEDULED: Final[dict[str, Any]] = {
    **dict.fromkeys(
        (
            *("due_at", "expires_at", "tier", "score", "runner_up_at", "runner_up_score", "propensity"),
            *("best_at", "regret", "model", "active_hours", "hours_left", "hours_mask", "first_at"),
            "likeliest_at",
        )
    ),
    **_NO_SHADOW,
    "canary": False,
    "terms": {},
}


_NO_LANE: Final = (b"", 0, 0)


def _occupy(rows: np.ndarray, number: int, answer: _Answer, weighed: Weighed) -> int:
    """Take the first free slot; returns which."""
    slot = int(np.argmin(rows["pending"]["state"][number] != Slot.FREE))
    campaign, canary = answer.campaign, bool(weighed.asked.canary[answer.i])
    send = (
        Slot.PENDING,
        campaign.number,
        answer.due_at,
        weighed.now + int(campaign.expiry),
        answer.decision.bytes,
        *_NO_LANE,
        weighed.rules.models.number_of(canary) if campaign.timing == "best_hour" else 0,
    )
    rows["pending"][number, slot] = send
    return slot


def _rest(rows: np.ndarray, number: int, campaign: Campaign, now: int) -> None:
    """Start the cooldown."""
    rows["cooldown"][number, campaign.number] = -(-(now + int(campaign.cooldown)) // MINUTE_MS)
