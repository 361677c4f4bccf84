"""A campaign tried on what has happened: the journal's cuts decided again, sealed, under another policy."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from schemas import codec, topics
from schemas.policy import Campaign, Policy, PolicyError, meant
from schemas.profile import DAY_MS, HOUR_MS
from streams.agents.decide import Decider
from streams.engine import sealed
from streams.engine.control import Control
from streams.engine.cut import Handled, Turn
from streams.engine.journal import Entry, last_entry
from streams.engine.line import Spec
from streams.serving import Trusted

_FIRST: Final = 10

Progress = Callable[[int], object]  # told how many more cuts are done


@dataclass
class Withheld:
    """Decisions of one reason, whom they concern, and what that gate would have needed."""

    decisions: int = 0
    recipients: set[str] = field(default_factory=set)
    needed: Counter[str] = field(default_factory=Counter)


@dataclass
class Trial:
    """What a campaign would have done in a stretch of stream time, UTC ms."""

    campaign: str
    policy: str
    since: int
    until: int
    cuts: int = 0
    decisions: int = 0
    reached: Counter[str] = field(default_factory=Counter)  # messages by recipient
    withheld: dict[str, Withheld] = field(default_factory=dict)  # by reason
    days: Counter[int] = field(default_factory=Counter)  # messages by UTC midnight before they are due
    hours: Counter[int] = field(default_factory=Counter)  # by UTC hour of day
    outranks: Counter[str] = field(default_factory=Counter)  # decisions of other campaigns that would lose
    first: list[tuple[str, int]] = field(default_factory=list)  # recipients and when, the first of them

    def add(self, recipient: str, decision: dict[str, Any]) -> None:
        """Take in a decision of any campaign."""
        if decision["campaign"] != self.campaign:
            if decision["outranked_by"] == self.campaign:
                self.outranks[decision["campaign"]] += 1
            return
        self.decisions += 1
        if decision["outcome"] == "withheld":
            reason = self.withheld.setdefault(decision["reason"], Withheld())
            reason.decisions += 1
            reason.recipients.add(recipient)
            failed = next(gate for gate in decision["gates"] if not gate["passed"])
            reason.needed[failed["needed"]] += 1
            return
        due_at = codec.millis(decision["due_at"])
        self.reached[recipient] += 1
        self.days[due_at // DAY_MS * DAY_MS] += 1
        self.hours[due_at // HOUR_MS % 24] += 1
        if len(self.first) < _FIRST:
            self.first.append((recipient, due_at))


def total_cuts(spec: Spec, partitions: int) -> tuple[int, int]:
    """How many cuts the journals have, and the latest `now` of them, UTC ms; 0 and 0 before the first."""
    consumer = spec.client.reader()
    try:
        found = [last_entry(consumer, spec.journal, partition) for partition in range(partitions)]
    finally:
        consumer.close()
    entries: list[Entry] = [each[0] for each in found if each is not None]
    return sum(entry.number for entry in entries), max((entry.now for entry in entries), default=0)


def campaign_of(policy: Policy, name: str) -> Campaign:
    """The campaign of this name. Raises PolicyError."""
    names = [campaign.name for campaign in policy.campaigns]
    if name not in names:
        raise PolicyError(f"there is no campaign {name}{meant(name, names)}")
    return policy.campaigns[names.index(name)]


def run(spec: Spec, policy: Policy, partitions: int, trusted: Trusted, trial: Trial, done: Progress) -> Trial:
    """Decide the journal's cuts again under a policy and count what the trial's campaign does.

    Cuts before the trial's time are decided too, for their rows. Nothing is produced and no group is joined.
    Raises `NotReplayable` where retention has taken the beginning.
    """
    tried = replace(spec, handler=_Sealed(Decider(policy, partitions, trusted)))
    for partition in range(partitions):
        for cut, _, handled, _ in sealed.replay(tried, partition):
            done(1)
            if trial.since < cut.now <= trial.until:
                trial.cuts += 1
                for recipient, decision in _decisions(handled, trial.campaign):
                    trial.add(recipient, decision)
    return trial


@dataclass
class _Sealed:
    """DECIDE by the policy files alone, whatever segments were put in force then.

    Its messages count as confirmed when they are released: no report of them will ever come.
    """

    decider: Decider

    def policy(self, control: Control) -> str:
        return self.decider.policy(_of_files(control))

    def handle(self, turn: Turn) -> list[Handled]:
        return self.decider.handle(
            [(replace(cut, history=True, control=_of_files(cut.control)), table) for cut, table in turn]
        )

    def due_at(self, keys: Sequence[bytes], rows: np.ndarray, after: int, control: Control) -> np.ndarray:
        return self.decider.due_at(keys, rows, after, _of_files(control))

    def due_by(self, control: Control) -> object:
        return self.decider.due_by(_of_files(control))

    def standing(self, rows: np.ndarray) -> dict[str, int]:
        return self.decider.standing(rows)


def _of_files(control: Control) -> Control:
    return replace(control, segments=())


def _decisions(handled: Handled, campaign: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Decisions in which a campaign is named; other records are not decoded."""
    name = campaign.encode()
    for out in handled.outputs:
        if out.topic == topics.AUDIT.name and out.value is not None and name in out.value:
            record = codec.decode(topics.AUDIT.name, out.value)
            if "gates" in record["body"] and "cause" in record["body"]:
                yield record["recipient_id"], record["body"]


def share_reached(trial: Trial) -> float:
    """Share of the decisions that would have sent a message; 0 where there is none."""
    return trial.reached.total() / trial.decisions if trial.decisions else 0.0


def ranked(trial: Trial) -> list[tuple[str, Withheld]]:
    """Reasons that held messages back, the most frequent first."""
    return sorted(trial.withheld.items(), key=lambda each: (-each[1].decisions, each[0]))
