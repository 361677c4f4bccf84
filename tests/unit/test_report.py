"""The figures of `opportune report`, and how they are printed."""

import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars as pl
import pytest

from schemas import codec, topics
from streams.cli.report import as_of
from streams.cli.report_decisions import tier_share
from streams.engine.journal import Entry, Tally
from streams.explain import history_of
from streams.figures.cuts import Cuts, Fates, Rate
from streams.figures.times import column, quarters, shares_of_day, usual_zone
from streams.figures.trail import Example, Membership, Trail

HOUR = 3_600_000
DAY = 24 * HOUR
NOON = 1_488_369_600_000  # 2017-03-01 12:00 UTC, a Wednesday
CAUSE = {"topic": "behaviour.clicks", "partition": 0, "offset": 7, "event_id": "e", "due_at": None}
FIGURES = {"decided": 0, "withheld": 0, "released": 0, "dropped": 0, "pending": 0}
CLICKS, PURCHASES = topics.CLICKS.name, topics.PURCHASES.name


# Records as they stand on the topics


def audit(body: tuple[str, dict[str, Any]], at: int = NOON, recipient: str = "r1") -> dict[str, Any]:
    fields = {
        "recipient_id": recipient,
        "partition": 0,
        "cut": 1,
        "at": at,
        "control_version": 1,
        "body": body,
    }
    return codec.decode(topics.AUDIT.name, codec.encode(topics.AUDIT.name, fields))


def decision(
    name: str, reason: str = "scheduled", tier: str = "prior", due: int = NOON, **where: Any
) -> dict[str, Any]:
    scheduled = reason == "scheduled"
    body = {
        "decision_id": name, "campaign": "win_back", "campaign_version": 1,
        "outcome": "scheduled" if scheduled else "withheld", "reason": reason, "cause": CAUSE,
        "purpose": "mail", "segments": [], "features": {}, "gates": [], "policy": "p",
        "due_at": due if scheduled else None, "expires_at": due + DAY if scheduled else None,
        "tier": tier if scheduled else None, "score": 0.5 if scheduled else None,
        "propensity": 1.0 if scheduled else None,
    }  # fmt: skip
    return audit(("opportune.Decision", body), **where)


def release(name: str, outcome: str = "released", reason: str = "released", **where: Any) -> dict[str, Any]:
    body = {
        "decision_id": name, "dispatch_id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)), "campaign": "win_back",
        "outcome": outcome, "reason": reason, "due_at": NOON, "lane": None, "history": False, "gates": [],
    }  # fmt: skip
    return audit(("opportune.Release", body), **where)


def transition(segment: str, entered: bool, at: int) -> dict[str, Any]:
    body = {"segment": segment, "entered": entered, "cause": CAUSE, "definition": "d"}
    return audit(("opportune.SegmentTransition", body), at)


def trail(*records: dict[str, Any]) -> Trail:
    made = Trail()
    for record in records:
        made.add(record)
    return made


def cut(history: bool, *tallies: Tally, now: int = NOON) -> Entry:
    entry = Entry(0, 1, now, 1, "p", -1, None, history, list(tallies), FIGURES)
    return Entry.decode(topics.JOURNAL.name, entry.encode(topics.JOURNAL.name))


def clicks(consumed: int, **fates: int) -> Tally:
    return Tally(CLICKS, consumed, consumed, **fates)


def click(recipient: str, at: int) -> tuple[bytes, bytes]:
    record = {"recipient_id": recipient, "occurred_at": at, "kind": "view"}
    return recipient.encode(), codec.encode(CLICKS, record)


def attributes(recipient: str, zone: str | None) -> tuple[bytes, bytes]:
    record = {"recipient_id": recipient, "occurred_at": NOON, "zone": zone}
    return recipient.encode(), codec.encode(topics.ATTRIBUTES.name, record)


# Fates and rates


def test_the_fates_of_all_cuts_are_summed_by_topic() -> None:
    cuts = Cuts()
    cuts.add(cut(True, clicks(5, no_trigger=3, decided=2, late=1), Tally(PURCHASES, 1, 1, decided=1)), 0)
    cuts.add(cut(False, clicks(4, filtered=3, rekeyed=1)), 1000)
    found = {fates.topic: fates for fates in cuts.fates()}
    assert found[CLICKS] == Fates(CLICKS, 9, no_trigger=3, decided=2, filtered=3, rekeyed=1, late=1)
    assert found[PURCHASES] == Fates(PURCHASES, 1, decided=1)


def test_topics_without_a_record_are_reported_too() -> None:
    assert [fates.topic for fates in Cuts().fates()] == [topic.name for topic in topics.SOURCES]


