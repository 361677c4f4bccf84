"""A trigger's answer: the gates, the hour, who goes first, the slot; one call for triggers of many rows."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from models import audit, contact, zones
from models.arms import Arm, arm_of
from models.sendtime import CANDIDATES, TIERS, Chosen, SendTimeModel
from schemas.layouts import picked
from schemas.policy import OTHER_PROVIDER, Campaign, Policy, PurposeRule
from schemas.profile import HOUR_MS, MINUTE_MS, PURPOSES, Slot, Suppression
from schemas.reasons import Reason
from schemas.units import Milliseconds

# A release up to 15 minutes late stays in the hour that was chosen, and so outside quiet hours.
_JITTER_MS: Final = 45 * MINUTE_MS
_UNPROFILED: Final = "unprofiled"  # the tier of an hour of the prior, where a recipient wants no profile

# UTC hours since 1970 in which nothing more fits through a lane, by lane.
FullHours = Mapping[str, frozenset[int]]


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


@dataclass(frozen=True)
class Hours:
    """The candidate hours of n triggers: when each is due, UTC ms, and its local hour since 1970, (n, 24).

    Of every hour gate `left` says how many hours it left, and `emptied` whether it left none, (n, g): then it
    is set aside for the gates after it. `allowed` are the hours that the gates leave that were not set aside,
    always some: those that can be chosen, or could have been.
    """

    due: np.ndarray
    local: np.ndarray
    allowed: np.ndarray
    left: np.ndarray
    emptied: np.ndarray
    caps: np.ndarray  # as `contact.cap_counts`


_HOUR_GATES: Final = (Reason.EXPIRED, Reason.QUIET_HOURS, Reason.FREQUENCY_CAP, Reason.LANE_FULL)
_CAP_GATE: Final = _HOUR_GATES.index(Reason.FREQUENCY_CAP)


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
    triggers = [
        _Trigger(some[i], *each, policy)
        for i, each in enumerate(zip(asked.names, asked.campaigns, asked.decisions, strict=True))
    ]
    hours = _hours(some, asked.campaigns, asked.decisions, policy, now, full)
    profiled = contact.may_profile(some["consent"][:, PURPOSES.index("profiling")], policy.contact)
    chosen = model.choose(
        some["active"],
        ~profiled | np.array([trigger.arm is Arm.CONTROL for trigger in triggers]),
        hours.local,
        _at_once_first(hours.allowed, asked.campaigns),
        np.array([int.from_bytes(d.bytes[:8], "big") / 2**64 for d in asked.decisions]),
    )
    answers = [
        _Answer(trigger, bool(asked.in_audience[i]), bool(profiled[i]), hours, chosen, i, now, full)
        for i, trigger in enumerate(triggers)
    ]
    records: list[dict[str, Any]] = []
    at_once: list[tuple[int, int]] = []
    for row, rivals in _of_rows(asked.row, answers):
        running = [answer for answer in rivals if answer.reason is None]
        winner = max(running, key=lambda answer: answer.worth) if running else None
        for answer in rivals:
            answer.winner = winner if len(running) > 1 else None
            records.append(answer.record())
            if answer.trigger.arm.held_out and answer.reason is Reason.HOLD_OUT:
                _rest(rows, row, answer.trigger.campaign, now)  # or one held out would be asked ever again
        if winner is not None:
            slot = _occupy(rows, row, winner)
            _rest(rows, row, winner.trigger.campaign, now)
            if winner.due_at <= now:
                at_once.append((row, slot))
    return records, at_once


def _of_rows(row: np.ndarray, answers: Sequence["_Answer"]) -> Iterator[tuple[int, Sequence["_Answer"]]]:
    begins = np.flatnonzero(np.append(True, row[1:] != row[:-1])) if len(row) else row
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(row)], strict=True):
        yield int(row[begin]), answers[begin:end]


def _hours(
    some: np.ndarray,
    campaigns: Sequence[Campaign],
    decisions: Sequence[uuid.UUID],
    policy: Policy,
    now: int,
    full: FullHours,
) -> Hours:
    jitter = np.array([int.from_bytes(d.bytes[8:], "big") % _JITTER_MS for d in decisions], np.int64)
    expires = now + np.array([int(campaign.expiry) for campaign in campaigns], np.int64)
    now_first = np.array([campaign.timing == "at_once" for campaign in campaigns])[:, None]
    start = now // HOUR_MS + np.arange(CANDIDATES) + np.where(now_first, 0, 1)
    first_is_now = now_first & (np.arange(CANDIDATES) == 0)
    due = np.where(first_is_now, now, start * HOUR_MS + jitter[:, None])
    local = zones.local_hours(contact.zone_of(some, policy.contact), start)

    number = np.array([campaign.number for campaign in campaigns])
    most = np.array([cap.most for cap in policy.contact.cap], np.int64)[:, None, None]
    caps = contact.cap_counts(some, number, due, policy)
    heeds_quiet = np.array([policy.rule(campaign).quiet_hours for campaign in campaigns])[:, None]
    drops = np.array([campaign.when_capped == "drop" for campaign in campaigns])[:, None]
    gates = (
        first_is_now | ((start + 1) * HOUR_MS <= expires[:, None]),
        ~(heeds_quiet & contact.is_quiet(some, local, policy.contact)),
        drops | ~(caps >= most).any(0),
        ~_is_full(some, start, full),
    )
    allowed = np.ones(due.shape, np.bool_)
    left, emptied = [], []
    for gate in gates:
        narrowed = allowed & gate
        left.append(narrowed.sum(1))
        emptied.append(left[-1] == 0)
        allowed = np.where(emptied[-1][:, None], allowed, narrowed)
    return Hours(due, local, allowed, np.stack(left, axis=1), np.stack(emptied, axis=1), caps)


def _is_full(some: np.ndarray, start: np.ndarray, full: FullHours) -> np.ndarray:
    """Whether nothing more fits through each row's lane in each hour, bool (n, 24)."""
    found = np.zeros(start.shape, np.bool_)
    for lane, hours in full.items():
        mine = _lanes(some) == lane.encode()
        found[mine] = np.isin(start[mine], [*hours])
    return found


