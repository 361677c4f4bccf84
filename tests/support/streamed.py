"""Weeks of a few recipients' events through DECIDE: the rows that it kept, and what it asked its model."""

from dataclasses import dataclass

import numpy as np
import pytest

from models.sendtime.activity import Activity
from models.sendtime.model import Chosen, HourModel, Question
from schemas import topics
from schemas.profile import HOUR_MS, ROW, WEEK_HOURS
from tests.support.cuts import HOME, START, Fast, Planned, World

FIRST = START // HOUR_MS
ZONES = (b"America/New_York", b"Europe/Vienna", b"Asia/Kolkata", b"Australia/Adelaide")
_WEEKS = 8
_HOURS = 90  # with events
_MOVES = FIRST + 4 * WEEK_HOURS

_Event = tuple[int, int, bytes]  # whose, UTC ms, zone


@dataclass(frozen=True)
class Streamed:
    """`rows` are those right after a recipient's active hour, by both; `asked` all that `choose` was."""

    events: Activity
    rows: dict[tuple[int, int], np.void]
    asked: list[Question]


def streamed(monkeypatch: pytest.MonkeyPatch, seed: int, hours: int) -> Streamed:
    """Eight weeks, with a cut for as many `hours` at a time.

    In them clocks go forward in New York and Vienna and back in Adelaide; the first recipient moves from New
    York to Vienna, the last is away for five weeks.
    """
    asked: list[Question] = []
    choose = HourModel.choose

    def watched(model: HourModel, question: Question) -> Chosen:
        asked.append(question)
        return choose(model, question)

    monkeypatch.setattr(HourModel, "choose", watched)
    world, fast = World(), Fast()
    fast.handle(world.cut(0, [*map(_consents, HOME), *map(_lives, HOME, ZONES)]))
    told, moved = _events(seed), False
    rows: dict[tuple[int, int], np.void] = {}
    of_cut = np.array([at // HOUR_MS // hours for _, at, _ in told])
    for number in np.unique(of_cut).tolist():
        some = [told[i] for i in np.flatnonzero(of_cut == number)]
        if not moved and some[0][1] >= _MOVES * HOUR_MS:
            moved = True
            fast.handle(world.cut(_MOVES * HOUR_MS - world.now, [_lives(HOME[0], ZONES[1])]))
        now = (some[-1][1] // HOUR_MS + 1) * HOUR_MS - 1
        fast.handle(world.cut(now - world.now, [_planned(now, *each) for each in some]))
        kept = {key: np.frombuffer(row, ROW)[0] for key, row in fast.rows().items()}
        latest = {who: at // HOUR_MS for who, at, _ in some}
        rows |= {(who, hour): kept[HOME[who]] for who, hour in latest.items()}
    recipient, at, zone = zip(*told, strict=True)
    return Streamed(Activity.of(np.array(recipient), np.array(at), np.array(zone, "S32")), rows, asked)


def _events(seed: int) -> list[_Event]:
    """Events in order of time, one to three in each of a recipient's hours."""
    draw = np.random.default_rng(seed)
    hour = FIRST + np.sort(draw.choice(np.arange(1, _WEEKS * WEEK_HOURS), _HOURS, replace=False))
    who = draw.integers(0, len(HOME), (_HOURS, 2))
    who[: len(HOME)] = np.arange(len(HOME))[:, None]  # when they were first active tells them apart
    away = (hour > FIRST + WEEK_HOURS) & (hour < FIRST + 6 * WEEK_HOURS)
    who[away] = np.where(who[away] == len(HOME) - 1, 0, who[away])
    events = (
        (
            whose,
            now * HOUR_MS + int(draw.integers(0, HOUR_MS)),
            ZONES[1 if now >= _MOVES and not whose else whose],
        )
        for now, some in zip(hour.tolist(), who.tolist(), strict=True)
        for whose in {*some}
        for _ in range(draw.integers(1, 4))
    )
    return sorted(events, key=lambda event: event[1])


def _consents(who: str) -> Planned:
    return Planned(topics.CONSENT.name, who, 0, {"purpose": "profiling", "state": "granted", "version": 1})


def _lives(who: str, zone: bytes) -> Planned:
    fields = {"zone": zone.decode(), "locale": "en-US", "provider": None, "place": None}
    return Planned(topics.ATTRIBUTES.name, who, 0, fields)


def _planned(now: int, recipient: int, at: int, zone: bytes) -> Planned:
    """A view or a purchase, which weigh one."""
    if at % 2:
        return Planned(topics.CLICKS.name, HOME[recipient], now - at, {"kind": "view"}, tick=1)
    return Planned(topics.PURCHASES.name, HOME[recipient], now - at, {"amount": 100}, tick=1)
