"""A recipient's audit records put together: each decision, what became of it, the changes around it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from schemas.reasons import Reason

Record = dict[str, Any]


class UnknownRecipient(LookupError):
    """The audit trail has nothing about a recipient; the message says what may be the cause."""


@dataclass
class Story:
    """A decision and what followed it, as audit records in order; `recalled` once released and withdrawn."""

    decision: Record | None  # None: retention has taken it, what followed is still there
    steps: list[Record] = field(default_factory=list)

    @property
    def state(self) -> str:
        """Word for how it stands.

        It is withheld, pending, deferred, released, recorded (of loaded history: released and done), what
        DELIVER says that became of it, or closed with its reason; a withdrawal after release is `recalled`.
        Repeated commands, and the bare record of historic ones, change nothing.
        """
        moves = [step for step in self.steps if step["body"].get("kind") not in ("history", "duplicate")]
        if not moves and self.decision is not None:
            return str(self.decision["body"]["outcome"]).replace("scheduled", "pending")
        if not moves:
            return "recorded" if any(step["body"]["kind"] == "history" for step in self.steps) else "repeated"
        body = moves[-1]["body"]
        if kind_of(body) == "delivery":
            return str(body["kind"])
        if kind_of(body) == "closure":
            return "recalled" if body["reason"] == Reason.WITHDRAWN else str(body["reason"])
        return "recorded" if body["outcome"] == "released" and body["history"] else str(body["outcome"])

    def waits(self) -> Record | None:
        """The release of a message that DELIVER has and that has not ended; None if there is none."""
        at_delivery = self.steps and kind_of(self.steps[-1]["body"]) == "delivery"
        if self.state != "released" and not (self.state == "deferred" and at_delivery):
            return None
        released = (step for step in self.steps if step["body"].get("outcome") == "released")
        return next(released, None)


@dataclass
class History:
    """All that the audit trail has about a recipient, each list oldest first."""

    recipient_id: str
    stories: list[Story] = field(default_factory=list)
    transitions: list[Record] = field(default_factory=list)
    consents: list[Record] = field(default_factory=list)


def kind_of(body: Record) -> str:
    """Which of the six bodies of audit.records this is; each has a field that no other has."""
    if "delivery_event_id" in body:
        return "delivery"
    if "cause" in body and "gates" in body:
        return "decision"
    if "outcome" in body:
        return "release"
    if "entered" in body:
        return "transition"
    return "consent" if "purpose" in body else "closure"


def history_of(recipient_id: str, records: Iterable[Record]) -> History:
    """Put a recipient's audit records together.

    Parameters
    ----------
    records
        Decoded audit.records of this recipient, oldest first.

    Raises
    ------
    UnknownRecipient
        There are none.
    """
    history = History(recipient_id)
    by_decision: dict[str, Story] = {}
    empty = True
    for record in records:
        empty = False
        body = record["body"]
        kind = kind_of(body)
        if kind == "transition":
            history.transitions.append(record)
        elif kind == "consent":
            history.consents.append(record)
        elif kind == "decision":
            story = Story(record)
            history.stories.append(story)
            by_decision[body["decision_id"]] = story
        else:
            if body["decision_id"] not in by_decision:
                by_decision[body["decision_id"]] = Story(None)
                history.stories.append(by_decision[body["decision_id"]])
            by_decision[body["decision_id"]].steps.append(record)
    if empty:
        raise UnknownRecipient(
            f"the audit trail has nothing of recipient {recipient_id!r}: the id is wrong (case matters), "
            "nothing that it did changed a segment or set a campaign off, its events are among the dead "
            "letters (`opportune dead-letters list`), or all is older than the trail"
        )
    return history
