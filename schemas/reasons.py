"""The closed list of reasons: why a message went, waits or did not go, and why a record was not handled."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a trigger, a scheduled send or a released send ended as it did."""

    def __new__(cls, value: str, doc: str) -> "Reason":
        """Attach the explanation that docs and `explain` print."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.__doc__ = doc
        return member

    SCHEDULED = "scheduled", "Every gate passed; the send waits for its hour."
    RELEASED = "released", "Due, every gate passed again; the command was sent."
    SUPPRESSED = (
        "suppressed",
        "A bounce, a complaint or an unsubscription holds messages of this purpose back.",
    )
    NO_CONSENT = "no_consent", "The campaign's purpose did not have the consent that it needs at that moment."
    NOT_IN_AUDIENCE = "not_in_audience", "The recipient is not in the campaign's audience segment."
    COOLDOWN = (
        "cooldown",
        "The campaign was scheduled, or held out, less than its cooldown ago.",
    )
    PENDING_FULL = "pending_full", "Eight sends already wait or are unconfirmed."
    FREQUENCY_CAP = (
        "frequency_cap",
        "Every hour left, the hour of one that drops, or the moment of release breaks a cap.",
    )
    QUIET_HOURS = "quiet_hours", "Every hour before expiry lies in the recipient's quiet hours."
    LANE_FULL = "lane_full", "Every hour left is spoken for on the way to the recipient's mailbox provider."
    HOLD_OUT = "hold_out", "The recipient is held out, of this campaign or of all, to measure against."
    OUTRANKED = "outranked", "Another campaign wanted the recipient at that moment and was worth more."
    EXPIRED = "expired", "It was not released before its expiry."
    WITHDRAWN = "withdrawn", "Consent was withdrawn, or the recipient suppressed, before it was confirmed."
    RETIRED = "retired", "The policy no longer has the campaign that scheduled it."
    CONFIRMED = "confirmed", "Delivery reported it sent."
    FAILED = "failed", "Delivery did not report it sent: refused, expired, or its outcome is unknown."
    UNCONFIRMED = "unconfirmed", "An hour past expiry delivery had reported nothing."


class Filtered(StrEnum):
    """Why a record was deliberately left without effect."""

    DUPLICATE = "duplicate"
    STALE = "stale"
    UNKNOWN_DISPATCH = "unknown_dispatch"
    MACHINE = "machine"


class DeadLetterReason(StrEnum):
    """Why a record went to the dead letters."""

    MALFORMED = "malformed"
    UNKNOWN_SCHEMA = "unknown_schema"
    KEY_MISMATCH = "key_mismatch"
    INVALID = "invalid"
    TOO_EARLY = "too_early"
    TOO_LATE = "too_late"
    OVERSIZED = "oversized"
    MISROUTED_TWICE = "misrouted_twice"
    REFUSED = "refused"
