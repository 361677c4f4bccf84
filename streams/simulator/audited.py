"""What became of a simulation's messages by the audit trail, hour by hour."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from schemas import codec
from schemas.profile import HOUR_MS
from schemas.reasons import Reason
from streams.explain import kind_of
from streams.simulator import ours
from streams.simulator.demand import Outcome
from streams.simulator.people import provider_of

_ENDS: Final = {  # what is not known to have been taken counts as not taken in time
    "delivered": "accepted",
    "bounced": "bounced",
    "recalled": "bounced",
    "expired": "expired",
    "unknown": "expired",
}
Record = Mapping[str, Any]


class Audited:
    """The records of the audit trail that are about messages; probes of lanes are not."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._scheduled, self._released, self._withheld, self._deliveries = (list[Record]() for _ in range(4))
        self.decisions = self.consents = self.probes = 0
        for record in records:
            kind, body = kind_of(record["body"]), record["body"]
            self.decisions += kind == "decision"
            self.consents += kind == "consent"
            if kind in ("decision", "release") and body["outcome"] == "withheld":
                self._withheld.append(record)
            elif kind == "decision":
                self._scheduled.append(record)
            elif kind == "release" and body["outcome"] == "released":
                self._released.append(record)
            elif kind == "delivery" and body["kind"] == "history":
                self.probes += 1
            elif kind == "delivery":
                self._deliveries.append(record)

    def ended(self, messages: int) -> bool:
        """Whether so many messages were decided upon, and all that were scheduled have ended."""
        over = {each["body"]["decision_id"] for each in self._withheld}
        over |= {each["body"]["decision_id"] for each in self._deliveries if each["body"]["kind"] in _ENDS}
        return self.decisions >= messages and all(
            each["body"]["decision_id"] in over for each in self._scheduled
        )

    def count(self, messages: Mapping[str, int], urgent: str) -> dict[str, Outcome]:
        """What became of each provider's messages; `urgent` is the campaign whose waits are told."""
        found = {provider: Outcome(count) for provider, count in messages.items()}
        for record in self._withheld:
            outcome = found[provider_of(record["recipient_id"])]
            if record["body"]["reason"] == Reason.SUPPRESSED:
                outcome.bounced += 1
            else:
                outcome.expired += 1
        released = {each["body"]["dispatch_id"]: _ms(each["at"]) for each in self._released}
        for record in self._deliveries:
            body, provider = record["body"], provider_of(record["recipient_id"])
            outcome = found[provider]
            if body["kind"] == "deferred":
                outcome.deferrals += 1
            elif (name := _ENDS.get(body["kind"])) is not None:
                setattr(outcome, name, getattr(outcome, name) + 1)
            if body["kind"] == "delivered" and body["campaign"] == urgent:
                outcome.urgent_taken += 1
                outcome.urgent_wait_ms += _ms(body["occurred_at"]) - released[body["dispatch_id"]]
        for provider, outcome in found.items():
            self._by_hour(provider, outcome)
        return found

    def _by_hour(self, provider: str, outcome: Outcome) -> None:
        """Tell what a provider took and deferred in each hour, and what waited at its end."""
        mine = [each for each in self._deliveries if provider_of(each["recipient_id"]) == provider]
        times = {
            "released": [_ms(r["at"]) for r in self._released if provider_of(r["recipient_id"]) == provider],
            "ended": [_ms(r["body"]["occurred_at"]) for r in mine if r["body"]["kind"] in _ENDS],
            "taken": [_ms(r["body"]["occurred_at"]) for r in mine if r["body"]["kind"] == "delivered"],
            "deferred": [_ms(r["body"]["occurred_at"]) for r in mine if r["body"]["kind"] == "deferred"],
        }
        hours = 1 + max((int(max(some)) // HOUR_MS for some in times.values() if some), default=0)
        by = {
            name: np.bincount(np.array(some, np.int64) // HOUR_MS, minlength=hours)
            for name, some in times.items()
        }
        outcome.taken, outcome.deferred = by["taken"].tolist(), by["deferred"].tolist()
        outcome.waiting = (by["released"] - by["ended"]).cumsum().tolist()


def _ms(moment: Any) -> int:
    """Milliseconds since the simulation's beginning."""
    return codec.millis(moment) - ours.EPOCH
