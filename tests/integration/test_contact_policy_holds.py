"""A year, 20 campaigns, hostile settings: no send is capped, quiet, expired, suppressed or unconsented."""

# ruff: noqa: S608 - questions made of this test's own names and numbers

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infra.embedded.clickhouse import ClickHouseServer
from schemas import ids, topics
from schemas.policy import Campaign, Contact, Policy
from schemas.profile import DAY_MS, HOUR_MS
from schemas.settings import Settings
from sinks.clickhouse.client import ClickHouse
from streams import warehouse
from streams.replay import completejourney
from streams.replay.completejourney import FIRST, LAST, Produced
from streams.warehouse import Warehouse
from tests.support import year
from tests.support.cuts import PACKAGED

pytestmark = [pytest.mark.clickhouse, pytest.mark.timeout(1800)]

# Zones with their changes of clocks on different days, of half an hour, at half hours, and none.
PLACES = (
    ("America/New_York", "US-OH"),
    ("Europe/Berlin", "DE"),
    ("Australia/Lord_Howe", "AU"),
    ("Asia/Kolkata", "IN"),
    ("Pacific/Auckland", ""),
)
QUIET = {"default": (18, 10), "US": (20, 9), "US-OH": (12, 15), "DE": (0, 0), "AU": (23, 22)}
CAPS = (
    (1, "5 h", ("mail",)),
    (2, "30 h", ("mail",)),
    (4, "7 d", ("mail",)),
    (3, "2 d", ("mail", "transactional")),
    (1, "20 min", ("transactional",)),
)
TRIGGERS: tuple[dict[str, str], ...] = (
    {"event": "view"},
    {"event": "purchase"},
    *({"enter": segment.name} for segment in PACKAGED.segments),
    *({"leave": segment.name} for segment in PACKAGED.segments),
    {"event": "purchase"},
    {"event": "view"},
)


def campaigns() -> Iterator[Campaign]:
    """Every kind of timing, of capping, of arms and of expiry over every kind of trigger."""
    for number, trigger in enumerate(TRIGGERS):
        transactional = number % 7 == 1
        yield Campaign.model_validate(
            {
                "number": number,
                "name": f"campaign_{number}",
                "version": 1,
                "doc": "For tests.",
                "trigger": trigger,
                "purpose": "transactional" if transactional else "mail",
                "template": "none",
                "priority": 1 + number % 5,
                "value": 0.5 + number % 3,
                "timing": "at_once" if number % 3 == 1 else "best_hour",
                "when_capped": "drop" if number % 4 == 3 else "defer",
                "arms": {"control": 0.2, "hold_out": 0.1} if number % 2 else {},
                "cooldown": ("1 min", "3 h", "2 d")[number % 3],
                "expiry": ("90 min", "7 h", "26 h", "80 h")[number % 4],
            }
        )


def policy() -> Policy:
    rules = {
        "mail": {"consent": "opt_in"},
        "transactional": {
            "consent": "not_needed",
            "quiet_hours": False,
            "suppressed_by": ["bounced"],
            "hold_out": False,
        },
    }
    contact = {
        "default_zone": "Europe/London",
        "profiling": "opt_out",
        "hold_out": 0.05,
        "purpose": rules,
        "cap": [{"most": most, "window": window, "purposes": of} for most, window, of in CAPS],
        "quiet": {
            place: {"from": f"{start:02}:00", "to": f"{end:02}:00"} for place, (start, end) in QUIET.items()
        },
    }
    return Policy(
        segments=PACKAGED.segments,
        campaigns=tuple(campaigns()),
        contact=Contact.model_validate(contact),
        send_time=PACKAGED.send_time,
    )


def place_of(key: str) -> tuple[str, str]:
    return PLACES[zlib.crc32(key.encode()) % len(PLACES)]


