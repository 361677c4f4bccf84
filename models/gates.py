"""The gates of a decision, told: whether each lets a message pass, its figures, what it would have needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from models import contact
from models.arms import Arm
from models.hours import GATES, FullHours, Hours
from models.sendtime import CANDIDATES
from schemas.audit import Gate
from schemas.policy import OTHER_PROVIDER, Campaign, Policy, PurposeRule
from schemas.profile import HOUR_MS, MINUTE_MS, PURPOSES, Consent, Slot, Suppression
from schemas.reasons import Reason
from schemas.units import Milliseconds

_SUPPRESSIONS: Final = [each.name.lower() for each in Suppression]
_CONSENTS: Final = [each.name.lower() for each in Consent]

_CAP: Final = GATES.index(Reason.FREQUENCY_CAP)

Asked = tuple[Reason, Gate]  # the reason that a gate gives if it fails


@dataclass(frozen=True)
class Seen:
    """What the gates look at of the rows of n triggers, as plain numbers, of which they make words."""

    suppressed: list[int]
    consent: list[list[int]]
    version: list[list[int]]
    rests_until: list[int]  # UTC ms
    occupied: list[int]
    slots: int
    place: list[bytes]
    provider: list[bytes]

    @classmethod
    def of(cls, rows: np.ndarray, campaigns: Sequence[Campaign]) -> "Seen":
        """Look at the row of each trigger."""
        number = [campaign.number for campaign in campaigns]
        rests_until = rows["cooldown"][np.arange(len(rows)), number].astype(np.int64) * MINUTE_MS
        return cls(
            rows["suppressed"].tolist(),
            rows["consent"].tolist(),
            rows["consent_version"].tolist(),
            rests_until.tolist(),
            (rows["pending"]["state"] != Slot.FREE).sum(1).tolist(),
            rows["pending"].shape[1],
            rows["place"].tolist(),
            rows["provider"].tolist(),
        )


@dataclass(frozen=True)
class Gates:
    """Asks the gates of n triggers; see docs/decisions.md, section 4."""

    seen: Seen
    in_audience: list[bool]
    hours: Hours
    slot: list[int]  # the candidate that each was given, or would have been
    policy: Policy
    now: int
    full: FullHours

    def of(self, i: int, campaign: Campaign, arm: Arm) -> list[Asked]:
        """Every gate of the i-th trigger, but for the competition."""
        gates = [*self._of_row(i, campaign), *self._of_hours(i, campaign)]
        if arm is not Arm.MODEL:
            gates.append((Reason.HOLD_OUT, _gate("hold_out", not arm.held_out, arm.value, "another arm")))
        return gates

    def _of_row(self, i: int, campaign: Campaign) -> Iterator[Asked]:
        seen, rule, purpose = self.seen, self.policy.rule(campaign), campaign.purpose
        suppressed, rests_until, occupied = seen.suppressed[i], seen.rests_until[i], seen.occupied[i]
        passes = not contact.suppresses(rule, suppressed)
        told = _SUPPRESSIONS[suppressed]
        yield Reason.SUPPRESSED, _gate("suppression", passes, told, "a recipient who is not suppressed")
        passes, told = self._consent(i, purpose, rule)
        yield Reason.NO_CONSENT, _gate("consent", passes, told, f"consent to {purpose}")
        audience = campaign.audience or "everyone"
        gate = _gate("audience", self.in_audience[i], audience, f"a recipient in {audience}")
        yield Reason.NOT_IN_AUDIENCE, gate
        told = f"rests until {rests_until}" if rests_until else "never decided before"
        gate = _gate("cooldown", rests_until <= self.now, told, f"a trigger from {rests_until} on")
        yield Reason.COOLDOWN, gate
        told = f"{occupied} of {seen.slots} slots taken"
        yield Reason.PENDING_FULL, _gate("pending", occupied < seen.slots, told, "a free slot")

    def _consent(self, i: int, purpose: str, rule: PurposeRule) -> tuple[bool, str]:
        if purpose not in PURPOSES:
            return contact.consented(rule, Consent.UNKNOWN), f"{purpose} {rule.consent}"
        column = PURPOSES.index(purpose)
        state, version = self.seen.consent[i][column], self.seen.version[i][column]
        return contact.consented(rule, state), f"{purpose} {_CONSENTS[state]}, version {version}"

    def _of_hours(self, i: int, campaign: Campaign) -> Iterator[Asked]:
        hours, slot = self.hours, self.slot[i]
        in_time, awake, uncapped, has_room = hours.left[i]
        emptied = hours.emptied[i]
        told = _expiry(in_time, campaign.expiry)
        due_at = int(hours.due[i, slot])
        needed = "" if not emptied[0] else _least_expiry((due_at // HOUR_MS + 1) * HOUR_MS - self.now)
        yield Reason.EXPIRED, _gate("expiry", not emptied[0], told, needed)
        if self.policy.rule(campaign).quiet_hours:
            start, end = contact.quiet_at(self.seen.place[i].decode(errors="replace"), self.policy.contact)
            told = f"{awake} of those outside {start:02}:00 to {end:02}:00"
            needed = f"quiet hours without {int(hours.local[i, slot]) % 24:02}:00"
            yield Reason.QUIET_HOURS, _gate("quiet_hours", not emptied[1], told, needed)
        if caps := self.policy.caps_of(campaign):
            counts = hours.caps[:, i, slot].tolist()
            over = [(cap, counts[which]) for which, cap in caps if counts[which] >= cap.most]
            drops = campaign.when_capped == "drop"
            within = self.policy.caps_told(campaign)
            told = (
                f"its hour, or it is dropped, within {within}"
                if drops
                else f"{uncapped} of those within {within}"
            )
            needed = " and ".join(f"a cap of {count + 1} in {cap.window}" for cap, count in over)
            passes = not emptied[_CAP] and not (drops and over)
            yield Reason.FREQUENCY_CAP, _gate("frequency_cap", passes, told, needed)
        lane = self.seen.provider[i].decode(errors="replace") or OTHER_PROVIDER
        if lane in self.full:
            told = f"{has_room} of those with room on {lane}"
            yield Reason.LANE_FULL, _gate("lane_capacity", not emptied[3], told, f"room on {lane}")


def competition(passed: bool, worth: float, best: float, winner: str) -> Gate:
    """The last gate: of those that could go, the worthiest does."""
    theirs = f"{best:g} of {winner}"
    return _gate("competition", passed, f"worth {worth:g}, the highest {theirs}", f"a worth above {theirs}")


def _gate(name: str, passed: bool, detail: str, needed: str) -> Gate:
    return Gate(name, passed, detail, "" if passed else needed)


@cache
def _expiry(in_time: int, expiry: Milliseconds) -> str:
    return f"{in_time} of {CANDIDATES} hours before expiry in {expiry}"


def _least_expiry(span: int) -> str:
    return f"an expiry of {Milliseconds(span)}"
