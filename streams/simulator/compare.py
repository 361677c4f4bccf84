"""Senders beside each other: over seeds, and over every assumption halved and raised by half."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from schemas.replies import Replies
from streams.simulator.parameters import Parameters
from streams.simulator.run import SENDERS, Outcome, SenderName, run

Report = Callable[[], None]
By = dict[str, Outcome]  # by provider


@dataclass(frozen=True)
class Figures:
    """What a sender got out of all providers together; shares are of all messages, but for `deferrals`.

    `deferrals` are by message, `reputation` is that at the end, weighed by messages, `urgent_wait_ms` the
    mean wait of transactional messages that were taken.
    """

    messages: int
    accepted: float
    inbox: float
    expired: float
    deferrals: float
    reputation: float
    urgent_wait_ms: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Figures":
        """Add providers up."""
        messages = sum(each.messages for each in outcomes)

        def share(of: Callable[[Outcome], float]) -> float:
            return sum(of(each) for each in outcomes) / messages

        return cls(
            messages,
            share(lambda each: each.accepted),
            share(lambda each: each.inbox),
            share(lambda each: each.expired),
            share(lambda each: each.deferrals),
            share(lambda each: each.reputation_at_end * each.messages),
            share(lambda each: each.urgent_wait_ms * each.messages),
        )

    def better_than(self, other: "Figures") -> bool:
        """Whether it has fewer deferrals, a better reputation, and more in the inbox and taken in time."""
        return (
            self.deferrals < other.deferrals
            and self.reputation > other.reputation
            and self.inbox > other.inbox
            and self.accepted > other.accepted
        )


@dataclass(frozen=True)
class Assumed:
    """One assumption changed: where it stands, its name there, its factor, and what each sender then got."""

    where: str
    name: str
    factor: float
    figures: dict[SenderName, Figures]


def compare(
    parameters: Parameters, replies: Replies, days: int, recipients: int, seed: int, report: Report
) -> dict[SenderName, By]:
    """Every sender with every provider; `report` is called after each."""
    found: dict[SenderName, By] = {}
    for sender in SENDERS:
        found[sender] = {}
        for provider in parameters.provider:
            found[sender][provider] = run(parameters, replies, provider, sender, days, recipients, seed)
            report()
    return found


def sweep(
    parameters: Parameters, replies: Replies, days: int, recipients: int, seed: int, report: Report
) -> Iterator[Assumed]:
    """Every assumption halved and raised by half, one at a time; what it cannot touch is not run again."""
    usual = compare(parameters, replies, days, recipients, seed, lambda: None)
    for where, name in parameters.names():
        for factor in (0.5, 1.5):
            changed = parameters.scaled(where, name, factor)
            # A provider's share of recipients is its own demand: the others' stays as it is.
            touched = [*parameters.provider] if where == "sender" else [where]
            figures = {}
            for sender in SENDERS:
                again = {
                    each: run(changed, replies, each, sender, days, recipients, seed) for each in touched
                }
                figures[sender] = Figures.of([*(usual[sender] | again).values()])
            report()
            yield Assumed(where, name, factor, figures)
