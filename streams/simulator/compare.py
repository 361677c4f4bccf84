"""Senders beside each other: over seeds, and over every assumption halved and raised by half."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from schemas.replies import Replies
from streams.simulator.demand import Outcome
from streams.simulator.parameters import Parameters
from streams.simulator.run import SENDERS, SenderName, run

Report = Callable[[], None]
By = dict[str, Outcome]  # by provider
Each = dict[SenderName, Outcome]


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
            sum(each.urgent_wait_ms for each in outcomes)
            / max(1, sum(each.urgent_taken for each in outcomes)),
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
    """One assumption changed: where it stands, its name there, its factor, and what each sender then got.

    `figures` are by seed. Every second assumption is held `aside`: nothing is to be tuned by what it gives.
    """

    where: str
    name: str
    factor: float
    aside: bool
    figures: list[dict[SenderName, Figures]]

    def not_better_than(self) -> list[SenderName]:
        """The other senders that ours is not better than in everything, with some seed."""
        return [
            other
            for other in SENDERS[1:]
            if not all(each["ours"].better_than(each[other]) for each in self.figures)
        ]


def compare(
    parameters: Parameters, replies: Replies, days: int, recipients: int, seed: int, report: Report
) -> dict[SenderName, By]:
    """Every sender with every provider; `report` is called after each provider."""
    found: dict[SenderName, By] = {sender: {} for sender in SENDERS}
    for provider in parameters.provider:
        for sender, outcome in run(parameters, replies, provider, days, recipients, seed).items():
            found[sender][provider] = outcome
        report()
    return found


def sweep(
    parameters: Parameters, replies: Replies, days: int, recipients: int, seeds: int
) -> Iterator[Assumed]:
    """Every assumption halved and raised by half, one at a time, with each seed, on all cores.

    What an assumption cannot touch is not run again. They come one after another, as `changes` has them.
    """
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as cores:

        def begun(changed: Parameters, providers: Iterable[str]) -> list[dict[str, Future[Each]]]:
            return [
                {p: cores.submit(run, changed, replies, p, days, recipients, seed) for p in providers}
                for seed in range(seeds)
            ]

        usual = begun(parameters, parameters.provider)
        # A provider's share of recipients is its own demand: the others' stays as it is.
        cases = [
            (change, begun(parameters.scaled(*change), parameters.touched(change[0])))
            for change in parameters.changes()
        ]
        try:
            for (where, name, factor), again in cases:
                figures = [
                    _figures([each.result() for each in (usual[seed] | again[seed]).values()])
                    for seed in range(seeds)
                ]
                yield Assumed(where, name, factor, parameters.aside(where, name), figures)
        finally:
            cores.shutdown(cancel_futures=True)  # who has heard enough does not wait for the rest


def _figures(providers: Sequence[Each]) -> dict[SenderName, Figures]:
    return {sender: Figures.of([each[sender] for each in providers]) for sender in SENDERS}