def _lanes(some: np.ndarray) -> np.ndarray:
    return np.where(some["provider"] == b"", np.bytes_(OTHER_PROVIDER), some["provider"])


def _at_once_first(allowed: np.ndarray, campaigns: Sequence[Campaign]) -> np.ndarray:
    """The allowed hours; of a campaign that sends at once only the first of them."""
    first = np.zeros_like(allowed)
    first[np.arange(len(allowed)), np.argmax(allowed, axis=1)] = True
    return np.where(
        np.array([campaign.timing == "at_once" for campaign in campaigns])[:, None], first, allowed
    )


@dataclass(frozen=True)
class _Trigger:
    """A campaign that wants a recipient."""

    row: np.void
    name: str
    campaign: Campaign
    decision: uuid.UUID
    policy: Policy

    @cached_property
    def rule(self) -> PurposeRule:
        return self.policy.rule(self.campaign)

    @cached_property
    def arm(self) -> Arm:
        return arm_of(self.name, self.campaign, self.policy)


@dataclass
class _Answer:
    """What becomes of a trigger; the i-th of those asked."""

    trigger: _Trigger
    in_audience: bool
    profiled: bool
    hours: Hours
    chosen: Chosen
    i: int
    now: int
    full: FullHours
    winner: "_Answer | None" = None  # of several that could go

    @cached_property
    def slot(self) -> int:
        """The candidate that was chosen, or would have been."""
        return int(self.chosen.slot[self.i])

    @cached_property
    def due_at(self) -> int:
        return int(self.hours.due[self.i, self.slot])

    @cached_property
    def worth(self) -> float:
        """Priority times expected value."""
        campaign = self.trigger.campaign
        return campaign.priority * (campaign.value * float(self.chosen.score[self.i]))

    @cached_property
    def reason(self) -> Reason | None:
        """Of the first gate that fails, whoever else asks; None if all pass."""
        return next((reason for reason, passed, *_ in self.gates if not passed), None)

    @cached_property
    def gates(self) -> list[tuple[Reason, bool, str, str, str]]:
        """Every gate: its reason if it fails, whether it passed, its name, its figures, and what it needs."""
        row, campaign, rule = self.trigger.row, self.trigger.campaign, self.trigger.rule
        consent = contact.consent_of(row, campaign.purpose)
        rests_until = int(row["cooldown"][campaign.number]) * MINUTE_MS
        occupied, slots = int((row["pending"]["state"] != Slot.FREE).sum()), len(row["pending"])
        audience = campaign.audience or "everyone"
        gates = [
            (
                Reason.SUPPRESSED,
                not contact.suppresses(rule, row["suppressed"]),
                "suppression",
                Suppression(row["suppressed"]).name.lower(),
                "a recipient who is not suppressed",
            ),
            (
                Reason.NO_CONSENT,
                contact.consented(rule, consent),
                "consent",
                _consent_detail(row, campaign.purpose, rule),
                f"consent to {campaign.purpose}",
            ),
            (Reason.NOT_IN_AUDIENCE, self.in_audience, "audience", audience, f"a recipient in {audience}"),
            (
                Reason.COOLDOWN,
                rests_until <= self.now,
                "cooldown",
                f"rests until {rests_until}" if rests_until else "never decided before",
                f"a trigger from {rests_until} on",
            ),
            (
                Reason.PENDING_FULL,
                occupied < slots,
                "pending",
                f"{occupied} of {slots} slots taken",
                "a free slot",
            ),
            *self._hour_gates(),
        ]
        if self.trigger.arm is not Arm.MODEL:
            out = self.trigger.arm.held_out
            gates.append((Reason.HOLD_OUT, not out, "hold_out", self.trigger.arm.value, "another arm"))
        return gates

    def _hour_gates(self) -> Iterator[tuple[Reason, bool, str, str, str]]:
        row, campaign, policy = self.trigger.row, self.trigger.campaign, self.trigger.policy
        in_time, awake, uncapped, open_hours = self.hours.left[self.i].tolist()
        passed = (~self.hours.emptied[self.i]).tolist()
        ends = (self.due_at // HOUR_MS + 1) * HOUR_MS
        yield (
            Reason.EXPIRED,
            passed[0],
            "expiry",
            f"{in_time} of {CANDIDATES} hours before expiry in {campaign.expiry}",
            f"an expiry of {Milliseconds(ends - self.now)}",
        )
        if self.trigger.rule.quiet_hours:
            start, end = contact.quiet_at(row["place"].decode(errors="replace"), policy.contact)
            local = int(self.hours.local[self.i, self.slot]) % 24
            yield (
                Reason.QUIET_HOURS,
                passed[1],
                "quiet_hours",
                f"{awake} of those outside {start:02}:00 to {end:02}:00",
                f"quiet hours without {local:02}:00",
            )
        caps = [
            (cap, count)
            for cap, count in zip(
                policy.contact.cap, self.hours.caps[:, self.i, self.slot].tolist(), strict=True
            )
            if count >= 0
        ]
        if caps:
            over = [(cap, count) for cap, count in caps if count >= cap.most]
            drops = campaign.when_capped == "drop"
            under = " and ".join(str(cap) for cap, _ in caps)
            yield (
                Reason.FREQUENCY_CAP,
                passed[_CAP_GATE] and not (drops and over),
                "frequency_cap",
                f"its hour, or it is dropped, within {under}"
                if drops
                else f"{uncapped} of those within {under}",
                " and ".join(f"a cap of {count + 1} in {cap.window}" for cap, count in over),
            )
        lane = row["provider"].decode(errors="replace") or OTHER_PROVIDER
        if lane in self.full:
            yield (
                Reason.LANE_FULL,
                passed[3],
                "lane_capacity",
                f"{open_hours} of those with room on {lane}",
                f"room on {lane}",
            )

    def record(self) -> dict[str, Any]:
        """Partial Decision record."""
        gates = [
            audit.gate(name, passed, detail, "" if passed else needed)
            for _, passed, name, detail, needed in self.gates
        ]
        reason, outranked_by = self.reason, None
        if reason is None and self.winner is not self and self.winner is not None:
            reason, outranked_by = Reason.OUTRANKED, self.winner.trigger.campaign.name
        if self.winner is not None and self.reason is None:
            theirs = f"{self.winner.worth:g} of {self.winner.trigger.campaign.name}"
            detail = f"worth {self.worth:g}, the highest {theirs}"
            passed = reason is None
            gates.append(
                audit.gate("competition", passed, detail, "" if passed else f"a worth above {theirs}")
            )
        campaign, goes = self.trigger.campaign, reason is None
        return {
            **(self._scheduled() if goes else _NOT_SCHEDULED),
            "decision_id": str(self.trigger.decision),
            "campaign": campaign.name,
            "campaign_version": campaign.version,
            "outcome": "scheduled" if goes else "withheld",
            "reason": (reason or Reason.SCHEDULED).value,
            "purpose": campaign.purpose,
            "gates": gates,
            "arm": self.trigger.arm.value,
            "worth": self.worth if self.reason is None else None,
            "outranked_by": outranked_by,
            "would_be_due_at": None if goes else self.due_at,
        }

    def _scheduled(self) -> dict[str, Any]:
        i, chosen, due = self.i, self.chosen, self.hours.due[self.i]
        score, runner_up = float(chosen.score[i]), int(chosen.runner_up[i])
        best_allowed = max(score, float(chosen.runner_up_score[i])) if runner_up >= 0 else score
        plans = self.trigger.campaign.timing == "best_hour"
        regret = float(chosen.best_score[i]) - best_allowed if plans else None
        return {
            "due_at": self.due_at,
            "expires_at": self.now + int(self.trigger.campaign.expiry),
            "tier": TIERS[chosen.tier[i]] if self.profiled else _UNPROFILED,
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


def _consent_detail(row: np.void, purpose: str, rule: PurposeRule) -> str:
    if purpose not in PURPOSES:
        return f"{purpose} {rule.consent}"
    number = PURPOSES.index(purpose)
    state = contact.consent_of(row, purpose).name.lower()
    return f"{purpose} {state}, version {row['consent_version'][number]}"


def _occupy(rows: np.ndarray, number: int, answer: _Answer) -> int:
    """Take the first free slot; returns which."""
    trigger = answer.trigger
    slot = int(np.argmin(rows["pending"]["state"][number] != Slot.FREE))
    expires_at = answer.now + int(trigger.campaign.expiry)
    sends = (Slot.PENDING, trigger.campaign.number, answer.due_at, expires_at, trigger.decision.bytes, b"")
    rows["pending"][number, slot] = sends
    return slot


def _rest(rows: np.ndarray, number: int, campaign: Campaign, now: int) -> None:
    """Start the cooldown."""
    rows["cooldown"][number, campaign.number] = -(-(now + int(campaign.cooldown)) // MINUTE_MS)
