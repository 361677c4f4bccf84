"""Hours of activity landed as RECORD lands them, and read back; of nobody who wants no profile."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from infra.embedded.clickhouse import ClickHouseServer
from models.sendtime.activity import Activity
from schemas import topics
from schemas.profile import DAY_MS, HOUR_MS, HOURS, KINDS, MINUTE_MS, Consent, empty
from schemas.settings import Settings
from sinks.clickhouse import migrate
from sinks.clickhouse.query import ask
from streams import warehouse
from streams.activity_trail import activity_of
from streams.warehouse import Warehouse
from tests.support.cuts import HOME, START, Fast, Planned, World, changelog
from tests.support.record import land_profiles

pytestmark = pytest.mark.clickhouse

HOUR = 412_488
ANN, BOB = HOME[:2]
Told = Counter[tuple[tuple[int, bytes], ...]]  # each recipient's hours and zones; recipients have no names


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    folder = tmp_path_factory.mktemp("activity")
    running = ClickHouseServer(folder)
    running.up()
    try:
        yield warehouse.connect(Settings(state_dir=folder, clickhouse=None))
    finally:
        running.down()


@pytest.fixture
def house(server: Warehouse) -> Iterator[Warehouse]:
    server.migrate()
    yield server
    client = server.connect()
    migrate.drop(client, server.views)
    client.close()


def _told(activity: Activity) -> Told:
    hours = defaultdict(list)
    for who, hour, zone in zip(
        activity.recipient, activity.hour.tolist(), activity.zone.tolist(), strict=True
    ):
        hours[int(who)].append((hour, zone))
    assert set(hours) == set(range(len(hours))), "numbers have no gap"
    return Counter(map(tuple, hours.values()))


def _of(house: Warehouse, until: int = HOUR * HOUR_MS + 1, days: int = 400) -> Told:
    return _told(activity_of(house, until, days, "Asia/Tokyo")[0])


def _random() -> tuple[list[dict[bytes, bytes]], Activity]:
    """The rows of 300 recipients at four moments a day apart, some hours told twice; and their activity."""
    chance, ids = np.random.default_rng(4), np.arange(300)
    zone = chance.choice([b"", b"Europe/Vienna", b"America/New_York"], len(ids))
    active = (chance.random((len(ids), 5 * 24)) < 0.05).astype(np.uint8)  # by hour, the last is HOUR
    active[:, -1] |= ~active.any(1)
    batches = []
    for day in range(4):
        rows, hour = empty(len(ids)), HOUR - 24 * (3 - day)
        hours = hour - np.arange(HOURS)
        rows["hour"], rows["zone"], rows["first"] = hour, zone, 1
        counted = active[:, hours - (HOUR - 5 * 24 + 1)]
        rows["hourly"][ids[:, None], KINDS.index("cart"), hours % HOURS] = counted
        batches.append({b"r-%d" % n: rows[n].tobytes() for n in ids})
    recipient, column = np.nonzero(active)
    hours = HOUR - 5 * 24 + 1 + column
    zones = np.where(zone == b"", b"Asia/Tokyo", zone).astype("S32")
    return batches, Activity.of(recipient, hours * HOUR_MS, zones[recipient])


def test_what_was_put_in_comes_back_each_hour_once(house: Warehouse) -> None:
    batches, expected = _random()
    for number, batch in enumerate(batches):
        land_profiles(house, batch, 1_000 * number)
    found = activity_of(house, HOUR * HOUR_MS + 1, 400, "Asia/Tokyo")[0]
    assert _told(found) == _told(expected)
    assert (np.sort(found.local) == np.sort(expected.local)).all()
    assert ask(house.address, house.views, "SELECT count() FROM activity").rows == [(len(expected),)]


def test_only_the_last_days_are_read(house: Warehouse) -> None:
    batches, expected = _random()
    for number, batch in enumerate(batches):
        land_profiles(house, batch, 1_000 * number)
    until, days = (HOUR - 10) * HOUR_MS, 2
    asked = expected.picked((expected.hour >= HOUR - 10 - 48) & (expected.hour < HOUR - 10))
    assert 100 < len(asked) < len(expected)
    found = activity_of(house, until, days, "Asia/Tokyo")[0]
    assert Counter(found.hour.tolist()) == Counter(asked.hour.tolist())


def test_a_table_without_rows_is_no_activity(house: Warehouse) -> None:
    assert len(activity_of(house, HOUR * HOUR_MS, 90, "UTC")[0]) == 0


class Life:
    """Recipients whose events DECIDE takes in, and whose rows are landed as it writes them."""

    def __init__(self, house: Warehouse) -> None:
        self.house, self.world, self.fast, self.offset = house, World(), Fast(), 0

    def cut(self, gap: int, *planned: Planned) -> None:
        rows = changelog(self.fast.handle(self.world.cut(gap, planned)))
        land_profiles(self.house, rows, self.offset)
        self.offset += len(rows)

    def hours(self) -> Counter[tuple[int, ...]]:
        """Each recipient's hours, from START on."""
        told = _of(self.house, self.world.now + 1)
        return Counter(
            {tuple(h - START // HOUR_MS for h, _ in hours): count for hours, count in told.items()}
        )


def consent(who: str, state: str, version: int) -> Planned:
    fields = {"purpose": "profiling", "state": state, "version": version}
    return Planned(topics.CONSENT.name, who, 0, fields)


def view(who: str, ago: int = 0) -> Planned:
    return Planned(topics.CLICKS.name, who, ago, {"kind": "view"})


@pytest.fixture
def life(house: Warehouse) -> Life:
    """Ann and Bob, who were active for some days."""
    made = Life(house)
    made.cut(0, *(consent(who, "granted", 1) for who in (ANN, BOB)), view(ANN), view(BOB))
    made.cut(70 * HOUR_MS, view(ANN), view(BOB))
    made.cut(HOUR_MS, view(ANN))
    assert made.hours() == Counter([(0, 70, 71), (0, 70)])
    return made


def test_after_a_withdrawal_nothing_is_told_of_any_earlier_hour(life: Life) -> None:
    life.cut(MINUTE_MS, consent(ANN, "withdrawn", 2))
    assert life.hours() == Counter([(0, 70)])
    life.cut(MINUTE_MS, view(ANN))
    assert life.hours() == Counter([(0, 70)])


def test_after_new_consent_only_what_came_since_is_told_also_of_the_same_hour(life: Life) -> None:
    life.cut(MINUTE_MS, consent(ANN, "withdrawn", 2))
    life.cut(MINUTE_MS, consent(ANN, "granted", 3))
    assert life.hours() == Counter([(0, 70)])
    life.cut(HOUR_MS, view(ANN))
    assert life.hours() == Counter([(72,), (0, 70)])
    life.cut(MINUTE_MS, view(ANN, ago=HOUR_MS + 2 * MINUTE_MS), view(ANN, ago=30 * HOUR_MS))
    assert life.hours() == Counter([(42, 71, 72), (0, 70)]), "what came late, and nothing from before"


def test_a_withdrawal_and_new_consent_in_one_cut_forget_as_well(life: Life) -> None:
    life.cut(2 * HOUR_MS, consent(ANN, "withdrawn", 2), consent(ANN, "granted", 3), view(ANN))
    assert life.hours() == Counter([(73,), (0, 70)]), "though no row on the changelog was ever empty"


def test_an_event_that_comes_late_takes_no_hour_away(life: Life) -> None:
    life.cut(MINUTE_MS, view(ANN, ago=20 * DAY_MS), view(BOB, ago=4 * HOUR_MS))
    assert life.hours() == Counter([(0, 70, 71), (0, 67, 70)])


def test_of_a_recipient_that_was_taken_away_nothing_is_told(life: Life) -> None:
    land_profiles(life.house, {ANN.encode(): None}, life.offset)
    assert life.hours() == Counter([(0, 70)])


def test_a_withdrawal_is_in_the_snapshot_that_hides_the_hours(life: Life) -> None:
    life.cut(MINUTE_MS, consent(ANN, "withdrawn", 2))
    [row] = ask(
        life.house.address,
        life.house.views,
        f"SELECT consent_profiling, first_event_at FROM profile_snapshot WHERE recipient_id = '{ANN}'",  # noqa: S608
    ).rows
    assert row == (Consent.WITHDRAWN.name.lower(), None)


def test_tables_that_are_kept_outlive_a_restore(house: Warehouse) -> None:
    batches, expected = _random()
    for number, batch in enumerate(batches):
        land_profiles(house, batch, 1_000 * number)
    client = house.connect()
    migrate.drop(client, house.views, ["activity"])
    assert migrate.migrate(client, house.views)[-1:] == [
        f"{each.number:04d}_{each.name}" for each in migrate.migrations()[-1:]
    ]
    counts = [
        client.execute(f"SELECT count() FROM {house.stored}.{name}")  # noqa: S608 - our tables
        for name in ("profile_snapshot", "activity")
    ]
    client.close()
    assert counts[0] == [(0,)]
    assert counts[1] >= [(len(expected),)]
    land_profiles(house, batches[-1], 3_000)
    assert _of(house) == _told(expected)
