"""What recipients do with mail that was taken, and what of it the sender hears, as producers write it.

Links are followed, by people at an hour of their own and by scanners at once; mail is called spam, of which a
feedback loop reports (RFC 5965); one click unsubscribes (RFC 8058); and some mail bounces after it was taken
(RFC 3464). Whoever receives those reports and requests writes them to `delivery.events`; that is played here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas import topics
from schemas.profile import DAY_MS, HOUR_MS, MINUTE_MS
from streams.simulator.demand import HOURS
from streams.simulator.parameters import RecipientParameters
from streams.simulator.servers import Said

_SCANS_MS: Final = MINUTE_MS
_REPORTS_MS: Final = 4 * HOUR_MS


def recipient_id(provider: str, number: int) -> str:
    """The id of a provider's recipient."""
    return f"{provider}-{number}"


def provider_of(recipient: str) -> str:
    """The provider of a recipient with this id."""
    return recipient.rpartition("-")[0]


@dataclass(frozen=True)
class Act:
    """An event to be written to a topic at a time, ms since the beginning; without `occurred_at`."""

    at: float
    topic: str
    fields: dict[str, Any]

    def __lt__(self, other: "Act") -> bool:
        return self.at < other.at


class People:
    """All recipients; what each does follows from the seed and the order of what they get."""

    def __init__(self, parameters: RecipientParameters, seed: int) -> None:
        self._p = parameters
        self._seed, self._chance = seed, np.random.default_rng([seed, 3])

    def get(self, said: Said) -> Iterator[Act]:
        """What comes of a message that was answered."""
        if said.answer.kind != "accepted":
            return
        whose = recipient_id(said.provider, said.recipient)
        about = {"recipient_id": whose, "event_id": None, "dispatch_id": said.dispatch_id}
        if self._happens(self._p.bounced_later.value):
            yield self._report(said, about, "bounced", "5.1.1 the address is gone", permanent=True)
            return
        if self._happens(self._p.scanned.value):
            yield Act(said.at + _SCANS_MS, topics.CLICKS.name, _click(about, "scanner", "datacenter"))
        if said.answer.clicks:
            at = self._next(said.at, self._hour_of(whose))
            yield Act(at, topics.CLICKS.name, _click(about, "browser", "consumer"))
        if said.answer.complains:
            yield self._report(said, about, "complained", "feedback report: abuse")
        elif said.answer.inbox and self._happens(self._p.unsubscribes.value):
            yield self._report(said, about, "unsubscribed", "one click")

    def _report(
        self, said: Said, about: dict[str, Any], kind: str, detail: str, permanent: bool = False
    ) -> Act:
        fields = about | {
            "kind": kind,
            "permanent": permanent,
            "provider": said.provider,
            "detail": detail,
        }
        return Act(said.at + _REPORTS_MS, topics.DELIVERY.name, fields)

    def _hour_of(self, recipient: str) -> int:
        """The hour of the day at which somebody reads mail: the same each day."""
        own = np.random.default_rng([self._seed, 4, *recipient.encode()])
        return int(own.choice(24, p=HOURS / HOURS.sum()))

    def _next(self, at: float, hour: int) -> float:
        """When it is next that hour, at some minute of it."""
        days, into = divmod(at, DAY_MS)
        reads = (hour + float(self._chance.random())) * HOUR_MS
        return days * DAY_MS + reads + (DAY_MS if reads < into else 0)

    def _happens(self, share: float) -> bool:
        return bool(self._chance.random() < share)


def _click(about: dict[str, Any], agent: str, network: str) -> dict[str, Any]:
    fields = dict.fromkeys(("product", "url", "device", "place", "campaign"))
    return about | fields | {"kind": "click", "agent": agent, "network": network}