def events(households: int) -> list[Produced]:
    """The year with people all over the world, who change their minds, complain, bounce; some of it late."""
    chance = np.random.default_rng(11)
    found = []
    for event in completejourney.people(FIRST, LAST, households):
        if event.topic == topics.ATTRIBUTES.name:
            zone, place = place_of(event.key)
            event.fields.update(zone=zone, place=place or None)
        found.append(event)
    keys = sorted({event.key for event in found})
    for event in completejourney.events(FIRST, LAST, households):
        late = chance.random() < 0.05 and event.topic in (topics.CLICKS.name, topics.PURCHASES.name)
        at = event.at + int(chance.integers(0, 40 * HOUR_MS)) if late else event.at
        found.append(replace(event, at=at))
    span = int((LAST - FIRST).total_seconds() * 1000)
    begin = int(FIRST.timestamp() * 1000)
    for key in keys:
        base: dict[str, Any] = {"recipient_id": key, "event_id": None}
        for change in range(int(chance.integers(0, 9))):
            at = begin + int(chance.random() * span)
            state = ("withdrawn", "granted")[change % 2]
            fields = base | {"occurred_at": at, "purpose": "mail", "state": state, "source": "t"}
            found.append(Produced(topics.CONSENT.name, key, at, fields | {"version": 2 + at // 1000}))
        if chance.random() < 0.2:
            at = begin + int(chance.random() * span)
            kind = str(chance.choice(["complained", "bounced", "unsubscribed"]))
            fields = base | {"occurred_at": at, "kind": kind, "permanent": True, "dispatch_id": None}
            found.append(Produced(topics.DELIVERY.name, key, at, fields))
    return sorted(found, key=lambda event: (event.at, event.topic, event.key, str(event.fields["event_id"])))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    folder = tmp_path_factory.mktemp("year")
    server = ClickHouseServer(folder)
    server.up()
    try:
        made = warehouse.connect(Settings(state_dir=folder, clickhouse=None))
        made.migrate()
        yield made
    finally:
        server.down()


@pytest.fixture(scope="module", params=[60, pytest.param(600, marks=pytest.mark.soak)])
def client(house: Warehouse, request: pytest.FixtureRequest) -> Iterator[ClickHouse]:
    story = events(request.param)
    nows = year.moments(story[0].at, story[-1].at + 5 * DAY_MS, 8 * HOUR_MS, seed=5)
    made = house.connect()
    for name in ("decision", "release", "consent"):
        made.execute(f"TRUNCATE TABLE {house.stored}.{name}")
    records = (
        value
        for _, handled, _ in year.decided(policy(), year.cuts(story, nows))
        for value in year.audit_of(handled)
    )
    year.land(made, house.stored, records)
    made.execute(
        "CREATE OR REPLACE VIEW opportune.send AS SELECT r.*, d.purpose, d.expires_at, d.arm"
        " FROM opportune.release AS r INNER JOIN opportune.decision AS d ON d.decision_id = r.decision_id"
        " WHERE r.outcome = 'released'"
    )
    yield made
    made.close()


def _count(client: ClickHouse, sql: str) -> int:
    return int(client.execute(sql)[0][0])


def test_much_was_sent_for_every_reason_and_everything_held_something_back(client: ClickHouse) -> None:
    sent = dict(client.execute("SELECT purpose, count() FROM opportune.send GROUP BY purpose"))
    assert sent["mail"] > 1000
    assert sent["transactional"] > 300
    decided = {each for (each,) in client.execute("SELECT DISTINCT reason FROM opportune.decision")}
    assert decided >= {
        *("scheduled", "suppressed", "no_consent", "cooldown", "expired", "quiet_hours", "frequency_cap"),
        *("hold_out", "outranked"),
    }
    released = {each for (each,) in client.execute("SELECT DISTINCT reason FROM opportune.release")}
    assert released >= {"released", "withdrawn", "expired", "frequency_cap", "quiet_hours"}


@pytest.mark.parametrize(("most", "window", "purposes"), CAPS)
def test_no_window_holds_more_sends_than_its_cap(
    client: ClickHouse, most: int, window: str, purposes: tuple[str, ...]
) -> None:
    [cap] = [
        c for c in policy().contact.cap if (c.most, str(c.window), c.purposes) == (most, window, purposes)
    ]
    in_window = (
        "SELECT recipient_id, count() OVER (PARTITION BY recipient_id ORDER BY toUnixTimestamp64Milli(at)"
        f" RANGE BETWEEN {int(cap.window) - 1} PRECEDING AND CURRENT ROW) AS n FROM opportune.send"
        f" WHERE purpose IN {purposes if len(purposes) > 1 else f'({purposes[0]!r})'}"
    )
    assert _count(client, f"SELECT count() FROM ({in_window}) WHERE n > {most}") == 0
    assert _count(client, f"SELECT max(n) FROM ({in_window})") == most, "the cap never mattered"


@pytest.mark.parametrize(("zone", "place"), PLACES)
def test_no_marketing_goes_in_the_quiet_hours_of_a_place(client: ClickHouse, zone: str, place: str) -> None:
    start, end = QUIET.get(place) or QUIET.get(place.split("-")[0]) or QUIET["default"]
    everybody = client.execute("SELECT DISTINCT recipient_id FROM opportune.send")
    here = [key for (key,) in everybody if place_of(key) == (zone, place)]
    # The local hour is that of the start of the UTC hour, in which zones off by half an hour count.
    hour = f"toHour(toTimeZone(toStartOfHour(at), '{zone}'))"
    inside = (
        f"{hour} >= {start} OR {hour} < {end}" if start > end else f"{hour} >= {start} AND {hour} < {end}"
    )
    mail = f"SELECT count() FROM opportune.send WHERE purpose = 'mail' AND recipient_id IN {here}"
    assert _count(client, f"{mail} AND ({inside})") == 0
    assert _count(client, mail) > 50


def test_nothing_goes_after_its_expiry_or_to_whom_is_held_out(client: ClickHouse) -> None:
    assert _count(client, "SELECT count() FROM opportune.send WHERE at >= expires_at") == 0
    assert _count(client, "SELECT count() FROM opportune.send WHERE arm LIKE '%hold_out'") == 0


def test_nothing_goes_to_whom_is_suppressed_for_its_purpose(client: ClickHouse) -> None:
    suppressed = (
        "SELECT count() FROM opportune.send AS s INNER JOIN"
        " (SELECT recipient_id, offset, reason FROM opportune.consent WHERE state = 'suppressed') AS c"
        " ON c.recipient_id = s.recipient_id AND c.offset < s.offset"
    )
    assert _count(client, f"{suppressed} WHERE s.purpose = 'mail' OR c.reason = 'bounced'") == 0
    owed = "SELECT count() FROM opportune.decision WHERE reason = 'suppressed' AND purpose = 'transactional'"
    assert _count(client, owed) > 0


def test_no_marketing_goes_without_consent_at_that_moment(client: ClickHouse) -> None:
    asof = (
        "SELECT c.state AS state, count() FROM opportune.send AS s ASOF LEFT JOIN"
        " (SELECT recipient_id, state, offset FROM opportune.consent WHERE purpose = 'mail') AS c"
        " ON c.recipient_id = s.recipient_id AND s.offset > c.offset WHERE s.purpose = 'mail' GROUP BY state"
    )
    assert [state for state, _ in client.execute(asof)] == ["granted"]


def test_every_send_is_one_decision_and_its_id_follows_from_it(client: ClickHouse) -> None:
    twice = "SELECT count() - uniqExact(dispatch_id) FROM opportune.send"
    assert _count(client, twice) == 0
    for decision, dispatch in client.execute("SELECT decision_id, dispatch_id FROM opportune.send LIMIT 50"):
        assert ids.dispatch_id(decision, "mail") == str(dispatch)


def test_at_one_moment_at_most_one_campaign_of_a_purpose_wins(client: ClickHouse) -> None:
    rivals = (
        "SELECT countIf(outcome = 'scheduled') AS won, maxIf(worth, outcome = 'scheduled') AS best,"
        " maxIf(worth, reason = 'outranked') AS beaten FROM opportune.decision"
        " GROUP BY recipient_id, cut, purpose, cause_topic, cause_offset, cause_due_at"
    )
    assert _count(client, f"SELECT count() FROM ({rivals}) WHERE won > 1 OR beaten > best") == 0
    assert _count(client, f"SELECT count() FROM ({rivals}) WHERE beaten > 0") > 0
