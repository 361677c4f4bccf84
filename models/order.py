"""Whose turn it is on a lane: who is urgent, who matters more, whose deadline comes first, and a fair share.

Campaigns of one priority take turns, whatever each has waiting (start-time fair queueing; Goyal, Vin & Cheng
1996), so that a campaign of a million messages leaves room for one of ten. Within a campaign the earliest
deadline goes first.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from schemas.policy import Policy

Entry = tuple[int, bytes]  # of a message: when it expires (UTC ms), and its key
Rank = tuple[bool, int]  # the least goes first: whether it can wait, and its priority turned round

_UNKNOWN: Rank = (True, 0)


@dataclass(frozen=True)
class Ranks:
    """Which campaigns go before which; of one that the policy does not know (any more), last."""

    of_campaign: Mapping[str, Rank]

    @classmethod
    def of(cls, policy: Policy) -> "Ranks":
        """Transactional messages first, then by priority."""
        return cls({c.name: (c.purpose != "transactional", -c.priority) for c in policy.campaigns})

    def __call__(self, campaign: str) -> Rank:
        """Rank of a campaign."""
        return self.of_campaign.get(campaign, _UNKNOWN)

    def urgent(self, campaign: str) -> bool:
        """Whether its messages go before all others, and from the reserve."""
        return not self(campaign)[0]


@dataclass
class Turns:
    """Who had how many turns on a lane: `had` by campaign, in a time of each rank, that of its last turn."""

    had: dict[str, int] = field(default_factory=dict)
    now: dict[Rank, int] = field(default_factory=dict)

    def took(self, campaign: str, rank: Rank) -> None:
        """A message of a campaign goes."""
        self.now[rank] = self.at(campaign, rank)
        self.had[campaign] = self.now[rank] + 1

    def at(self, campaign: str, rank: Rank) -> int:
        """When it is a campaign's turn; one that had nothing for a while saves no turns up."""
        return max(self.had.get(campaign, 0), self.now.get(rank, 0))


def in_turn(
    waiting: Mapping[str, Iterator[Entry]], ranks: Ranks, turns: Turns
) -> Iterator[tuple[str, bytes]]:
    """Messages in the order in which they go: campaign and key.

    Parameters
    ----------
    waiting
        By campaign, each the earliest deadline first.
    ranks
        Which goes first.
    turns
        Who had how many; as they are, nothing is written down.
    """
    heads: list[tuple[Rank, int, Entry, str]] = []

    def draw(campaign: str, turn: int) -> None:
        entry = next(waiting[campaign], None)
        if entry is not None:
            heapq.heappush(heads, (ranks(campaign), turn, entry, campaign))

    for campaign in waiting:
        draw(campaign, turns.at(campaign, ranks(campaign)))
    while heads:
        _, turn, (_, key), campaign = heapq.heappop(heads)
        yield campaign, key
        draw(campaign, turn + 1)
