"""The sandbox's messages against dispatches, and ClickHouse's rows against records."""

from pathlib import Path

import numpy as np
import pytest

from streams.cli import reconcile as cli
from streams.cli import show
from streams.reconcile import Report, compare
from streams.reconciling import mail, recorded
from streams.reconciling.mail import Mail
from streams.reconciling.recorded import Recorded, Spot, Sums
from tests.support.deliver_story import AUDIT, JOURNAL, LETTERS, DeliverStory, dispatch, result, whole_story

# Those that may have gone: delivered, delivered at the second attempt, unknown, in flight.
MAILS = {1: 1, 2: 1, 4: 1, 10: 1}


@pytest.fixture
def story() -> DeliverStory:
    return whole_story()


def off(story: DeliverStory, mails: dict[int, int], at_least_once: frozenset[str] = frozenset()) -> list[str]:
    return compare_mail(story, mails, at_least_once)[1]


def compare_mail(
    story: DeliverStory, mails: dict[int, int], at_least_once: frozenset[str] = frozenset()
) -> tuple[Mail, list[str]]:
    facts = story.facts(mails=mails)
    assert facts.mails is not None
    return mail.compare(facts.mails, facts.deliver, facts.begins, at_least_once)


def test_messages_are_counted_by_their_file_names_alone(tmp_path: Path) -> None:
    for name in ("ab/ab-1.1.eml", "ab/ab-1.2.eml", "cd/cd-2.1.eml", "7.part"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0)

    assert mail.stored(tmp_path) == {"ab-1": 2, "cd-2": 1}


def test_messages_of_whatever_may_have_gone_are_accounted_for(story: DeliverStory) -> None:
    assert compare_mail(story, MAILS) == (Mail(4, 4), [])


def test_what_was_delivered_after_the_journal_was_read_may_lack_its_message(story: DeliverStory) -> None:
    facts = story.facts(until_cut=3)

    assert mail.compare({dispatch(1): 1}, facts.deliver, facts.begins, ()) == (Mail(1, 1), [])


def test_a_delivered_dispatch_without_a_message_is_noticed(story: DeliverStory) -> None:
    without = {number: count for number, count in MAILS.items() if number != 1}

    assert off(story, without) == [f"dispatch {dispatch(1)} was delivered, but has no message in the sandbox"]


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (3, "was bounced, but has a message in the sandbox"),
        (5, "was recalled, but has a message in the sandbox"),
        (7, "was expired, but has a message in the sandbox"),
        (8, "is of loaded history, but has a message in the sandbox"),
        (9, "is waiting and was never tried, but has a message in the sandbox"),
        (99, "has a message in the sandbox, but DELIVER does not know it"),
    ],
)
def test_a_message_that_nobody_can_have_sent_is_noticed(story: DeliverStory, number: int, how: str) -> None:
    assert off(story, MAILS | {number: 1}) == [f"dispatch {dispatch(number)} {how}"]


def test_a_deferred_message_may_have_been_kept_whatever_comes_of_it(story: DeliverStory) -> None:
    story.command(11)
    story.cut(room=1)
    story.cut([result(9, "deferred", code=451)])

    assert off(story, MAILS | {9: 1}) == []


def test_a_doubled_message_is_noticed_unless_its_campaign_is_at_least_once(story: DeliverStory) -> None:
    twice = MAILS | {1: 2}

    assert off(story, twice) == [f"dispatch {dispatch(1)} has more than one message"]
    assert compare_mail(story, twice, frozenset({"win_back"})) == (Mail(5, 4, repeats=1), [])


def test_a_message_older_than_the_topics_is_not_missed(story: DeliverStory) -> None:
    story.expire(AUDIT, 1)

    assert off(story, MAILS | {99: 1}) == []


# ClickHouse


def landed_story(story: DeliverStory, until: int) -> Recorded:
    return story.facts(
        recorded=Recorded({(topic, 0): until for topic in (AUDIT, JOURNAL, LETTERS)})
    ).recorded or Recorded({})


