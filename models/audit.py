"""What DECIDE says and sends: audit bodies, commands and recalls, as records of their schemas."""

import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas import ids, topics
from schemas.audit import DECISION, RELEASE, TRANSITION, Body, Gate
from schemas.policy import Campaign
from schemas.reasons import Reason


@dataclass
class Output:
    """Everything that leaves DECIDE at `now` (UTC ms) besides rows; filled in order, by number of the row.

    `names` are the recipients' ids by that number; `models` those that rows tell by their place, from 1 on.
    """

    names: Sequence[str]
    models: Sequence[str]
    history: bool
    now: int
    audit: list[tuple[int, Body]] = field(default_factory=list)
    commands: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    recalls: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def parts(self, starts: Sequence[int]) -> list["Output"]:
        """What is about each run of rows; `starts` are the runs' first rows, ascending from 0."""
        parts = [Output(self.names, self.models, self.history, self.now) for _ in starts]
        for number, body in self.audit:
            parts[bisect_right(starts, number) - 1].audit.append((number, body))
        for number, command in self.commands:
            parts[bisect_right(starts, number) - 1].commands.append((number, command))
        for number, recall in self.recalls:
            parts[bisect_right(starts, number) - 1].recalls.append((number, recall))
        return parts

    def figures(self) -> dict[str, int]:
        """How many triggers were decided, and of them withheld; how many sends were released or dropped."""
        figures = dict.fromkeys(("decided", "withheld", "released", "dropped"), 0)
        for _, (kind, record) in self.audit:
            if kind == DECISION:
                figures["decided"] += 1
                figures["withheld"] += record["outcome"] == "withheld"
            elif kind == RELEASE:
                figures["released"] += record["outcome"] == "released"
                figures["dropped"] += record["outcome"] == "withheld"
        return figures

    def decision(self, number: int, record: dict[str, Any]) -> None:
        """Record a trigger's answer."""
        self.audit.append((number, (DECISION, record)))

    def release(
        self,
        number: int,
        slot: Mapping[str, Any],
        campaign: Campaign,
        outcome: str,
        reason: Reason,
        gates: Sequence[Gate] = (),
        lane: str | None = None,
    ) -> None:
        """Record what became of a scheduled send that came due, and send its command if released."""
        decision = decision_of(slot)
        dispatch = ids.dispatch_id(decision, campaign.channel)
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
        self.audit.append((number, (RELEASE, record)))
        if outcome == "released":
            command = {
                "dispatch_id": dispatch,
                "decision_id": str(decision),
                "recipient_id": self.names[number],
                "campaign": campaign.name,
                "template": campaign.template,
                "purpose": campaign.purpose,
                "channel": campaign.channel,
                "lane": lane,
                "due_at": int(slot["due_at"]),
                "released_at": self.now,
                "expires_at": int(slot["expires_at"]),
                "history": self.history,
                "model": self.models[slot["model"] - 1] if slot["model"] else None,
            }
            self.commands.append((number, command))

    def closure(self, number: int, slot: Mapping[str, Any], campaign: Campaign, reason: Reason) -> None:
        """Record that a released send left the row."""
        decision = decision_of(slot)
        record = {
            "decision_id": str(decision),
            "dispatch_id": ids.dispatch_id(decision, campaign.channel),
            "campaign": campaign.name,
            "reason": reason.value,
        }
        self.audit.append((number, ("opportune.Closure", record)))

    def recall(
        self, number: int, slot: Mapping[str, Any], campaign: Campaign, lane: str, reason: Reason
    ) -> None:
        """Call a send back that was released on a lane."""
        recall = {
            "dispatch_id": ids.dispatch_id(decision_of(slot), campaign.channel),
            "recipient_id": self.names[number],
            "lane": lane,
            "reason": reason.value,
            "recalled_at": self.now,
            "expires_at": int(slot["expires_at"]),
        }
        self.recalls.append((number, recall))

    def transition(
        self, number: int, segment: str, entered: bool, cause: Mapping[str, Any], definition: str
    ) -> None:
        """Record that a recipient entered or left a segment."""
        record = {"segment": segment, "entered": entered, "cause": cause, "definition": definition}
        self.audit.append((number, (TRANSITION, record)))

    def consent(
        self,
        number: int,
        purpose: str,
        state: str,
        version: int,
        reason: str | None,
        cause: Mapping[str, Any],
    ) -> None:
        """Record a consent or suppression that changed the row."""
        record = {"purpose": purpose, "state": state, "version": version, "reason": reason, "cause": cause}
        self.audit.append((number, ("opportune.ConsentRecord", record)))


def due_cause(due_at: int) -> dict[str, Any]:
    """Cause of what the passage of time set off."""
    return {"topic": None, "partition": None, "offset": None, "event_id": None, "due_at": due_at}


def control_cause(version: int) -> dict[str, Any]:
    """Cause of what a change of control set off: the one that led to a version."""
    topic, offset = topics.CONTROL.name, version - 1
    event_id = ids.event_id(topic, 0, offset)
    return {"topic": topic, "partition": 0, "offset": offset, "event_id": event_id, "due_at": None}


def decision_of(slot: Mapping[str, Any]) -> uuid.UUID:
    """Id of the decision behind a send slot."""
    return uuid.UUID(bytes=bytes(slot["decision"]))