def test_stream_time_goes_from_the_earliest_cut_to_the_latest() -> None:
    cuts = Cuts()
    for now in (NOON + HOUR, NOON, NOON + 3 * HOUR, NOON + 2 * HOUR):
        cuts.add(cut(True, now=now), 0)
    assert (cuts.begin, cuts.end) == (NOON, NOON + 3 * HOUR)


def test_the_rate_is_of_events_after_the_first_cut_over_the_time_since_it() -> None:
    cuts = Cuts()
    for at, events in ((10_000, 500), (11_000, 100), (12_000, 200)):
        cuts.add(cut(True, clicks(events)), at)
    assert cuts.rate(history=True) == Rate(3, 800, 2.0, 150.0)


def test_a_pause_between_cuts_is_no_working_time() -> None:
    cuts = Cuts()
    for at, events in ((0, 500), (1_000, 100), (3_600_000, 500), (3_601_000, 300)):
        cuts.add(cut(True, clicks(events)), at)
    assert cuts.rate(history=True) == Rate(4, 1400, 2.0, 200.0)


def test_history_and_live_cuts_have_rates_of_their_own() -> None:
    cuts = Cuts()
    for at, history, events in ((0, True, 1), (500, False, 1), (1000, True, 10), (2500, False, 40)):
        cuts.add(cut(history, clicks(events)), at)
    assert cuts.rate(history=True).per_second == 10
    assert cuts.rate(history=False).per_second == 20


def test_a_single_cut_has_no_rate() -> None:
    cuts = Cuts()
    cuts.add(cut(True, clicks(5)), 0)
    assert cuts.rate(history=True) == Rate(1, 5, 0.0, None)


# Decisions


def test_a_scheduled_decision_is_pending_until_it_is_released_or_withheld() -> None:
    (campaign,) = trail(
        decision("a"), decision("b"), decision("c"), release("a"), release("b", "withheld", "expired")
    ).campaigns()
    assert (campaign.decided, campaign.scheduled, campaign.released, campaign.pending) == (3, 3, 1, 1)
    assert campaign.withheld_at_release == {"expired": 1}


def test_a_deferred_send_stays_pending() -> None:
    (campaign,) = trail(decision("a"), release("a", "deferred", "quiet_hours")).campaigns()
    assert (campaign.deferred, campaign.pending, campaign.withheld_at_release) == (1, 1, {})


def test_a_release_whose_decision_retention_has_deleted_leaves_pending_alone() -> None:
    (campaign,) = trail(decision("a"), release("older")).campaigns()
    assert (campaign.released, campaign.pending) == (1, 1)


def test_decisions_withheld_are_counted_by_reason_and_never_wait() -> None:
    (campaign,) = trail(
        decision("a", "cooldown"), decision("b", "cooldown"), decision("c", "no_consent")
    ).campaigns()
    assert campaign.withheld == {"cooldown": 2, "no_consent": 1}
    assert (campaign.scheduled, campaign.pending) == (0, 0)


def test_tiers_are_those_of_scheduled_decisions() -> None:
    (campaign,) = trail(decision("a", tier="recipient"), decision("b"), decision("c", "cooldown")).campaigns()
    assert campaign.tiers == {"recipient": 1, "prior": 1}
    assert [tier_share(campaign, tier) for tier in ("recipient", "prior")] == ["50%", "50%"]


# Segments


def test_the_size_of_a_segment_is_who_entered_less_who_left_up_to_each_day() -> None:
    found = trail(
        transition("lapsing", True, NOON),
        transition("lapsing", True, NOON + HOUR),
        transition("lapsing", False, NOON + 2 * DAY),
    ).segments(NOON, NOON + 3 * DAY)
    assert found.step_ms == DAY
    assert found.memberships == [Membership("lapsing", [2, 2, 1, 1], entered=2, left=1)]
    assert found.times[0] == NOON // DAY * DAY + DAY


def test_a_stretch_below_three_days_is_told_by_hour() -> None:
    found = trail(transition("lapsing", True, NOON + HOUR)).segments(NOON, NOON + 2 * HOUR)
    assert found.step_ms == HOUR
    assert found.memberships[0].sizes == [0, 1, 1]


def test_a_change_that_came_in_while_reading_counts_at_the_end() -> None:
    found = trail(transition("lapsing", True, NOON + 9 * HOUR)).segments(NOON, NOON + HOUR)
    assert found.memberships[0].sizes == [0, 1]


def test_an_empty_journal_has_no_segments() -> None:
    assert Trail().segments(None, None).memberships == []


# Hours of day


def test_hours_are_told_in_the_zone_with_its_summer_time() -> None:
    winter, summer = NOON, NOON + 122 * DAY
    shares = shares_of_day(quarters(pl.Series([winter, winter, winter, summer])), "America/New_York")
    assert (shares[7], shares[8], sum(shares)) == (0.75, 0.25, 1.0)


