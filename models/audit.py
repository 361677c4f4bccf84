"""What a cut says and sends: audit bodies, commands and recalls, as records of their schemas."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas import ids
from schemas.policy import Campaign
from schemas.reasons import Reason

Body = tuple[str, dict[str, Any]]  # name of the record in audit.records' union, and the record


@dataclass
class Output:
    """Everything that leaves DECIDE in one cut besides rows; filled in order."""

    history: bool
    now: int
    audit: list[tuple[str, Body]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    recalls: list[dict[str, Any]] = field(default_factory=list)
    decided: int = 0
    withheld: int = 0
    released: int = 0
    dropped: int = 0

    def decision(self, recipient: str, record: dict[str, Any]) -> None:
        """Record a trigger's answer."""
        self.decided += 1
        self.withheld += record["outcome"] == "withheld"
        self.audit.append((recipient, ("opportune.Decision", record)))

    def release(
        self,
        recipient: str,
        slot: Mapping[str, Any],
        campaign: Campaign,
        outcome: str,
        reason: Reason,
        gates: Sequence[dict[str, Any]] = (),
        lane: str | None = None,
    ) -> None:
        """Record what became of a scheduled send that came due, and send its command if released."""
        decision = decision_of(slot)
        dispatch = ids.dispatch_id(decision, campaign.channel)
        self.dropped += outcome == "withheld"
        record = {
            "decision_id": str(decision),
            "dispatch_id": dispatch,
            "campaign": campaign.name,
            "outcome": outcome,
            "reason": reason.value,
            "due_at": int(slot["due_at"]),
            "lane": lane,
            "history": self.history,
            "gates": list(gates),
        }
        self.audit.append((recipient, ("opportune.Release", record)))
        if outcome == "released":
            self.released += 1
            self.commands.append(
                {
                    "dispatch_id": dispatch,
                    "decision_id": str(decision),
                    "recipient_id": recipient,
                    "campaign": campaign.name,
                    "template": campaign.template,
                    "purpose": campaign.purpose,
                    "channel": campaign.channel,
                    "lane": lane,
                    "due_at": int(slot["due_at"]),
                    "released_at": self.now,
                    "expires_at": int(slot["expires_at"]),
                    "history": self.history,
                }
            )

    def closure(self, recipient: str, slot: Mapping[str, Any], campaign: Campaign, reason: Reason) -> None:
        """Record that a released send left the row."""
        decision = decision_of(slot)
        record = {
            "decision_id": str(decision),
            "dispatch_id": ids.dispatch_id(decision, campaign.channel),
            "campaign": campaign.name,
            "reason": reason.value,
        }
        self.audit.append((recipient, ("opportune.Closure", record)))

    def recall(self, recipient: str, slot: Mapping[str, Any], campaign: Campaign, reason: Reason) -> None:
        """Call a released send back."""
        self.recalls.append(
            {
                "dispatch_id": ids.dispatch_id(decision_of(slot), campaign.channel),
                "recipient_id": recipient,
                "lane": slot["lane"].decode(),
                "reason": reason.value,
                "recalled_at": self.now,
                "expires_at": int(slot["expires_at"]),
            }
        )

    def transition(
        self, recipient: str, segment: str, entered: bool, cause: Mapping[str, Any], definition: str
    ) -> None:
        """Record that a recipient entered or left a segment."""
        record = {"segment": segment, "entered": entered, "cause": cause, "definition": definition}
        self.audit.append((recipient, ("opportune.SegmentTransition", record)))

    def consent(
        self,
        recipient: str,
        purpose: str,
        state: str,
        version: int,
        reason: str | None,
        cause: Mapping[str, Any],
    ) -> None:
        """Record a consent or suppression that changed the row."""
        record = {"purpose": purpose, "state": state, "version": version, "reason": reason, "cause": cause}
        self.audit.append((recipient, ("opportune.ConsentRecord", record)))


def due_cause(due_at: int) -> dict[str, Any]:
    """Cause of what the passage of time set off."""
    return {"topic": None, "partition": None, "offset": None, "event_id": None, "due_at": due_at}


def gate(name: str, passed: bool, detail: str) -> dict[str, Any]:
    """One gate and what it saw."""
    return {"name": name, "passed": passed, "detail": detail}


def decision_of(slot: Mapping[str, Any]) -> uuid.UUID:
    """Id of the decision behind a send slot."""
    return uuid.UUID(bytes=bytes(slot["decision"]))
