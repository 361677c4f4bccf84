"""Arms of an experiment: who is in which, by a hash that sticks to recipient and campaign."""

from enum import StrEnum

import xxhash

from schemas.policy import Campaign, Policy


class Arm(StrEnum):
    """What a recipient gets of a campaign."""

    MODEL = "model"  # the message, in the hour that the model chose
    CONTROL = "control"  # the message, in an hour drawn from the prior
    HOLD_OUT = "hold_out"  # nothing
    GLOBAL_HOLD_OUT = "global_hold_out"  # nothing of any campaign

    @property
    def held_out(self) -> bool:
        """Whether nothing is sent."""
        return self in (Arm.HOLD_OUT, Arm.GLOBAL_HOLD_OUT)


def arm_of(recipient_id: str, campaign: Campaign, policy: Policy) -> Arm:
    """The arm of a recipient; a share that grows keeps whom it had."""
    if policy.rule(campaign).hold_out and _place("hold_out", recipient_id) < policy.contact.hold_out:
        return Arm.GLOBAL_HOLD_OUT
    shares = campaign.arms
    if not shares.hold_out and not shares.control:
        return Arm.MODEL
    place = _place(f"campaign/{campaign.name}", recipient_id)
    if place < shares.hold_out:
        return Arm.HOLD_OUT
    # From the other end, so that a hold-out that grows takes from the model's arm first.
    return Arm.CONTROL if place >= 1 - shares.control else Arm.MODEL


def in_canary(recipient_id: str, version: str, share: float) -> bool:
    """Whether a model on trial chooses the hours of a recipient; a share that grows keeps whom it had."""
    return _place(f"canary/{version}", recipient_id) < share


def _place(experiment: str, recipient_id: str) -> float:
    """Where a recipient stands in an experiment, in [0, 1); even, and of any other experiment independent."""
    return xxhash.xxh3_64_intdigest(f"{experiment}/{recipient_id}".encode()) / 2**64
