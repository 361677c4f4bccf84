"""Control: what operators changed (pause, clock, segments, models), read by every worker, of no group."""

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas import codec, topics
from schemas.policy import BUILT_IN, Applied, Segment
from schemas.scopes import SCOPES, Scoped
from streams.engine.kafka import Client, KafkaUnavailable, bounds


@dataclass(frozen=True)
class Clock:
    """What time it is: the wall clock, one that runs from an origin at a speed, or one told by a plan."""

    mode: Literal["real", "scaled", "plan"] = "real"
    origin: int = 0
    wall: int = 0
    speed: float = 1.0
    plan_id: str | None = None

    def now(self, wall: int) -> int | None:
        """Show the time for a wall clock in UTC ms; None where only a plan can tell."""
        if self.mode == "real":
            return wall
        if self.mode == "scaled":
            return self.origin + round((wall - self.wall) * self.speed)
        return None

    @property
    def pace(self) -> float:
        """Seconds that pass in a second of the wall clock; 0 where the clock stands or a plan tells it."""
        return 1.0 if self.mode == "real" else self.speed if self.mode == "scaled" else 0.0


@dataclass(frozen=True)
class Deployed:
    """A send-time model in a role since a version of control, with all it takes to load it.

    `share` is that of recipients, of a canary. The artefact's three files are empty for the built-in one.
    """

    version: str
    since: int
    share: float
    card: bytes = field(repr=False)
    npz: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True)
class Intercept:
    """What is added to the log-odds of being active that a model tells, since a version of control."""

    model: str
    since: int
    log_odds: float


@dataclass(frozen=True)
class Control:
    """State of control as of one version, the next offset of `control.changes`.

    `paused` stops everything; `held` are scopes that are paused by themselves besides, each until its own
    resume. `full` are the UTC hours since 1970, by mailbox provider, for which decisions find no room.
    `segments` are all that were ever put in force, of which the last are; none: those of the policy files.
    `champions` are all models that ever chose hours, of which the last does; none: the policy's built-in one.
    `models` are the versions of all that ever had a role, in the order in which they got one.
    `intercepts` are the newest of each model that has one.
    """

    version: int = 0
    paused: bool = False
    clock: Clock = field(default_factory=Clock)
    held: frozenset[Scoped] = frozenset()
    segments: tuple[Applied, ...] = ()
    champions: tuple[Deployed, ...] = ()
    models: tuple[str, ...] = (BUILT_IN,)
    canary: Deployed | None = None
    shadow: Deployed | None = None
    intercepts: tuple[Intercept, ...] = ()
    full: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def after(self, offset: int, change: dict[str, Any]) -> "Control":
        """State after one more decoded ControlChange."""
        value, version = change["change"], offset + 1
        if "paused" in value:
            of = scope_of(value)
            if of is None:
                return replace(self, version=version, paused=value["paused"])
            held = self.held | {of} if value["paused"] else self.held - {of}
            return replace(self, version=version, held=held)
        if "role" in value:
            return self._with_model(version, **value)
        if "full" in value:
            return replace(self, version=version, full=self._with_full(value["full"]))
        if "log_odds" in value:
            others = tuple(each for each in self.intercepts if each.model != value["model"])
            return replace(self, version=version, intercepts=(*others, Intercept(since=version, **value)))
        if "segments" in value:
            segments = tuple(Segment(**each) for each in value["segments"])
            if self.segments and _alike(segments, self.segments[-1].segments):
                return replace(self, version=version)
            since = version if self.segments else 0  # the first say what was in force all along
            return replace(self, version=version, segments=(*self.segments, Applied(since, segments)))
        clock = Clock(
            value["mode"],
            _millis(value["origin"]),
            _millis(value["wall"]),
            value["speed"] if value["speed"] is not None else 1.0,
            value["plan_id"],
        )
        return replace(self, version=version, clock=clock)

    def intercept_of(self, model: str) -> float:
        """What is added to the log-odds that a model tells; 0 where nothing is."""
        return next((each.log_odds for each in self.intercepts if each.model == model), 0.0)

    @property
    def line(self) -> tuple[Deployed, ...]:
        """The champions that one may go back along, the present one last; none: the built-in one serves.

        A version that is promoted again is gone back to: what came after it the first time is forgotten.
        """
        line: tuple[Deployed, ...] = ()
        for each in self.champions:
            versions = [former.version for former in line]
            line = line[: versions.index(each.version)] if each.version in versions else line
            line = (*line, each) if each.card else ()
        return line

    def _with_model(self, since: int, role: str, version: str, **artefact: Any) -> "Control":
        """A model has one role at a time: it leaves the one that it had."""
        canary = None if self.canary is not None and self.canary.version == version else self.canary
        shadow = None if self.shadow is not None and self.shadow.version == version else self.shadow
        models = self.models if version in self.models else (*self.models, version)
        after = replace(self, version=since, models=models, canary=canary, shadow=shadow)
        model = Deployed(version, since, **artefact)
        if role == "champion":
            return replace(after, champions=(*self.champions, model))
        if role == "canary":
            return replace(after, canary=model)
        return replace(after, shadow=model) if role == "shadow" else after

    def _with_full(self, told: Mapping[str, Sequence[int]]) -> dict[str, frozenset[int]]:
        """The full hours; those that are as before are the same object: readers keep every state."""
        full = {provider: frozenset(hours) for provider, hours in told.items() if hours}
        return {
            name: hours if hours != self.full.get(name) else self.full[name] for name, hours in full.items()
        }

    def holds(self, scopes: Set[Scoped]) -> bool:
        """Whether what is in these scopes must not go now."""
        return self.paused or not self.held.isdisjoint(scopes)


def scope_of(pause: Mapping[str, Any]) -> Scoped | None:
    """What a decoded Pause is about; None: everything."""
    return next(((scope, pause[scope]) for scope in SCOPES if pause[scope] is not None), None)


def _alike(some: Sequence[Segment], others: Sequence[Segment]) -> bool:
    return [each.definition for each in some] == [each.definition for each in others]


def _millis(moment: Any) -> int:
    return 0 if moment is None else codec.millis(moment)


class ControlReader:
    """Follows `control.changes`. Not thread-safe: one owner polls it."""

    _START: Final = Control()

    def __init__(self, client: Client) -> None:
        self._states = [self._START]
        self._consumer: Consumer = client.follower()
        _, end = bounds(self._consumer, topics.CONTROL.name, 0)
        self._consumer.assign([TopicPartition(topics.CONTROL.name, 0, OFFSET_BEGINNING)])
        deadline = time.monotonic() + 30
        while self.poll(0.05).version < end:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"{topics.CONTROL.name} could not be read to its end within 30 s")

    def poll(self, timeout: float = 0.0) -> Control:
        """Take what has come and return the latest state. Raises `KafkaUnavailable`."""
        while True:
            message = self._consumer.poll(timeout)
            if message is None:
                return self._states[-1]
            error = message.error()
            if error is not None:
                raise KafkaUnavailable(f"reading {topics.CONTROL.name}: {error}")
            change = codec.decode(topics.CONTROL.name, bytes(message.value() or b""))
            self._states.append(self._states[-1].after(message.offset() or 0, change))
            timeout = 0.0

    def at(self, version: int) -> Control:
        """State as of a version that has been read."""
        versions = [state.version for state in self._states]
        return self._states[bisect_right(versions, version) - 1]

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()
