"""Reconciliation of a small, whole story, in records as they stand on Kafka, and of stories with a flaw."""

from collections import Counter

import pytest

from streams.agents import intake
from streams.cli import reconcile as cli
from streams.cli import show
from streams.engine.kafka import Record
from streams.facts import Facts
from streams.reconcile import Report, compare
from tests.support.story import (
    AUDIT,
    CLICKS,
    COMMANDS,
    DAY_ONE_LOG,
    HOUR,
    JOURNAL,
    LETTERS,
    T0,
    Story,
    audit,
    command,
    decision,
    decision_id,
    letter,
    release,
)


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_whole_story_is_accounted_for(story: Story) -> None:
    report = story.report()

    assert report.discrepancies == []
    assert report.notes == []
    clicks = next(flow for flow in report.flows if (flow.topic, flow.partition) == (CLICKS, 0))
    assert (clicks.consumed, clicks.no_trigger, clicks.decided) == (7, 2, 2)
    assert (clicks.filtered, clicks.dead_lettered, clicks.rekeyed) == (1, 1, 1)
    assert (clicks.found_decided, clicks.found_dead_lettered, clicks.found_rekeyed) == (2, 1, 1)
    first, second = report.decisions
    assert (first.decided, first.commands, first.pending) == (3, 1, 0)
    assert first.withheld == Counter(cooldown=1)
    assert first.withheld_at_release == Counter(no_consent=1)
    assert (second.decided, second.pending, second.missing()) == (1, 1, 0)


def test_records_behind_the_last_cut_are_not_counted_yet(story: Story) -> None:
    story.add(CLICKS, 0, 13, b"later")
    story.add(AUDIT, 0, 8, audit(0, 4, decision(5, offset=12)))
    story.add(AUDIT, 0, 9, audit(0, 5, release(5, "released", "released", "gmail")))
    story.add(LETTERS, 0, 1, letter(13, cut=4))

    assert story.report().discrepancies == []


def test_nothing_consumed_is_nothing_amiss() -> None:
    assert compare(Facts()) == Report()


def test_a_missing_command_is_noticed(story: Story) -> None:
    story.drop(COMMANDS, 0, 0)

    assert story.report().discrepancies == [
        "decisions of partition 0: 1 went nowhere",
        f"decision {decision_id(1)} was released, but has no command",
    ]


def test_a_command_that_nobody_released_is_noticed(story: Story) -> None:
    story.add(COMMANDS, 0, 1, command(9))

    assert story.report().discrepancies == [f"decision {decision_id(9)} has a command, but no release"]


def test_a_command_sent_twice_is_noticed(story: Story) -> None:
    story.add(COMMANDS, 0, 1, command(1))

    assert story.report().discrepancies == [f"decision {decision_id(1)} has a command more than once"]


def test_a_doubled_decision_is_noticed(story: Story) -> None:
    story.add(AUDIT, 0, 9, audit(0, 3, decision(1, offset=0)))

    found = "\n".join(story.report().discrepancies)

    assert "the journal says 3 decided, the audit trail 4; 1 cuts differ, first cut 3 (0 and 1)" in found
    assert f"decision {decision_id(1)} was decided more than once" in found


def test_a_decision_made_anew_under_an_old_id_counts_once(story: Story) -> None:
    story.add(AUDIT, 0, 5, audit(0, 3, decision(1, withheld="cooldown")))
    story.change(0, 3, decided=1, withheld=1)

    report = story.report()

    assert report.discrepancies == [
        f"decision {decision_id(1)} was decided more than once (does a producer use an event id anew?)"
    ]
    assert report.decisions[0].decided == 3


def test_a_missing_decision_is_noticed(story: Story) -> None:
    story.drop(AUDIT, 0, 1)

    found = "\n".join(story.report().discrepancies)

    assert "the journal says 2 decided, there are 1 records with decisions in the audit trail" in found
    assert f"decision {decision_id(2)} came due, but was never decided" in found
    assert "decisions of partition 0: 1 went somewhere that were never made" in found


def test_a_missing_release_is_noticed(story: Story) -> None:
    story.drop(AUDIT, 0, 7)

    found = "\n".join(story.report().discrepancies)

    assert "the journal says 1 dropped, the audit trail 0" in found
    assert "decisions of partition 0: 1 went nowhere" in found


def test_a_decision_that_ends_twice_is_noticed(story: Story) -> None:
    story.add(AUDIT, 0, 8, audit(0, 3, release(1, "withheld", "expired")))

    found = "\n".join(story.report().discrepancies)

    assert f"decision {decision_id(1)} was released or withheld at release more than once" in found