def test_a_zone_off_by_half_an_hour_moves_only_the_second_half_hour_on() -> None:
    shares = shares_of_day(quarters(pl.Series([NOON, NOON + HOUR // 2])), "Asia/Kolkata")
    assert (shares[17], shares[18]) == (0.5, 0.5)


def test_no_times_have_shares_of_nought() -> None:
    assert shares_of_day(Counter(), "UTC") == [0.0] * 24


def test_times_that_no_clock_shows_are_left_out() -> None:
    assert quarters(pl.Series([NOON, -1, 2**62])).total() == 1


def test_chosen_sends_are_counted_at_their_due_time() -> None:
    sends = trail(decision("a", due=NOON + 5 * HOUR), decision("b", "cooldown")).sends
    assert shares_of_day(sends, "UTC").index(1.0) == 17


def test_a_column_of_times_is_utc_milliseconds() -> None:
    found = column(CLICKS, [click("r1", NOON), click("r2", NOON + 1)], "occurred_at")
    assert found.rows() == [("r1", NOON), ("r2", NOON + 1)]


@pytest.mark.parametrize("bad", [b"", b"\x00garbage", click("r9", NOON)[1] + b"\x00"])
def test_records_beside_one_that_does_not_decode_still_count(bad: bytes) -> None:
    found = column(CLICKS, [click("r1", NOON), (b"r9", bad), click("r2", NOON + 1)], "occurred_at")
    assert found.rows() == [("r1", NOON), ("r2", NOON + 1)]


def test_a_column_of_text_keeps_what_is_missing() -> None:
    zone = column(topics.ATTRIBUTES.name, [attributes("r1", "UTC"), attributes("r2", None)], "zone")
    assert zone.rows() == [("r1", "UTC"), ("r2", None)]


def test_the_usual_zone_is_that_of_most_recipients_and_must_exist() -> None:
    zones = {"r1": "Europe/Paris", "r2": "Asia/Tokyo", "r3": "Asia/Tokyo"}
    assert usual_zone(zones) == "Asia/Tokyo"
    assert usual_zone(zones | dict.fromkeys("abc", "Mars/Olympus")) == "Asia/Tokyo"
    assert usual_zone({"r1": "Europe/Paris", "r2": "Asia/Tokyo"}) == "Asia/Tokyo"
    assert usual_zone({}) == "UTC"


# Examples


def shown(examples: Iterable[Example]) -> list[str]:
    return [example.decision_id for example in examples]


def test_the_examples_are_one_sent_by_own_hours_one_paced_and_one_refused() -> None:
    found = trail(
        decision("the prior"), release("the prior"), decision("own", tier="recipient"), release("own"),
        decision("waits", tier="recipient"), decision("paced", "frequency_cap"),
        decision("refused", "no_consent"), decision("audience", "not_in_audience", at=NOON + HOUR),
    ).examples()  # fmt: skip
    assert shown(found) == ["own", "paced", "refused"]
    assert found[0].shows == "Sent at the recipient's own hours"


def paced(found: Trail) -> list[str]:
    return shown(example for example in found.examples() if example.shows.startswith("Withheld by frequency"))


def test_of_several_the_latest_decision_is_shown_and_of_equals_the_highest_id() -> None:
    records = [
        decision("b", "cooldown", at=NOON + HOUR), decision("c", "cooldown", at=NOON + HOUR),
        decision("a", "cooldown", at=NOON + HOUR), decision("d", "cooldown", at=NOON),
    ]  # fmt: skip
    assert paced(trail(*records)) == ["c"]
    assert paced(trail(*reversed(records))) == ["c"]


def test_a_send_withheld_when_due_shows_as_well_as_one_withheld_at_once() -> None:
    found = trail(decision("a"), release("a", "withheld", "withdrawn")).examples()
    assert [(example.decision_id, example.shows) for example in found] == [
        ("a", "Withheld for want of consent")
    ]


def test_where_a_kind_has_no_example_any_other_decision_is_shown_once() -> None:
    found = trail(
        decision("a", "cooldown"), decision("b", "expired"), decision("c", "quiet_hours")
    ).examples()
    assert shown(found) == ["c", "a", "b"]
    assert found[0].shows == "Decided lately"


def test_without_decisions_there_are_no_examples() -> None:
    assert Trail().examples() == []


def test_an_example_is_told_as_of_its_decision_with_what_followed() -> None:
    history = history_of(
        "r1",
        [
            transition("early", True, NOON),
            decision("a", at=NOON),
            decision("b", at=NOON + HOUR),
            transition("late", True, NOON + HOUR),
            release("a", at=NOON + 2 * HOUR),
        ],
    )
    then = as_of(history, "a")
    assert [story.state for story in then.stories] == ["released"]
    assert [record["body"]["segment"] for record in then.transitions] == ["early"]
    assert as_of(history, "unknown") == history
