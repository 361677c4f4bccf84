"""The gates of a decision, told: whether each lets a message pass, its figures, what it would have needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from models import contact
from models.arms import Arm
from models.hours import CANDIDATES, GATES, FullHours
from schemas.audit import Gate
from schemas.policy import Campaign, Policy
from schemas.profile import HOUR_MS, PURPOSES, Consent, Suppression
from schemas.reasons import Reason
from schemas.routes import OTHER_PROVIDER
from schemas.units import Milliseconds

_SUPPRESSIONS: Final = [each.name.lower() for each in Suppression]
_CONSENTS: Final = [each.name.lower() for each in Consent]


# The gates of a trigger, in order, by the reason that each gives if it fails.
ORDER: Final = (
    *(Reason.SUPPRESSED, Reason.NO_CONSENT, Reason.NOT_IN_AUDIENCE, Reason.COOLDOWN, Reason.PENDING_FULL),
    *GATES,
    Reason.HOLD_OUT,
)


@dataclass(frozen=True)
class Seen:
    """What the gates saw of n triggers, as plain values, of which words are made one by one.

    `passed` (n, g) is by `ORDER`.
    """

    passed: list[list[bool]]
    suppressed: list[int]
    consent: list[list[int]]
    version: list[list[int]]
    rests_until: list[int]  # UTC ms
    occupied: list[int]
    slots: int
    place: list[bytes]
    provider: list[bytes]
    left: list[list[int]]
    caps: list[list[int]]  # counted in the window of each cap, at the chosen time
    due_at: list[int]  # chosen, or what would have been
    local: list[int]  # its local hour of day
    policy: Policy
    now: int
    full: FullHours

    def gates(self, i: int, campaign: Campaign, arm: Arm) -> list[Gate]:
        """Every gate of the i-th trigger, but for the competition."""
        found = [*self._of_row(i, campaign), *self._of_hours(i, campaign)]
        if arm is not Arm.MODEL:
            found.append(_gate("hold_out", self.passed[i][-1], arm.value, "another arm"))
        return found

    def _of_row(self, i: int, campaign: Campaign) -> Iterator[Gate]:
        passed, purpose = self.passed[i], campaign.purpose
        rests_until, occupied = self.rests_until[i], self.occupied[i]
        told = _SUPPRESSIONS[self.suppressed[i]]
        yield _gate("suppression", passed[0], told, "a recipient who is not suppressed")
        yield _gate("consent", passed[1], self._consent(i, campaign), f"consent to {purpose}")
        audience = campaign.audience or "everyone"
        yield _gate("audience", passed[2], audience, f"a recipient in {audience}")
        told = f"rests until {rests_until}" if rests_until else "never decided before"
        yield _gate("cooldown", passed[3], told, "a trigger after its rest")
        yield _gate("pending", passed[4], f"{occupied} of {self.slots} slots taken", "a free slot")

    def _consent(self, i: int, campaign: Campaign) -> str:
        purpose = campaign.purpose
        if purpose not in PURPOSES:
            return f"{purpose} {self.policy.rule(campaign).consent}"
        column = PURPOSES.index(purpose)
        return f"{purpose} {_CONSENTS[self.consent[i][column]]}, version {self.version[i][column]}"

    def _of_hours(self, i: int, campaign: Campaign) -> Iterator[Gate]:
        in_time, awake, uncapped, has_room = self.left[i]
        passed = self.passed[i][len(ORDER) - len(GATES) - 1 : -1]
        needed = "" if passed[0] else _least_expiry((self.due_at[i] // HOUR_MS + 1) * HOUR_MS - self.now)
        yield _gate("expiry", passed[0], _expiry(in_time, campaign.expiry), needed)
        if self.policy.rule(campaign).quiet_hours:
            start, end = contact.quiet_at(self.place[i].decode(errors="replace"), self.policy.contact)
            told = f"{awake} of those outside {start:02}:00 to {end:02}:00"
            yield _gate("quiet_hours", passed[1], told, f"quiet hours without {self.local[i]:02}:00")
        if caps := self.policy.caps_of(campaign):
            drops = campaign.when_capped == "drop"
            of_those = "its hour, or it is dropped," if drops else f"{uncapped} of those"
            told = f"{of_those} within {self.policy.caps_told(campaign)}"
            over = [
                f"a cap of {self.caps[i][which] + 1} in {cap.window}"
                for which, cap in caps
                if self.caps[i][which] >= cap.most
            ]
            yield _gate("frequency_cap", passed[2], told, " and ".join(over))
        provider = self.provider[i].decode(errors="replace") or OTHER_PROVIDER
        if provider in self.full and campaign.purpose != "transactional":
            told = f"{has_room} of those with room to {provider}"
            yield _gate("lane_capacity", passed[3], told, f"room to {provider}")


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
    return f"an expiry of {Milliseconds(-(-span // HOUR_MS) * HOUR_MS)}"
