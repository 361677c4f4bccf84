"""Changing control: what `streams.engine.control` reads, written to `control.changes`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas import codec, topics
from schemas.policy import Segment
from schemas.scopes import SCOPES, Scoped
from streams import reading
from streams.engine.control import Clock, Control, ControlReader, scope_of
from streams.engine.cut import Out
from streams.engine.kafka import Client, bytes_of


@dataclass(frozen=True)
class Change:
    """One change as it was made: the state that it led to, when (UTC ms), who, why."""

    state: Control
    what: "What"
    at: int
    who: str
    why: str


@dataclass(frozen=True)
class Pause:
    """Stopping or resuming: everything, or one scope."""

    paused: bool
    of: Scoped | None = None


Role = Literal["champion", "canary", "shadow", "none"]


@dataclass(frozen=True)
class ModelChange:
    """A send-time model that takes a role or gives it up; without an artefact where none is needed."""

    version: str
    role: Role
    share: float = 0.0
    card: bytes = field(default=b"", repr=False)
    npz: bytes = field(default=b"", repr=False)
    signature: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class ModelIntercept:
    """What is added to the log-odds of being active that a model tells from now on, in logits."""

    model: str
    log_odds: float


@dataclass(frozen=True)
class FullHours:
    """The hours for which decisions find no room, UTC hours since 1970, by mailbox provider."""

    full: Mapping[str, frozenset[int]]


What = Pause | Clock | tuple[Segment, ...] | ModelChange | ModelIntercept | FullHours


def current(client: Client) -> Control:
    """The latest state. Raises `KafkaUnavailable`."""
    reader = ControlReader(client)
    try:
        return reader.poll()
    finally:
        reader.close()


def now(client: Client) -> int:
    """The deployment's time, UTC ms; the wall clock's where only a plan tells. Raises `KafkaUnavailable`."""
    wall = _wall()
    shown = current(client).clock.now(wall)
    return wall if shown is None else shown


def set_paused(client: Client, pause: Pause, who: str, why: str) -> int:
    """Stop or resume sending; returns the version of control, which the next cuts carry.

    Raises `KafkaUnavailable`: the change may or may not have been written; `opportune control log` tells.
    """
    return _write(client, pause_record(pause, who, why, _wall()))


def set_clock(client: Client, clock: Clock, who: str, why: str) -> int:
    """Set the clock of every role; returns the version of control. Raises as `set_paused`."""
    return _write(client, clock_record(clock, who, why, _wall()))


def set_segments(client: Client, segments: Sequence[Segment], who: str, why: str) -> int:
    """Put definitions in force; returns the version of control. Raises as `set_paused`."""
    return _write(client, segments_record(segments, who, why, _wall()))


def set_model(client: Client, change: ModelChange, who: str, why: str) -> int:
    """Give a model its role; returns the version of control. Raises as `set_paused`."""
    return _write(client, model_record(change, who, why, _wall()))


def set_intercept(client: Client, change: ModelIntercept, who: str, why: str) -> int:
    """Shift the log-odds that a model tells; returns the version of control. Raises as `set_paused`."""
    return _write(client, intercept_record(change, who, why, _wall()))


def set_full(client: Client, change: FullHours, who: str, why: str) -> int:
    """Tell decisions which hours are full; returns the version of control. Raises as `set_paused`."""
    return _write(client, full_record(change, who, why, _wall()))


def pause_record(pause: Pause, who: str, why: str, at: int) -> bytes:
    """Wire format of a pause or its end, made at `at` UTC ms."""
    named: dict[str, Any] = {} if pause.of is None else {pause.of[0]: pause.of[1]}
    fields = {"paused": pause.paused} | dict.fromkeys(SCOPES) | named
    return _encoded(("opportune.Pause", fields), who, why, at)


def clock_record(clock: Clock, who: str, why: str, at: int) -> bytes:
    """Wire format of a clock setting, made at `at` UTC ms; fields that the mode does not read are null."""
    scaled = clock.mode == "scaled"
    setting = {
        "mode": clock.mode,
        "origin": clock.origin if scaled else None,
        "wall": clock.wall if scaled else None,
        "speed": clock.speed if scaled else None,
        "plan_id": clock.plan_id,
    }
    return _encoded(("opportune.ClockSetting", setting), who, why, at)


def segments_record(segments: Sequence[Segment], who: str, why: str, at: int) -> bytes:
    """Wire format of segments put in force, made at `at` UTC ms."""
    written = [segment.model_dump() for segment in segments]
    return _encoded(("opportune.Segments", {"segments": written}), who, why, at)


def model_record(change: ModelChange, who: str, why: str, at: int) -> bytes:
    """Wire format of a model's role, given at `at` UTC ms."""
    return _encoded(("opportune.ModelChange", vars(change)), who, why, at)


def intercept_record(change: ModelIntercept, who: str, why: str, at: int) -> bytes:
    """Wire format of a model's intercept, set at `at` UTC ms."""
    return _encoded(("opportune.ModelIntercept", vars(change)), who, why, at)


def full_record(change: FullHours, who: str, why: str, at: int) -> bytes:
    """Wire format of the full hours, worked out at `at` UTC ms."""
    full = {provider: sorted(hours) for provider, hours in sorted(change.full.items())}
    return _encoded(("opportune.FullHours", {"full": full}), who, why, at)


def history(client: Client) -> Iterator[Change]:
    """Every change ever made, oldest first. Raises `KafkaUnavailable`."""
    consumer = client.reader()
    state = Control()
    for part in reading.parts(consumer, topics.CONTROL.name):
        for message in reading.messages(consumer, part):
            value = bytes_of(message.value()) or b""
            made = change_of(state, reading.offset_of(message), value)
            state = made.state
            yield made
    consumer.close()


def change_of(before: Control, offset: int, value: bytes) -> Change:
    """Read a record of `control.changes` that follows a state. Raises as `codec.decode`."""
    fields = codec.decode(topics.CONTROL.name, value)
    at = codec.millis(fields["changed_at"])
    state, change = before.after(offset, fields), fields["change"]
    what: What
    if "paused" in change:
        what = Pause(change["paused"], scope_of(change))
    elif "role" in change:
        what = ModelChange(**change)
    elif "log_odds" in change:
        what = ModelIntercept(**change)
    elif "full" in change:
        what = FullHours(state.full)
    else:
        what = state.segments[-1].segments if "segments" in change else state.clock
    return Change(state, what, at, fields["changed_by"], fields["why"])


def _encoded(change: tuple[str, dict[str, Any]], who: str, why: str, at: int) -> bytes:
    record = {"changed_at": at, "changed_by": who, "why": why, "change": change}
    return codec.encode(topics.CONTROL.name, record)


def _write(client: Client, value: bytes) -> int:
    return reading.produce(client, [Out(topics.CONTROL.name, None, value, 0)])[0] + 1


def _wall() -> int:
    return time.time_ns() // 1_000_000
