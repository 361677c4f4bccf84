"""What recipients do with mail that was taken, as events that DECIDE takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from schemas import codec, topics
from schemas.profile import DAY_MS, HOUR_MS
from streams.simulator.parameters import Parameters
from streams.simulator.people import Act, People
from streams.simulator.provider import Answer
from streams.simulator.servers import Said

TAKEN = Answer(250, "2.0.0 OK", inbox=True)
READ = Answer(250, "2.0.0 OK", inbox=True, clicks=True)
HATED = Answer(250, "2.0.0 OK", inbox=True, complains=True)
BUSY = Answer(421, "4.7.0 later")
ASSUMED = Parameters.assumed().recipient


def acts(answer: Answer, times: Sequence[float], recipient: int = 7) -> list[Act]:
    people = People(ASSUMED, seed=1)
    return [act for at in times for act in people.get(Said("gmail", recipient, at, "d-1", answer))]


def test_mail_that_was_not_taken_is_read_by_nobody() -> None:
    assert not acts(BUSY, range(10_000))


def test_somebody_clicks_at_the_same_hour_of_each_day_and_after_the_mail_came() -> None:
    clicks = [
        (at, act)
        for at in (day * DAY_MS + 11.5 * HOUR_MS for day in range(60))
        for act in acts(READ, [at])
        if act.fields.get("agent") == "browser"
    ]
    assert len(clicks) == 60
    assert len({int(act.at % DAY_MS // HOUR_MS) for _, act in clicks}) == 1
    assert all(at <= act.at < at + DAY_MS for at, act in clicks)
    others = {int(act.at % DAY_MS // HOUR_MS) for i in range(200) for act in acts(READ, [0.0], i)}
    assert len(others) > 8


def test_shares_are_those_assumed_and_events_are_in_the_form_of_their_topics() -> None:
    found = [*acts(TAKEN, range(50_000)), *acts(HATED, range(100))]
    kinds = Counter((act.topic, act.fields["kind"], act.fields.get("agent")) for act in found)
    assert 0.9 < kinds[topics.CLICKS.name, "click", "scanner"] / (50_100 * ASSUMED.scanned.value) < 1.1
    assert (
        0.7 < kinds[topics.DELIVERY.name, "unsubscribed", None] / (50_000 * ASSUMED.unsubscribes.value) < 1.3
    )
    assert 0.6 < kinds[topics.DELIVERY.name, "bounced", None] / (50_100 * ASSUMED.bounced_later.value) < 1.4
    assert kinds[topics.DELIVERY.name, "complained", None] > 95
    for act in found:
        written = codec.encode(act.topic, act.fields | {"occurred_at": int(act.at)})
        assert codec.decode(act.topic, written)["dispatch_id"] == "d-1"