def test_a_withheld_decision_that_comes_due_is_noticed(story: Story) -> None:
    story.add(AUDIT, 0, 8, audit(0, 3, release(3, "withheld", "expired")))

    assert f"decision {decision_id(3)} was withheld, but came due" in story.report().discrepancies


def test_a_gap_in_the_journal_is_noticed(story: Story) -> None:
    del story.journal[0][1]

    assert f"{JOURNAL} partition 0, cut 3: follows cut 1" in story.report().discrepancies


def test_a_journal_that_begins_late_without_retention_is_noticed(story: Story) -> None:
    del story.journal[0][0]

    assert f"{JOURNAL} partition 0 begins with cut 2, not with 1" in story.report().discrepancies


def test_a_cut_handled_twice_is_noticed(story: Story) -> None:
    story.journal[0].insert(1, story.journal[0][0])

    assert f"{JOURNAL} partition 0, cut 1: follows cut 1" in story.report().discrepancies


def test_an_offset_that_goes_back_is_noticed(story: Story) -> None:
    story.tally(0, 3).next_offset = 9

    assert story.report().discrepancies == [f"{JOURNAL} partition 0, cut 3: {CLICKS} goes back from 10 to 9"]


def test_time_that_goes_back_is_noticed(story: Story) -> None:
    story.change(0, 3, now=T0)

    found = "\n".join(story.report().discrepancies)

    assert f"{JOURNAL} partition 0, cut 3: its time goes back" in found


@pytest.mark.parametrize("fate", ["no_trigger", "decided", "filtered", "dead_lettered", "rekeyed"])
def test_a_record_counted_under_two_fates_is_noticed(story: Story, fate: str) -> None:
    tally = story.tally(0, 2)
    setattr(tally, fate, getattr(tally, fate) + 1)

    expected = f"{JOURNAL} partition 0, cut 2: {CLICKS} has 4 records consumed, but fates of 5"
    assert expected in story.report().discrepancies


@pytest.mark.parametrize(
    ("fate", "what"),
    [
        ("decided", "records with decisions in the audit trail"),
        ("dead_lettered", "dead letters"),
        ("rekeyed", "re-keyed copies"),
    ],
)
def test_a_miscounted_fate_is_noticed_though_the_sum_is_right(story: Story, fate: str, what: str) -> None:
    tally = story.tally(0, 2)
    tally.no_trigger -= 1
    setattr(tally, fate, getattr(tally, fate) + 1)

    [line] = story.report().discrepancies

    assert f"{fate}, there are" in line
    assert what in line
    assert "1 cuts differ, first cut 2" in line


def test_a_record_that_no_cut_consumed_is_noticed(story: Story) -> None:
    story.add(CLICKS, 0, 8, b"between two others")

    assert story.report().discrepancies == [
        f"{CLICKS} partition 0: the journal says 7 consumed, there are 8 records; "
        "1 cuts differ, first cut 2 (4 and 5)"
    ]


def test_a_record_counted_one_cut_too_late_is_noticed_though_the_sums_are_right(story: Story) -> None:
    first, second = story.tally(0, 1), story.tally(0, 2)
    first.consumed, first.no_trigger = 2, 0
    second.consumed, second.no_trigger = 5, 2

    [line] = story.report().discrepancies

    assert "the journal says 7 consumed, there are 7 records; 2 cuts differ, first cut 1 (2 and 3)" in line


def test_a_dead_letter_written_twice_is_noticed(story: Story) -> None:
    story.add(LETTERS, 0, 1, letter(6))

    assert any(
        "says 1 dead_lettered, there are 2 dead letters" in line for line in story.report().discrepancies
    )


def test_a_re_driven_record_is_no_re_keyed_one(story: Story) -> None:
    moved = intake.origin_headers(CLICKS, 0, Record(6, 0, b"r", b"", ()))
    story.add(CLICKS, 1, 20, b"sent back by hand", moved)

    assert story.report().discrepancies == []


def test_sends_that_wait_are_followed_from_cut_to_cut(story: Story) -> None:
    story.change(0, 2, pending=3)

    assert story.report().discrepancies == [
        f"{JOURNAL} partition 0, cut 2: 3 sends wait, but 2 do by what came and went",
        f"{JOURNAL} partition 0, cut 3: 0 sends wait, but 1 do by what came and went",
    ]


