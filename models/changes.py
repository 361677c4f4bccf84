"""What records of consent, attributes and delivery do to rows."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from models import contact, slots
from models.audit import Output
from models.inputs import Causes, Other
from schemas import topics
from schemas.policy import Policy
from schemas.profile import PURPOSES, Consent, Suppression
from schemas.reasons import Filtered, Reason

_SUPPRESSES: Final = {
    "bounced": Suppression.BOUNCED,
    "complained": Suppression.COMPLAINED,
    "unsubscribed": Suppression.UNSUBSCRIBED,
}


def state_of(other: Other) -> Consent:
    """The state that a record of consent tells."""
    return Consent.GRANTED if other.fields["state"] == "granted" else Consent.WITHDRAWN


@dataclass(frozen=True)
class Changes:
    """Applies records, one by one, to owned rows."""

    rows: np.ndarray
    policy: Policy
    causes: Causes
    out: Output

    def apply(self, other: Other) -> Filtered | None:
        """Let a record take effect; why it was left without any, or None."""
        if other.topic == topics.ATTRIBUTES.name:
            for name in ("zone", "locale", "provider", "place"):
                if other.fields[name] is not None:
                    self.rows[name][other.row] = other.fields[name].encode()
        elif other.topic == topics.CONSENT.name:
            return None if self._consent(other) else Filtered.STALE
        else:
            return None if self._delivery(other) else Filtered.UNKNOWN_DISPATCH
        return None

    def _consent(self, other: Other) -> bool:
        """Store a consent change; a withdrawal frees what waits. Returns whether it took effect."""
        fields, purpose = other.fields, PURPOSES.index(other.fields["purpose"])
        if fields["version"] <= self.rows["consent_version"][other.row, purpose]:
            return False
        self.rows["consent"][other.row, purpose] = state_of(other)
        self.rows["consent_version"][other.row, purpose] = fields["version"]
        cause = self.causes.of(other.position)
        self.out.consent(other.row, fields["purpose"], fields["state"], fields["version"], None, cause)
        policy = self.policy
        if state_of(other) is Consent.WITHDRAWN:
            slots.withdraw(
                self.rows,
                other.row,
                policy,
                lambda campaign: (
                    campaign.purpose == fields["purpose"] and policy.rule(campaign).consent != "not_needed"
                ),
                self.out,
            )
        return True

    def _delivery(self, other: Other) -> bool:
        """Confirm, fail or suppress. Returns whether it took effect."""
        kind, policy = other.fields["kind"], self.policy
        slot = slots.find(self.rows, other.row, policy, other.fields["dispatch_id"])
        if slot is not None and kind != "deferred":
            reason = Reason.CONFIRMED if kind in ("sent", "delivered") else Reason.FAILED
            slots.close(self.rows, other.row, slot, policy, reason, self.out)
        suppression = _SUPPRESSES.get(kind)
        if suppression is None or (kind == "bounced" and not other.fields["permanent"]):
            return slot is not None or other.fields["dispatch_id"] is None
        before = self.rows["suppressed"][other.row]
        if before == Suppression.NONE or suppression < before:  # the gravest stays, whichever was told first
            self.rows["suppressed"][other.row] = suppression
            cause = self.causes.of(other.position)
            self.out.consent(other.row, "suppression", "suppressed", 0, suppression.name.lower(), cause)
        suppressed = self.rows["suppressed"][other.row]
        slots.withdraw(
            self.rows,
            other.row,
            policy,
            lambda campaign: contact.suppresses(policy.rule(campaign), suppressed),
            self.out,
        )
        return True
