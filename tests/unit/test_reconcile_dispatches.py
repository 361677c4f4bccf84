"""Reconciliation of DELIVER: a line's own records, whole, and with a flaw."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from schemas.dispatch import DISPATCH, State
from streams.cli import reconcile as cli
from streams.cli import show
from streams.reconcile import Report, compare
from streams.reconciling import dispatches
from streams.reconciling.dispatches import FATES
from tests.support.deliver_story import (
    AUDIT,
    COMMANDS,
    HOUR,
    JOURNAL,
    LETTERS,
    RECALLS,
    ROWS,
    DeliverStory,
    dispatch,
    result,
    whole_story,
)

DAY = 24 * HOUR


@pytest.fixture
def story() -> DeliverStory:
    return whole_story()


def test_a_whole_story_is_accounted_for(story: DeliverStory) -> None:
    commands, off = story.report()

    assert off == []
    assert commands.consumed == 12
    assert +commands.fates == Counter(
        delivered=2, bounced=1, unknown=1, recalled=2, expired=1, historic=1, duplicate=1, dead_lettered=1
    )
    assert commands.found == commands.fates
    assert (commands.pending, commands.in_flight, commands.deferred, commands.missing()) == (1, 1, 1, 0)


def test_what_happened_after_the_journal_was_read_is_not_counted(story: DeliverStory) -> None:
    for cut in (1, 2, 3, 4):
        assert story.off(until_cut=cut) == [], cut


def test_what_came_and_ended_between_two_readings_is_not_counted(story: DeliverStory) -> None:
    rows, commands = list(story.records[ROWS]), list(story.records[COMMANDS])
    story.command(11)
    story.cut(room=2)
    story.cut([result(11, "delivered")])
    story.records[ROWS], story.records[COMMANDS] = rows, commands

    assert story.off(until_cut=4) == []


def test_a_forgotten_dispatch_is_no_discrepancy(story: DeliverStory) -> None:
    story.cut(after=40 * DAY)

    assert dispatch(1) not in story.facts().deliver.rows
    assert story.off() == []


def test_commands_that_no_cut_has_taken_up_are_shown(story: DeliverStory) -> None:
    story.command(11)

    commands, off = story.report()

    assert (commands.not_taken_up, off) == (1, [])


def test_deliver_that_has_never_run_is_nothing_amiss() -> None:
    story = DeliverStory()
    story.command(1)

    assert dispatches.compare(story.facts()) == ([], [])


# The journal against itself


def test_a_gap_in_the_journal_is_noticed(story: DeliverStory) -> None:
    story.drop(JOURNAL, 1)

    assert f"{JOURNAL} partition 0, cut 3: follows cut 1" in story.off()


def test_time_that_goes_back_is_noticed(story: DeliverStory) -> None:
    story.journal(1, lambda entry: replace(entry, now=entry.now - 1))

    assert any("cut 2: its time goes back" in line for line in story.off())


def test_an_offset_that_goes_back_is_noticed(story: DeliverStory) -> None:
    story.tally(2, next_offset=3)

    assert any(f"cut 3: {COMMANDS} goes back" in line for line in story.off())


def test_a_command_with_two_fates_is_noticed(story: DeliverStory) -> None:
    story.tally(1, dead_lettered=2)

    assert f"{JOURNAL} partition 0, cut 2: {COMMANDS} has 5 records consumed, but fates of 6" in story.off()


def test_a_message_that_vanishes_between_two_cuts_is_noticed(story: DeliverStory) -> None:
    story.figures(3, pending=0)

    assert story.off() == [
        f"{JOURNAL} partition 0, cut 4: 1 dispatches stand, but 2 do by what came and went",
        "commands of partition 0: 1 went nowhere",
        f"{ROWS} partition 0: 2 dispatches wait or are in flight, but 1 do by the journal",
    ]


def test_a_claim_that_vanishes_is_noticed_though_the_sum_is_right(story: DeliverStory) -> None:
    story.figures(3, pending=2, in_flight=0)

    assert story.off() == [
        f"{JOURNAL} partition 0, cut 4: 0 are in flight, but 1 are by what was claimed and settled"
    ]


def test_a_repeat_that_the_figures_do_not_know_is_noticed(story: DeliverStory) -> None:
    story.figures(1, duplicate=0)

    found = "\n".join(story.off())
    assert "cut 2: 1 commands had no effect, but 0 were repeats" in found
    assert "the journal says 0 duplicate, the audit trail 1" in found


# The journal against the other topics


@pytest.mark.parametrize("topic", [COMMANDS, RECALLS])
def test_a_record_that_no_cut_consumed_is_noticed(story: DeliverStory, topic: str) -> None:
    first = story.records[topic][0]
    story.records[topic].insert(1, replace(first, offset=first.offset + 1))

    assert any(f"{topic} partition 0: the journal says" in line for line in story.off())


def test_a_missing_dead_letter_is_noticed(story: DeliverStory) -> None:
    story.drop(LETTERS)

    commands, off = story.report()

    assert off == [
        f"{COMMANDS} partition 0: the journal says 1 dead_lettered, there are 0 dead letters; "
        "1 cuts differ, first cut 2 (1 and 0)"
    ]
    assert (commands.fates["dead_lettered"], commands.found["dead_lettered"]) == (1, 0)


@pytest.mark.parametrize(
    ("number", "kind", "name"),
    [
        (1, "delivered", "delivered"),
        (2, "deferred", "deferred"),
        (3, "bounced", "bounced"),
        (4, "unknown", "unknown"),
        (5, "recalled", "recalled"),
        (7, "expired", "expired"),
        (8, "history", "historic"),
        (1, "duplicate", "duplicate"),
    ],
)
def test_a_missing_audit_record_is_noticed(story: DeliverStory, number: int, kind: str, name: str) -> None:
    story.drop_audit(number, kind)

    off = story.off()

    assert any(f"{name}, the audit trail" in line for line in off)
    if kind not in ("deferred", "history", "duplicate"):
        assert f"dispatch {dispatch(number)} has ended in the table, but not in the audit trail" in off


def test_a_second_end_is_noticed(story: DeliverStory) -> None:
    story.repeat(AUDIT, 0)

    assert any("has ended more than once" in line for line in story.off())


# DELIVER's table


def rewrite(story: DeliverStory, number: int, state: State) -> None:
    """Give a dispatch's last row another state."""
    place = max(i for i, r in enumerate(story.records[ROWS]) if r.key == dispatch(number).encode())
    record = story.records[ROWS][place]
    value = bytearray(record.value or b"")
    rows = np.frombuffer(value, DISPATCH)
    rows["state"] = state
    story.records[ROWS][place] = replace(record, value=bytes(value))


