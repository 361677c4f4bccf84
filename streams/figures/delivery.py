"""What DELIVER's records give: what became of commands, and how fast each lane was."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas import codec
from schemas.dispatch import LAYOUTS, State
from schemas.lanes import Lane, Lanes
from streams.explain import Record
from streams.figures.times import DAY_MS, HOUR_MS

_STEPS_MOST: Final = 24
# None is finer than an hour: of a slow lane one message in a shorter step would look like too many.
_STEPS: Final = (HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS)
_ENDS: Final = ("delivered", "bounced", "expired", "recalled", "unknown")
_WAITED: Final = ("delivered", "bounced", "expired")


@dataclass
class Outcomes:
    """One campaign's commands, and what became of them; `history` was recorded and never to be sent.

    commands = delivered + bounced + expired + recalled + unknown + waiting + in_flight, where the topics are
    whole. `deferred` counts attempts that a server put off, `duplicate` commands that had come before:
    neither is an end.
    """

    name: str
    history: int = 0
    commands: int = 0
    delivered: int = 0
    bounced: int = 0
    expired: int = 0
    recalled: int = 0
    unknown: int = 0
    waiting: int = 0
    in_flight: int = 0
    deferred: int = 0
    duplicate: int = 0


@dataclass(frozen=True)
class LaneFigures:
    """One lane: the rate set for it, and what went; hours and waits are of stream time.

    `sent` counts attempts that a server answered, at the time of its answer: each took its turn in the
    lane. `busiest_hour` is the most of them in any sixty minutes, `per_step` those of each step.
    `longest_wait_ms` is from a message's release until it was delivered, bounced or expired, tries and
    pauses between them included, or until `Pacing.now` if it still waits; None where there is no message.
    """

    lane: str
    rate_per_hour: float
    sent: int
    busiest_hour: int
    waiting: int
    longest_wait_ms: int | None
    per_step: list[int]


@dataclass(frozen=True)
class Pacing:
    """All lanes that had a message to send. `times` are where the steps begin, UTC ms, `step_ms` apart.

    `now` is the stream time that DELIVER had reached, UTC ms.
    """

    now: int | None
    step_ms: int
    times: list[int]
    lanes: list[LaneFigures]


@dataclass(frozen=True)
class Command:
    """A live command: whose and where it goes, when it was released (stream time) and written (brokers')."""

    campaign: str
    lane: str
    released_at: int
    written_at: int


@dataclass(frozen=True)
class End:
    """How a live command ended, when (stream time), and when its audit record was written (brokers')."""

    kind: str
    at: int
    written_at: int


@dataclass
class Deliveries:
    """Figures of the commands, of DELIVER's audit records, and of its table; each may come first."""

    now: int | None = None
    commands: dict[str, Command] = field(default_factory=dict)  # live ones, by dispatch
    ends: dict[str, End] = field(default_factory=dict)
    _outcomes: dict[str, Outcomes] = field(default_factory=dict)
    _answers: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # by lane
    _claimed: set[str] = field(default_factory=set)

    def reached(self, now: int) -> None:
        """Take in the `now` of a cut of DELIVER."""
        self.now = now if self.now is None else max(self.now, now)

    def command(self, record: Record, written_at: int) -> None:
        """Take in a decoded command; the first of a dispatch counts."""
        if not record["history"]:
            released_at = codec.millis(record["released_at"])
            made = Command(record["campaign"], record["lane"], released_at, written_at)
            self.commands.setdefault(record["dispatch_id"], made)

    def delivery(self, body: Record, written_at: int) -> None:
        """Take in the body of a decoded audit record of DELIVER."""
        kind, at = body["kind"], codec.millis(body["occurred_at"])
        some = self._outcomes.setdefault(body["campaign"], Outcomes(body["campaign"]))
        setattr(some, kind, getattr(some, kind) + 1)
        if kind in _ENDS:
            self.ends[body["dispatch_id"]] = End(kind, at, written_at)
        if body["code"] is not None:
            self._answers[body["lane"]].append(at)

    def table(self, rows: Mapping[bytes, bytes]) -> None:
        """Take in DELIVER's table, its rows by key. Raises `NewerRow` if a newer program wrote any."""
        found = LAYOUTS.read(list(rows.values()))
        claimed = (found["state"] == State.CLAIMED).tolist()
        self._claimed = {key.decode() for key, is_claimed in zip(rows, claimed, strict=True) if is_claimed}

    def outcomes(self) -> list[Outcomes]:
        """By name of campaign."""
        found = {name: Outcomes(**vars(some)) for name, some in self._outcomes.items()}
        for dispatch, command in self.commands.items():
            some = found.setdefault(command.campaign, Outcomes(command.campaign))
            some.commands += 1
            if dispatch not in self.ends:
                some.in_flight += dispatch in self._claimed
                some.waiting += dispatch not in self._claimed
        return sorted(found.values(), key=lambda some: some.name)

    def pacing(self, lanes: Lanes) -> Pacing:
        """Each lane's figures beside what `lanes` sets for it."""
        waits: defaultdict[str, list[int]] = defaultdict(list)
        waiting: defaultdict[str, int] = defaultdict(int)
        for dispatch, command in self.commands.items():
            end = self.ends.get(dispatch)
            if end is not None:
                if end.kind in _WAITED:
                    waits[command.lane].append(end.at - command.released_at)
            elif dispatch not in self._claimed:
                waiting[command.lane] += 1
                if self.now is not None:
                    waits[command.lane].append(max(0, self.now - command.released_at))
        times = {name: np.sort(np.array(found, np.int64)) for name, found in self._answers.items()}
        step, begins = steps(times.values())
        names = sorted(times.keys() | {command.lane for command in self.commands.values()})
        none = np.array([], np.int64)
        return Pacing(
            self.now,
            step,
            begins,
            [
                _lane(
                    name,
                    lanes.of(name),
                    times.get(name, none),
                    waiting[name],
                    max(waits[name], default=None),
                    (step, begins),
                )
                for name in names
            ],
        )

    def waits(self) -> list[int]:
        """Milliseconds of stream time from each delivered message's release to the server's answer."""
        return [
            end.at - self.commands[dispatch].released_at
            for dispatch, end in self.ends.items()
            if end.kind == "delivered" and dispatch in self.commands
        ]


def _lane(
    name: str,
    setting: Lane,
    times: np.ndarray,
    waiting: int,
    longest: int | None,
    steps: tuple[int, list[int]],
) -> LaneFigures:
    step, begins = steps
    counts = np.bincount((times - begins[0]) // step, minlength=len(begins)) if begins else times
    return LaneFigures(
        name,
        setting.rate * 3600,
        len(times),
        busiest(times, HOUR_MS),
        waiting,
        longest,
        counts.tolist(),
    )


def busiest(times: np.ndarray, length: int) -> int:
    """Return the most of the sorted `times` that lie in any stretch of `length`, its end excluded."""
    after = np.searchsorted(times, times + length, side="left")
    return int((after - np.arange(len(times))).max(initial=0))


def steps(times: Iterable[np.ndarray]) -> tuple[int, list[int]]:
    """Return a step in ms and where the steps begin that hold all of the sorted `times`, at most 24.

    What would take more than 24 weeks is told by the week nevertheless.
    """
    some = [each for each in times if len(each)]
    if not some:
        return HOUR_MS, []
    first, last = min(int(each[0]) for each in some), max(int(each[-1]) for each in some)
    step = next((step for step in _STEPS if last // step - first // step < _STEPS_MOST), _STEPS[-1])
    return step, [number * step for number in range(first // step, last // step + 1)]
