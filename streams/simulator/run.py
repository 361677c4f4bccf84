"""Senders against mailbox providers in virtual time: ours, one of a fixed rate, and one that only retries."""

from typing import Final, Literal

from models.lanes import Bucket
from schemas.lanes import Lane, WarmUp
from schemas.replies import Replies
from schemas.units import Rate
from streams.simulator import heedless, ours
from streams.simulator.demand import BURST_DAYS, Demand, Outcome
from streams.simulator.parameters import Parameters
from streams.simulator.provider import MailboxProvider

SenderName = Literal["ours", "fixed rate", "retries only"]
SENDERS: Final[tuple[SenderName, ...]] = ("ours", "fixed rate", "retries only")
_FIRST_DAY: Final = 2  # so many times less than a usual day's goes on the first


def lane_of(parameters: Parameters, provider: str, days: int, recipients: int) -> Lane:
    """The lane that ours and the fixed rate are set to: some times the mean demand; ours warms up to it."""
    sender = parameters.sender
    people = recipients * parameters.provider[provider].share.value
    bursts = sum(day < days for day in BURST_DAYS) / days * sender.burst_share.value
    per_day = people * (sender.messages_a_day.value + bursts)
    rate = max(per_day * sender.rate_above_mean.value / 86_400, 1 / 3600)
    return Lane(
        rate=Rate(rate),
        reserve=min(0.5, 2 * sender.transactional.value),
        warm_up=WarmUp(first_day=max(50, round(per_day / _FIRST_DAY))),
    )


def run(
    parameters: Parameters, replies: Replies, provider: str, days: int, recipients: int, seed: int
) -> dict[SenderName, Outcome]:
    """Have each sender send what a provider's recipients are to get in so many days, until the last ends."""
    demand = Demand.of(parameters, provider, days, recipients, seed)
    lane = lane_of(parameters, provider, days, recipients)

    def mailbox() -> MailboxProvider:
        return MailboxProvider(provider, parameters.provider[provider], days + 2, seed)

    return {
        "ours": ours.send(demand, mailbox(), lane, replies),
        "fixed rate": heedless.send(demand, mailbox(), Bucket.of(lane.rate, lane.burst)),
        "retries only": heedless.send(demand, mailbox(), None),
    }
