"""Who stands around opportune in a simulation: apps whose events set campaigns off, and people who get mail.

All of it is written as producers write it. A cart sets the campaign off that can wait, a purchase the urgent
one; so each message of the demand is asked for when it is due.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Producer

from schemas import codec, topics
from streams.simulator import ours
from streams.simulator.demand import Demand
from streams.simulator.parameters import RecipientParameters
from streams.simulator.people import Act, People, provider_of, recipient_id
from streams.simulator.servers import Said

_POLL_S: Final = 0.02


@dataclass(frozen=True)
class Around:
    """What the loop asks and tells: the time (ms since the beginning), answers, whether workers live."""

    now: Callable[[], float]
    said: deque[Said]
    check: Callable[[], None]
    tell: Callable[[float], None]  # hears which part of the time has passed


class Upstream:
    """Produces everything that is no mail; `inbox` counts, by provider, what landed in the inbox."""

    def __init__(
        self, demand: Mapping[str, Demand], parameters: RecipientParameters, seed: int, producer: Producer
    ) -> None:
        self._producer = producer
        self._demand = demand
        self._order = sorted(
            (released, provider, which)
            for provider, each in demand.items()
            for which, released in enumerate(each.released.tolist())
        )
        self._until = max(float(each.expires.max(initial=0)) for each in demand.values())
        self._people, self._acts = People(parameters, seed), list[Act]()
        self.inbox = dict.fromkeys(demand, 0)

    @property
    def recipients(self) -> set[str]:
        """Whom messages are meant for."""
        return {
            recipient_id(provider, number)
            for provider, each in self._demand.items()
            for number in each.recipient.tolist()
        }

    def register(self) -> None:
        """Have everybody consent to mail, and say who their provider is, at the beginning."""
        for recipient in sorted(self.recipients):
            consent = {"purpose": "mail", "state": "granted", "version": 1, "source": "simulator"}
            known = dict.fromkeys(("zone", "locale", "place")) | {"provider": provider_of(recipient)}
            for topic, fields in ((topics.CONSENT.name, consent), (topics.ATTRIBUTES.name, known)):
                self._produce(topic, 0, {"recipient_id": recipient, "event_id": None} | fields)
        self._producer.flush()

    def run(self, around: Around) -> None:
        """Produce everything when it is due, until the last message has expired."""
        due = self._asking()
        following = next(due, None)
        while (at := around.now()) < self._until:
            while following is not None and following.at <= at:
                self._produce(following.topic, following.at, following.fields)
                following = next(due, None)
            self.hear(around.said)
            while self._acts and self._acts[0].at <= at:
                act = heapq.heappop(self._acts)
                self._produce(act.topic, act.at, act.fields)
            self._producer.poll(0)
            around.check()
            around.tell(at / self._until)
            time.sleep(_POLL_S)
        self._producer.flush()

    def _asking(self) -> Iterator[Act]:
        """The events that ask for the messages of the demand, in order of time."""
        for released, provider, which in self._order:
            demand = self._demand[provider]
            recipient = recipient_id(provider, int(demand.recipient[which]))
            about = {"recipient_id": recipient, "event_id": f"{provider}-{which}"}
            if demand.urgent[which]:
                bought = dict.fromkeys(("order_id", "place", "campaign", "dispatch_id"))
                bought |= {"amount": 1000, "currency": "USD", "items": 1}
                yield Act(released, topics.PURCHASES.name, about | bought)
            else:
                names = ("product", "url", "device", "place", "campaign", "dispatch_id", "agent", "network")
                yield Act(released, topics.CLICKS.name, about | dict.fromkeys(names) | {"kind": "cart"})

    def hear(self, said: deque[Said]) -> None:
        """Let people have what was taken."""
        while said:
            each = said.popleft()
            self.inbox[each.provider] += each.answer.inbox
            for act in self._people.get(each):
                heapq.heappush(self._acts, act)

    def _produce(self, topic: str, at: float, fields: Mapping[str, Any]) -> None:
        value = codec.encode(topic, {**fields, "occurred_at": ours.EPOCH + int(at)})
        self._producer.produce(topic, value, fields["recipient_id"].encode())
