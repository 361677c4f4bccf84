"""Activity out of events, and the profile at any moment of it: the integers that the stream holds."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from models import profile, zones
from models.sendtime.activity import GUARD, Activity, Windows
from models.sendtime.histories import UNSEEN
from schemas.profile import HOUR_MS, MINUTE_MS, WEEK_HOURS, WEIGHT_ONE
from tests.support.streamed import FIRST as HOUR
from tests.support.streamed import ZONES, streamed


def hours_of(*times: str) -> np.ndarray:
    return np.array([round(datetime.fromisoformat(each).timestamp()) // 3600 for each in times])


def activity(recipient: list[int], hour: np.ndarray, zone: bytes | list[bytes] = b"UTC") -> Activity:
    names = [zone] * len(recipient) if isinstance(zone, bytes) else zone
    return Activity.of(np.array(recipient, np.int64), np.asarray(hour) * HOUR_MS, np.array(names, "S32"))


def columns_of(one: Activity) -> list[list[object]]:
    return [each.tolist() for each in (one.recipient, one.hour, one.local, one.zone)]


def test_an_hour_counts_once_however_many_events_it_has() -> None:
    at = HOUR * HOUR_MS + np.array([0, 1, 59 * MINUTE_MS, 60 * MINUTE_MS - 1, 60 * MINUTE_MS])
    found = Activity.of(np.zeros(5, np.int64), at, np.full(5, b"UTC", "S32"))
    assert found.hour.tolist() == [HOUR, HOUR + 1]
    both = Activity.of(np.array([0, 1]), np.array([at[0], at[0]]), np.full(2, b"UTC", "S32"))
    assert both.recipient.tolist() == [0, 1]


def test_the_order_of_events_is_of_no_consequence() -> None:
    draw = np.random.default_rng(1)
    recipient = draw.integers(0, 20, 3000)
    at = draw.integers(HOUR * HOUR_MS, (HOUR + 300) * HOUR_MS, 3000)
    zone = np.array(ZONES, "S32")[draw.integers(0, 4, 3000)]
    found = Activity.of(recipient, at, zone)
    assert (np.diff(found.recipient * 10**7 + found.hour) > 0).all()
    for _ in range(3):
        other = draw.permutation(3000)
        assert columns_of(Activity.of(recipient[other], at[other], zone[other])) == columns_of(found)


def test_an_hour_has_the_zone_of_its_first_event() -> None:
    at = HOUR * HOUR_MS + np.array([7, 5, 6])
    zone = np.array([b"Europe/Vienna", b"Asia/Kolkata", b"UTC"], "S32")
    found = Activity.of(np.zeros(3, np.int64), at, zone)
    assert found.zone.tolist() == [b"Asia/Kolkata"]
    assert found.local.tolist() == [(HOUR * 60 + 330) // 60]


def test_each_hour_is_read_on_its_own_clock() -> None:
    zone = [b"America/New_York", b"Europe/Vienna", b"+02:00", b"-0530", b"+00:00", b"UTC", b"Asia/Kolkata"]
    found = activity([*range(7)], np.full(7, hours_of("2018-07-02T12:00Z")[0]), zone)
    midnight = hours_of("2018-07-02T00:00Z")[0]
    assert (found.local - midnight).tolist() == [8, 14, 14, 6, 12, 12, 17]


def test_an_offset_stays_what_it_is_when_zones_change_theirs() -> None:
    around = hours_of("2018-10-28T00:00Z")[0] + np.arange(4)  # Vienna's clocks go back at 01:00 UTC
    fixed = activity([0] * 4, around, b"+02:00")
    assert (fixed.local - around).tolist() == [2, 2, 2, 2]
    assert (activity([0] * 4, around, b"Europe/Vienna").local - around).tolist() == [2, 1, 1, 1]


def test_a_visit_begins_where_the_hour_before_was_idle() -> None:
    found = activity([0, 0, 0, 0, 1, 1, 2], HOUR + np.array([0, 1, 3, 4, 5, 6, 7]))
    assert found.visits.tolist() == [0, 2, 4, 6]
    assert found.counts.tolist() == [1, 2, 3, 4, 1, 2, 1]
    assert found.is_active(np.array([[0], [1]]), HOUR + np.array([1, 5])).tolist() == [
        [True, False],
        [False, True],
    ]


def test_nobody_has_no_visits_and_no_histories() -> None:
    nobody = activity([], np.array([], np.int64))
    assert not len(nobody.visits)
    assert nobody.histories(nobody.visits).active.shape == (0, WEEK_HOURS)
    assert not len(Windows.of(nobody, nobody.visits, 24))


@pytest.mark.parametrize("hours", [1, 12])
@pytest.mark.parametrize("seed", [1, 2])
def test_histories_are_the_integers_of_the_streams_rows(
    monkeypatch: pytest.MonkeyPatch, seed: int, hours: int
) -> None:
    told = streamed(monkeypatch, seed, hours)
    place = {key: i for i, key in enumerate(zip(*columns_of(told.events)[:2], strict=True))}
    which = np.random.default_rng(seed).permutation([place[key] for key in told.rows])
    known = told.events.histories(which)
    for i, n in enumerate(which.tolist()):
        row = told.rows[int(told.events.recipient[n]), int(told.events.hour[n])]
        assert known.active[i].tolist() == row["active"].tolist()
        assert known.last[i] == row["last"].max() // HOUR_MS
        assert known.first[i] == row["first"] // HOUR_MS
        assert known.zone[i] == row["zone"]
    assert len(which) > 80
    assert (known.active % WEIGHT_ONE != 0).any()  # some had faded


@pytest.mark.parametrize("hours", [1, 12])
def test_histories_are_what_the_stream_asks_its_model_by(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    told = streamed(monkeypatch, 3, hours)
    known = told.events.histories(np.arange(len(told.events)))
    moments = zip(known.first.tolist(), known.last.tolist(), strict=True)
    place = {moment: i for i, moment in enumerate(moments)}
    compared = set()
    for question in told.asked:
        some = question.histories
        # When time alone triggers in a later week, weights have faded.
        same_week = profile.week(some.last) == profile.week(question.now)
        for i in np.flatnonzero(same_week).tolist():
            n = place[int(some.first[i]), int(some.last[i])]
            assert some.active[i].tolist() == known.active[n].tolist()
            assert some.zone[i] == known.zone[n] or question.now[i] > known.last[n]
            compared.add(n)
    assert len(compared) > 0.9 * len(told.events)


def test_weights_halve_in_ninety_days() -> None:
    found = activity([0, 0, 0], HOUR + np.array([0, 90 * 24, 91 * 24]), b"UTC")
    known = found.histories(np.array([0, 1]))
    slot = int(zones.week_slot(found.local)[0])
    assert known.active[0].sum() == WEIGHT_ONE
    assert known.active[1][slot] == pytest.approx(WEIGHT_ONE / 2, abs=8)
    assert known.active[1].sum() == known.active[1][slot] + WEIGHT_ONE


@pytest.mark.parametrize("slots", [24, 168])
@pytest.mark.parametrize(
    ("zone", "day", "length"),
    [
        ("America/New_York", "2018-03-11", 23),
        ("America/New_York", "2018-11-04", 25),
        ("Europe/Vienna", "2018-03-25", 23),
        ("Europe/Vienna", "2018-10-28", 25),
        ("Asia/Kolkata", "2018-03-25", 24),
        ("Australia/Adelaide", "2018-04-01", 25),
    ],
)
def test_windows_follow_the_wall_clock_through_days_of_23_and_25_hours(
    slots: int, zone: str, day: str, length: int
) -> None:
    clock = ZoneInfo(zone)
    midnight = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=clock)
    visit = int(midnight.timestamp()) // 3600 - GUARD
    made = activity([0, 0], np.array([visit, visit + GUARD + 20]), zone.encode())
    windows = Windows.of(made, np.array([0]), slots)
    assert windows.hours[0].tolist() == [*range(visit + GUARD, visit + GUARD + slots)]
    told = [datetime.fromtimestamp(hour * 3600, UTC).astimezone(clock) for hour in windows.hours[0].tolist()]
    weekday, hour = divmod(zones.week_slot(windows.local[0]), 24)
    assert hour.tolist() == [each.hour for each in told]
    assert weekday.tolist() == [each.weekday() for each in told]
    whole = Windows.of(made, np.array([0]), 30)
    assert (zones.week_slot(whole.local[0]) // 24 == midnight.weekday()).sum() == length
    assert windows.active[0].nonzero()[0].tolist() == [20]
    assert windows.came_back.tolist() == [True]
    assert windows.counts.tolist() == [1]


def test_what_goes_on_right_after_a_visit_is_no_hit() -> None:
    made = activity([0, 0, 0], HOUR + np.array([0, 1, 30]))
    windows = Windows.of(made, made.visits, 24)
    assert windows.at.tolist() == [HOUR, HOUR + 30]
    assert not windows.active.any()
    assert Windows.of(made, made.visits, 29).active[0].nonzero()[0].tolist() == [28]


def test_histories_at_any_hour_are_those_of_the_last_activity_faded_since() -> None:
    zone = np.full(4, b"UTC", "S32")
    at = np.array([0, 30 * 24, 31 * 24, 5]) * HOUR_MS + 400_000 * HOUR_MS
    activity = Activity.of(np.array([0, 0, 0, 1]), at, zone)
    whose = np.array([0, 0, 0, 1, 1])
    hours = 400_000 + np.array([30 * 24, 31 * 24 - 1, 60 * 24, 4, 5])
    found = activity.histories_at(whose, hours)
    of_second = activity.histories(np.array([1]))
    assert (found.active[0] == of_second.active[0]).all()
    assert found.last.tolist() == [400_720, 400_720, 400_744, UNSEEN, 400_005]
    assert found.active[3].sum() == 0
    assert found.zone.tolist() == [b"UTC"] * 3 + [b"", b"UTC"]
    weeks = int(profile.week(hours[2]) - profile.week(400_744))
    assert (found.active[2] == profile.faded(activity.histories(np.array([2])).active, weeks)[0]).all()
    assert weeks == 4