def test_a_row_that_is_gone_too_soon_is_noticed(story: DeliverStory) -> None:
    story.add(ROWS, None, dispatch(1).encode())

    assert story.off() == [
        f"dispatch {dispatch(1)} has an end, but no row any more that would know its repeats"
    ]


def test_a_waiting_row_that_is_gone_is_noticed(story: DeliverStory) -> None:
    story.add(ROWS, None, dispatch(9).encode())

    assert story.off() == [
        f"{ROWS} partition 0: 1 dispatches wait or are in flight, but 2 do by the journal",
        f"dispatch {dispatch(9)} has a command, but neither row nor end",
    ]


def test_a_row_that_says_another_end_than_the_audit_trail_is_noticed(story: DeliverStory) -> None:
    rewrite(story, 1, State.BOUNCED)

    assert story.off() == [
        f"dispatch {dispatch(1)} was delivered by the audit trail, but is bounced in the table"
    ]


def test_a_row_that_waits_again_after_its_end_is_noticed(story: DeliverStory) -> None:
    rewrite(story, 1, State.WAITING)

    assert (
        f"dispatch {dispatch(1)} was delivered by the audit trail, but is waiting in the table" in story.off()
    )


def test_a_row_without_a_journal_is_noticed(story: DeliverStory) -> None:
    facts = story.facts()
    facts.deliver.journal.clear()
    facts.deliver.now.clear()

    _, off = dispatches.compare(facts)

    assert f"{ROWS} has 9 records of DELIVER's partition 0, the journal no cut" in off
    assert f"{AUDIT} has 10 records of DELIVER's partition 0, the journal no cut" in off


def test_history_that_was_sent_is_noticed(story: DeliverStory) -> None:
    facts = story.facts()
    facts.deliver.ends[dispatch(8)] = facts.deliver.ends[dispatch(1)]

    assert f"dispatch {dispatch(8)} is of loaded history, but has an end" in dispatches.compare(facts)[1]


def test_an_end_without_a_command_is_noticed(story: DeliverStory) -> None:
    facts = story.facts()
    del facts.deliver.commands[dispatch(3)]

    assert f"dispatch {dispatch(3)} has an end, but no command" in dispatches.compare(facts)[1]


# What retention has deleted


@pytest.mark.parametrize("topic", [JOURNAL, AUDIT, COMMANDS, RECALLS, LETTERS])
def test_what_retention_deleted_is_no_discrepancy_but_a_note(story: DeliverStory, topic: str) -> None:
    for low in range(1, story.records[topic][-1].offset + 2):
        story.expire(topic, low)
        assert dispatches.compare(story.facts())[1] == [], low
        assert f"{topic} partition 0 begins at offset {low}" in compare(story.facts()).notes[0]


def test_what_stood_when_the_journal_begins_is_in_the_balance(story: DeliverStory) -> None:
    story.expire(JOURNAL, 2)

    commands, _ = story.report()

    assert (commands.stood_before, commands.consumed, commands.missing()) == (3, 2, 0)


def test_what_is_left_after_retention_is_still_checked(story: DeliverStory) -> None:
    story.expire(AUDIT, 1)
    story.drop_audit(2, "delivered")

    assert any("delivered, the audit trail" in line for line in story.off())


# How it is shown


def shown(report: Report) -> str:
    console = show.console()
    with console.capture() as capture:
        cli.tell(console, report, True)
    return " ".join(capture.get().split())


def test_the_account_names_every_fate(story: DeliverStory) -> None:
    counts, _ = dispatches.compare(story.facts())

    text = shown(Report(commands=counts))

    assert "taken up 12 = of loaded history, never sent 1 + delivered 2 + bounced 1" in text
    assert "+ pending 1 after 1 attempt put off + in flight 1" in text
    assert "✘" not in text
    assert set(FATES) == set(counts[0].fates)


def test_the_account_shows_both_figures_where_witnesses_differ(story: DeliverStory) -> None:
    story.drop_audit(1, "delivered")
    counts, off = dispatches.compare(story.facts())

    assert "+ delivered 2 (found 1)" in shown(Report(commands=counts, discrepancies=off))


def test_no_command_taken_up_is_said() -> None:
    assert "no command has been taken up yet" in shown(Report())


def test_the_machine_form_has_the_commands(story: DeliverStory) -> None:
    counts, _ = dispatches.compare(story.facts())

    form = cli.machine_form(Report(commands=counts))

    assert form["commands_in_all"]["fates"]["delivered"] == 2
    assert form["commands"][0]["partition"] == 0
    assert show.as_json(form)