def as_landed(found: Recorded) -> dict[Spot, Sums]:
    """What a ClickHouse says that has exactly what it must."""
    return {spot: Sums.of(found.landed_of(spot)) for spot in found.spots()}


def test_rows_that_are_those_of_the_records_agree(story: DeliverStory) -> None:
    found = landed_story(story, 1000)

    tables, differing = recorded.compare(found, as_landed(found))

    assert differing == []
    counts = {(table.table, table.topic): table.records for table in tables}
    assert counts["delivery", AUDIT] == len(story.records[AUDIT])
    assert counts["cut", JOURNAL] == 4
    assert counts["dlq", LETTERS] == 1
    assert counts["decision", AUDIT] == 0


def test_what_the_recorder_has_not_landed_is_behind_and_no_discrepancy(story: DeliverStory) -> None:
    found = landed_story(story, 4)

    tables, differing = recorded.compare(found, as_landed(found))

    assert differing == []
    journal = next(table for table in tables if (table.table, table.topic) == ("cut", JOURNAL))
    assert (journal.records, journal.rows, journal.behind) == (2, 2, 2)


def test_a_missing_row_is_noticed(story: DeliverStory) -> None:
    found = landed_story(story, 1000)
    there = as_landed(found)
    there["cut", (JOURNAL, 0)] = Sums.of(np.array([0, 2, 4], np.int64))

    assert recorded.compare(found, there)[1] == [
        f"ClickHouse cut: of {JOURNAL} partition 0 there are 3 rows, but 4 records were recorded"
    ]


def test_a_row_of_another_record_is_noticed_though_the_count_is_right(story: DeliverStory) -> None:
    found = landed_story(story, 1000)
    there = as_landed(found)
    there["cut", (JOURNAL, 0)] = Sums.of(np.array([0, 2, 3, 7], np.int64))

    [line] = recorded.compare(found, there)[1]

    assert "the 4 rows are not those of the records" in line


def test_offsets_that_have_the_same_sum_are_told_apart_too() -> None:
    one, other = Sums.of(np.array([1, 5], np.int64)), Sums.of(np.array([2, 4], np.int64))

    assert (one.count, one.total) == (other.count, other.total)
    assert one != other


def test_a_record_that_the_recorder_refused_is_not_missed(story: DeliverStory) -> None:
    found = landed_story(story, 1000)
    there = as_landed(found)
    found.refused[JOURNAL, 0] = {2}
    there["cut", (JOURNAL, 0)] = Sums.of(np.array([0, 4, 6], np.int64))

    assert recorded.compare(found, there)[1] == []


def test_a_dead_letter_written_again_after_a_kill_is_the_one_row_that_clickhouse_keeps(
    story: DeliverStory,
) -> None:
    story.repeat(LETTERS)
    last = story.records[LETTERS][-1].offset
    found = landed_story(story, 1000)
    there = as_landed(landed_story(story, 1000))
    there["dlq", (LETTERS, 0)] = Sums.of(np.array([last], np.int64))

    assert recorded.compare(found, there)[1] == []


def test_a_dead_letter_written_again_and_not_landed_yet_leaves_the_first_to_be_there(
    story: DeliverStory,
) -> None:
    first = story.records[LETTERS][-1].offset
    story.repeat(LETTERS)
    found = landed_story(story, first + 1)

    assert found.landed_of(("dlq", (LETTERS, 0))).tolist() == [first]


# How it is shown


def test_messages_and_tables_are_shown(story: DeliverStory) -> None:
    found = landed_story(story, 4)
    facts = story.facts(mails=MAILS)
    facts.recorded = found
    report = compare(facts, rows=as_landed(found))

    console = show.console()
    with console.capture() as capture:
        cli.tell(console, Report(commands=report.commands, mail=report.mail, tables=report.tables), False)
    text = " ".join(capture.get().split())

    assert "Sandbox: 4 messages of 4 dispatches" in text
    assert "cut deliver.journal 2 2 2 ✔" in text
    form = cli.machine_form(report)
    assert form["mail"] == {"messages": 4, "dispatches": 4, "repeats": 0}
    assert show.as_json(form)
