"""Deterministic ids: UUIDv5 of what a thing is, never random, never from a clock."""

import uuid
from typing import Final

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "opportune")


def event_id(topic: str, partition: int, offset: int) -> str:
    """Id of an event whose producer gave none."""
    return str(uuid.uuid5(_NAMESPACE, f"event/{topic}/{partition}/{offset}"))


def due_id(condition: str, due_at: int) -> str:
    """What stands for the event id where the passing of time set off a decision.

    `condition` names what came true (`enter:lapsing`), `due_at` is the due time in UTC milliseconds.
    """
    return f"due/{condition}/{due_at}"


def decision_id(cause: str, recipient_id: str, campaign: str, campaign_version: int) -> uuid.UUID:
    """Id of a decision; `cause` is an event id or a `due_id`."""
    return uuid.uuid5(_NAMESPACE, f"decision/{cause}/{recipient_id}/{campaign}/{campaign_version}")


def dispatch_id(decision: uuid.UUID, channel: str) -> str:
    """Id of the message that a decision sends on a channel."""
    return str(uuid.uuid5(_NAMESPACE, f"dispatch/{decision}/{channel}"))


def delivery_event_id(dispatch_id: str, kind: str, which: int) -> str:
    """Id of what DELIVER reports of a dispatch; `which` tells repeats of one kind apart."""
    return str(uuid.uuid5(_NAMESPACE, f"delivery/{dispatch_id}/{kind}/{which}"))
