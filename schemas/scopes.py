"""What operators can pause: scopes by name, and in which of them a message is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple, get_args

from schemas.policy import Campaign
from schemas.routes import LaneName

Scope = Literal["campaign", "lane", "provider", "segment", "template", "model"]
Scoped = tuple[Scope, str]  # for example ("campaign", "win_back")
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


class Marks(NamedTuple):
    """What a message is held by; `model` is empty where none chose its hour."""

    lane: str
    campaign: str
    template: str
    model: str


@dataclass(frozen=True)
class Scopes:
    """The scopes of messages; `segments` that each campaign goes by: its trigger's and its audience's.

    A campaign that the policy does not have (any more) goes by none.
    """

    segments: Mapping[str, frozenset[str]]
    _known: dict[Marks, frozenset[Scoped]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, campaigns: Iterable[Campaign]) -> "Scopes":
        """The scopes of messages of a policy's campaigns."""
        found = {}
        for campaign in campaigns:
            trigger = campaign.trigger
            names = (trigger.enter, trigger.leave, campaign.audience)
            found[campaign.name] = frozenset(name for name in names if name is not None)
        return cls(found)

    def __call__(self, marks: Marks) -> frozenset[Scoped]:
        """Every scope that a message with these marks is in."""
        found = self._known.get(marks)
        if found is None:
            found = self._known[marks] = self._of(marks)
        return found

    def _of(self, marks: Marks) -> frozenset[Scoped]:
        own: set[Scoped] = {("campaign", marks.campaign), ("template", marks.template)}
        own |= {("segment", name) for name in self.segments.get(marks.campaign, ())}
        if marks.model:
            own.add(("model", marks.model))
        return lane_scopes(marks.lane) | own


def lane_scopes(lane: str) -> frozenset[Scoped]:
    """The scopes of everything on a lane: it, the lane that it is a part of, and its provider."""
    name = LaneName.of(lane)
    whole = str(replace(name, part=0))
    return frozenset({("lane", lane), ("lane", whole), ("provider", name.provider)})
