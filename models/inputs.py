"""What cuts are decided from, besides rows: records, the moment, the rules in force."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from models.campaigns import Campaigns
from models.hours import FullHours
from models.segments import Segments
from models.sendtime.model import HourModel
from models.sendtime.serving import Models
from schemas.policy import Applied, Policy, with_segments


@dataclass(frozen=True)
class Moment:
    """When cuts happen, UTC ms, and what control says: of pauses, and which hours have no room."""

    now: int
    paused: bool
    history: bool
    full: FullHours = field(default_factory=dict)


@dataclass(frozen=True)
class Behaviour:
    """n clicks and purchases sorted by (row, position): as `profile.Events`.

    Besides, `doubt` as `models.human` has it, and hashes of ids (0 none).
    """

    row: np.ndarray
    position: np.ndarray
    kind: np.ndarray
    at: np.ndarray
    amount: np.ndarray
    doubt: np.ndarray
    hashes: np.ndarray


@dataclass(frozen=True)
class Other:
    """A record of consent, attributes or delivery: its row, its position, its topic's name and its fields."""

    row: int
    position: int
    topic: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Rules:
    """The policy in force, compiled, and the send-time models.

    `applied` are all segments ever put in force, in order; those of `version` are, or, where none ever were,
    the files'.
    """

    policy: Policy
    segments: Segments
    campaigns: Campaigns
    models: Models
    applied: tuple[Applied, ...] = ()
    version: int = 0

    @classmethod
    def of(
        cls,
        policy: Policy,
        applied: tuple[Applied, ...] = (),
        in_force: Applied | None = None,
        models: Models | None = None,
    ) -> "Rules":
        """Compile a policy with one of the `applied` in force, and models; without, the built-in serves.

        Raises PolicyError where its segments do not go with it or may not be used.
        """
        if in_force is not None:
            policy = with_segments(policy, in_force.segments)
        version = 0 if in_force is None else in_force.version
        segments = Segments.compile(policy.segments)
        campaigns = Campaigns.compile(policy, segments)
        models = models or Models(HourModel.built_in(policy.send_time))
        return cls(policy, segments, campaigns, models, applied, version)


class Causes(Protocol):
    """Names the record at a position for audit and ids; the intake knows."""

    def of(self, position: int) -> dict[str, Any]:
        """Cause record: topic, partition, offset, event_id, and no due time."""
        ...