def test_decisions_of_a_line_without_a_journal_are_noticed(story: Story) -> None:
    del story.journal[1]

    assert f"{AUDIT} partition 1 has 1 decisions, the journal no cut" in story.report().discrepancies


# What retention has deleted


@pytest.mark.parametrize(
    ("topic", "partition", "low"),
    [
        (CLICKS, 0, 2),
        (CLICKS, 0, 6),
        (CLICKS, 0, 13),
        (CLICKS, 1, 8),
        (JOURNAL, 0, 2),
        (JOURNAL, 0, 3),
        (AUDIT, 0, 1),
        (AUDIT, 0, 4),
        (AUDIT, 0, 7),
        (AUDIT, 0, 8),
        (AUDIT, 1, 1),
        (LETTERS, 0, 1),
        (COMMANDS, 0, 1),
    ],
)
def test_what_retention_deleted_is_no_discrepancy_but_a_note(
    story: Story, topic: str, partition: int, low: int
) -> None:
    story.expire(topic, partition, low)

    report = story.report()

    assert report.discrepancies == []
    assert f"{topic} partition {partition} begins at offset {low}" in report.notes[0]


def test_what_is_left_after_retention_is_still_checked(story: Story) -> None:
    story.expire(CLICKS, 0, 2)
    story.drop(CLICKS, 0, 9)

    assert any(
        "the journal says 4 consumed, there are 3 records" in line for line in story.report().discrepancies
    )


def test_what_waited_when_counting_begins_is_in_the_balance(story: Story) -> None:
    story.expire(AUDIT, 0, 4)

    balance = story.report().decisions[0]

    assert (balance.waited_before, balance.decided, balance.commands, balance.missing()) == (2, 0, 1, 0)


def test_what_waited_is_known_even_if_the_journal_begins_later_than_the_audit_trail(story: Story) -> None:
    story.expire(AUDIT, 0, 1)
    story.expire(JOURNAL, 0, 2)

    report = story.report()

    assert report.discrepancies == []
    assert report.decisions[0].waited_before == 2


def test_where_a_witness_has_expired_the_journals_word_is_shown(story: Story) -> None:
    story.expire(LETTERS, 0, 1)

    clicks = next(f for f in story.report().flows if (f.topic, f.partition) == (CLICKS, 0))

    assert (clicks.dead_lettered, clicks.found_dead_lettered) == (1, 1)


def test_a_command_that_may_have_expired_is_not_missed(story: Story) -> None:
    story.lows[COMMANDS, 0] = 1
    story.records[COMMANDS, 0] = [Record(1, DAY_ONE_LOG + 5, b"gmail", command(5), ())]
    story.add(AUDIT, 0, 8, audit(0, 3, decision(5)))
    story.add(AUDIT, 0, 9, audit(0, 3, release(5, "released", "released", "gmail")))
    story.change(0, 3, decided=1, released=2)

    assert story.report().discrepancies == []


def test_a_command_that_cannot_have_expired_is_missed_all_the_same(story: Story) -> None:
    story.lows[COMMANDS, 0] = 1
    story.records[COMMANDS, 0] = [Record(1, DAY_ONE_LOG - 3 * HOUR, b"gmail", command(1), ())]
    story.add(AUDIT, 0, 8, audit(0, 3, release(5, "released", "released", "gmail")))
    story.add(AUDIT, 0, 9, audit(0, 3, decision(5)))

    assert f"decision {decision_id(5)} was released, but has no command" in story.report().discrepancies


# How it is shown


def shown(report: Report, partitions: bool = False) -> str:
    console = show.console()
    with console.capture() as capture:
        cli.tell(console, report, partitions)
    return capture.get()


def test_the_tables_say_that_all_is_well(story: Story) -> None:
    text = shown(story.report(), partitions=True)

    assert "✔ Everything is accounted for." in text
    assert "cooldown 1" in text
    assert "✘" not in text


def test_the_tables_show_both_figures_where_witnesses_differ(story: Story) -> None:
    story.drop(LETTERS, 0, 0)

    text = shown(story.report())

    assert "1 (found 0)" in text
    assert (
        "✘ behaviour.clicks partition 0: the journal says 1 dead_lettered, there are 0 dead letters" in text
    )


def test_the_machine_form_has_the_sums(story: Story) -> None:
    form = cli.machine_form(story.report())

    assert form["agrees"] is True
    assert form["decisions_in_all"]["withheld"] == {"cooldown": 1}
    clicks = next(flow for flow in form["flows_by_topic"] if flow["topic"] == CLICKS)
    assert clicks["consumed"] == 8
    assert show.as_json(form)
