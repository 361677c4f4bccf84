"""RECORD on a real Kafka and ClickHouse: what is on the topics is in the tables, and can be asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from confluent_kafka import Message
from typer.testing import CliRunner, Result

from schemas import codec, topics
from schemas.reasons import DeadLetterReason
from sinks.clickhouse import migrate
from sinks.clickhouse.client import ClickHouseUnavailable, StatementRefused
from sinks.clickhouse.query import ask
from streams import facts, reading, record, restore, warehouse
from streams.cli import dictionary
from streams.cli import record as commands
from streams.dead_letters import Choice, DeadLetters
from streams.engine.cut import Out
from streams.engine.kafka import read_all
from streams.policy import load_policy
from streams.reconciling.recorded import Recorded, compare, sums_of
from streams.recording import progress
from streams.recording.batch import Unrecorded
from streams.warehouse import NoClickHouse, Warehouse
from tests.support import record as support
from tests.support import stack as stacks
from tests.support.pipeline import rows
from tests.support.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse]

PARTITIONS = 3


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Warehouse]]:
    """Nine days of shopping decided, some deliveries and dead letters, all recorded; the recorder is gone."""
    with (
        stacks.running(tmp_path_factory.mktemp("record"), PARTITIONS) as stack,
        support.clickhouse(stack) as house,
    ):
        reading.produce(stack.client, [Out(topics.CLICKS.name, b"1", b"no click", 0)])
        ends = stacks.load(stack, days=9, households=80)
        worker, recorder = stack.start_worker(), stack.start_worker("record")
        stacks.await_plan(stack, ends, lambda: _alive(stack, worker))
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
        support.write_audit(stack, [support.delivery(n, str(n % 20)) for n in range(300)])
        support.await_landed(stack, recorder)
        recorder.send_signal(signal.SIGTERM)
        assert recorder.wait(30) == 0, stack.log(recorder)[-3000:]
        yield stack, house


def _alive(stack: Stack, child: subprocess.Popen[bytes]) -> None:
    assert child.poll() is None, stack.log(child)[-3000:]


@pytest.fixture
def invoke(landed: tuple[Stack, Warehouse], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    stack, _ = landed
    monkeypatch.setenv("OPPORTUNE_STATE_DIR", str(stack.settings.state_dir))
    monkeypatch.setenv("OPPORTUNE_PARTITIONS", str(PARTITIONS))
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    commands.register(app)
    return lambda *command, **more: CliRunner().invoke(app, command, **more)


def _one(house: Warehouse, sql: str) -> tuple[object, ...]:
    return ask(house.address, house.views, sql).rows[0]


def test_every_record_on_the_topics_is_one_row(landed: tuple[Stack, Warehouse]) -> None:
    stack, house = landed
    consumer = stack.client.reader()
    for names, topic in (
        ("decision release closure delivery consent segment_transition", topics.AUDIT),
        ("cut", topics.JOURNAL),
        ("dlq", topics.DEAD_LETTERS),
    ):
        written = {
            (partition, each.offset)
            for partition in range(PARTITIONS)
            for each in read_all(consumer, topic.name, partition)
        }
        places = [
            place
            for name in names.split()
            for place in ask(house.address, house.views, f"SELECT partition, offset FROM {name}").rows  # noqa: S608
        ]
        assert len(written) > 0
        assert len(places) == len(written)
        assert set(places) == written
    consumer.close()


def test_a_snapshot_is_the_latest_row_of_each_recipient(landed: tuple[Stack, Warehouse]) -> None:
    stack, house = landed
    expected = {name for partition in range(PARTITIONS) for name in rows(stack.client, partition)}
    found = ask(
        house.address, house.views, "SELECT recipient_id, consent_mail, segments FROM profile_snapshot"
    ).rows
    assert {recipient for recipient, _, _ in found} == expected
    assert {consent for _, consent, _ in found} >= {"granted"}
    known = {segment.name for segment in load_policy(stack.settings).segments}
    assert {name for _, _, segments in found for name in segments} <= known
    transitions = ask(
        house.address,
        house.views,
        "SELECT recipient_id, groupArrayIf(segment, inside) FROM (SELECT recipient_id, segment, "
        "argMax(entered, offset) AS inside FROM segment_transition GROUP BY ALL) GROUP BY recipient_id",
    ).rows
    members = {recipient: sorted(segments) for recipient, _, segments in found if segments}
    assert members == {recipient: sorted(segments) for recipient, segments in transitions if segments}


def test_a_dead_letter_tells_where_the_record_stood(landed: tuple[Stack, Warehouse]) -> None:
    found = _one(
        landed[1], "SELECT origin_topic, origin_partition, origin_offset, reason, value_bytes FROM dlq"
    )
    assert found == (topics.CLICKS.name, 0, 0, "malformed", len(b"no click"))


@pytest.mark.parametrize("number", range(12))
def test_a_question_of_the_dictionary_is_answered(landed: tuple[Stack, Warehouse], number: int) -> None:
    stack, house = landed
    question = dictionary.questions()[number]
    result = ask(house.address, house.views, question.sql)
    names = [name for name, _ in result.columns]
    found = [dict(zip(names, row, strict=True)) for row in result.rows]
    decisions = int(str(_one(house, "SELECT count() FROM decision")[0]))
    released = int(str(_one(house, "SELECT count() FROM release WHERE outcome = 'released'")[0]))
    assert decisions > released > 0
    if number == 0:
        assert len(found) == _one(house, "SELECT count() FROM decision WHERE recipient_id = '1'")[0]
    elif number == 1:
        withheld = _one(house, "SELECT sum(withheld) FROM cut")[0]
        assert sum(row["decisions"] for row in found) == withheld
    elif number == 2:
        assert found == [{"released": released, "without_consent": 0}]
    elif number == 3:
        assert 1 <= found[0]["most_in_window"] <= load_policy(stack.settings).contact.cap[0].most
    elif number == 4:
        assert [row["arm"] for row in found] == ["model"]
        reached = "campaign = 'browse_abandonment' AND (outcome = 'scheduled' OR reason = 'outranked')"
        [people] = _one(house, f"SELECT uniqExact(recipient_id) FROM decision WHERE {reached}")  # noqa: S608
        assert 0 < found[0]["recipients"] <= people
    elif number == 5:
        assert [(row["delivered"], row["bounced"]) for row in found] == [(100, 100)]
    elif number == 6:
        assert found[0]["decisions"] == decisions
    elif number == 7:
        assert found == []
    elif number == 8:
        assert len(found) == PARTITIONS
        assert all(row["missing_cuts"] == 0 for row in found)
        assert all(row["decided_in_journal"] == row["decisions_here"] for row in found)
    elif number == 9:
        assert sum(row["rows"] for row in found) > 0
    elif number == 10:
        assert sum(row["decisions"] for row in found) == decisions
    else:
        assert found[0]["rows_in_view"] == found[0]["decisions"] == decisions


def test_the_dictionary_has_twelve_questions_and_is_up_to_date(landed: tuple[Stack, Warehouse]) -> None:
    house = landed[1]
    assert len(dictionary.questions()) == 12
    client = house.connect()
    page = dictionary.page(client, house.views)
    client.close()
    assert dictionary.PAGE.read_text() == page, "run `python -m streams.cli.dictionary`"


def test_sql_prints_a_table_json_lines_and_csv(invoke: Callable[..., Result]) -> None:
    statement = "SELECT 'a,b' AS word, toInt32(7) AS number, NULL AS nothing, [1, 2] AS list"
    table = invoke("sql", statement)
    assert table.exit_code == 0, table.output
    assert "word" in table.stdout
    assert "1 row" in table.stdout
    lines = invoke("sql", statement, "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"word": "a,b", "number": 7, "nothing": None, "list": [1, 2]}
    ]
    assert invoke("sql", statement, "--csv").stdout == 'word,number,nothing,list\n"a,b",7,,"[1, 2]"\n'
    assert (
        "2017-01-02 03:04:05.678"
        in invoke("sql", "-", input="SELECT toDateTime64('2017-01-02 03:04:05.678', 3, 'UTC') AS at;").stdout
    )


def test_sql_shows_only_the_beginning_of_a_long_result(invoke: Callable[..., Result]) -> None:
    shown = invoke("sql", "SELECT number, repeat('x', 500) AS text FROM numbers(1000)").stdout
    assert "1,000 rows; the first 200 are shown" in shown
    assert "x" * 130 not in shown
    assert len(invoke("sql", "SELECT number FROM numbers(1000)", "--json").stdout.splitlines()) == 1000


def test_sql_lists_the_columns_of_a_row_that_is_too_wide_for_a_table(invoke: Callable[..., Result]) -> None:
    shown = invoke("sql", "SELECT * FROM profile_snapshot ORDER BY recipient_id LIMIT 2").stdout
    assert sum(line.startswith("recipient_id ") for line in shown.splitlines()) == 2
    assert "2 rows" in shown


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE opportune_stored.decision",
        "INSERT INTO opportune_stored.dlq (reason) SELECT 'x'",
        "/* SELECT */ INSERT INTO FUNCTION null('a UInt8') SELECT 1",
        "WITH 1 AS a INSERT INTO FUNCTION null('a UInt8') SELECT a",
        "SELECT 1 INTO /* a */ OUTFILE 'x'",
        "CREATE TEMPORARY TABLE t (a UInt8)",
        "KILL QUERY WHERE 1",
        "SYSTEM START MERGES",
        "SELECT 1 SETTINGS readonly = 0",
    ],
)
def test_sql_changes_nothing(invoke: Callable[..., Result], statement: str) -> None:
    refused = invoke("sql", statement)
    assert isinstance(refused.exception, StatementRefused)
    assert "readonly" in str(refused.exception)


def test_an_error_in_sql_is_told_in_clickhouses_words_alone(invoke: Callable[..., Result]) -> None:
    refused = invoke("sql", "SELECT nothing FROM decision")
    assert isinstance(refused.exception, StatementRefused)
    assert "nothing" in str(refused.exception)
    assert "Stack trace" not in str(refused.exception)


def test_a_clickhouse_that_is_not_there_is_told_of(landed: tuple[Stack, Warehouse], tmp_path: Path) -> None:
    stack, _ = landed
    gone = warehouse.connect(stack.settings.model_copy(update={"clickhouse": "127.0.0.1:1"}))
    with pytest.raises(ClickHouseUnavailable, match="127.0.0.1:1 does not answer"):
        ask(gone.address, gone.views, "SELECT 1")
    for update in ({"state_dir": tmp_path}, {"clickhouse": "localhost"}):
        with pytest.raises(NoClickHouse):
            warehouse.connect(stack.settings.model_copy(update=update))


def test_a_restore_gives_what_was_there_and_the_recorder_goes_on(
    landed: tuple[Stack, Warehouse], invoke: Callable[..., Result]
) -> None:
    stack, house = landed
    before = support.contents(house)
    client = house.connect()
    client.execute(f"DROP DATABASE {house.stored} SYNC")
    client.close()
    done = invoke("restore-audit", "--yes")
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    assert support.contents(house) == before
    recorder = stack.start_worker("record")
    support.write_audit(stack, [support.closure(1000, "restored")])
    support.await_landed(stack, recorder)
    with pytest.raises(restore.RecorderRuns, match="stop them first"):
        restore.Restore(stack.client, house, record.segment_names(stack.client, stack.settings))
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(30) == 0
    after = support.contents(house)
    assert len(after["closure"]) == len(before["closure"]) + 1
    assert support.stored_twice(house) == 0


def test_a_restore_keeps_hours_that_compaction_has_taken_from_their_topic(
    landed: tuple[Stack, Warehouse], invoke: Callable[..., Result]
) -> None:
    client = landed[1].connect()
    asked = f"FROM {landed[1].stored}.activity FINAL WHERE recipient_id = 'long ago'"
    row = {"recipient_id": "long ago", "hour": support.AT // 1000, "topic": topics.PROFILES.name}
    row |= {"partition": 0, "offset": 0, "written_at": time.time_ns() // 1_000_000}
    client.insert(f"{landed[1].stored}.activity", tuple(row), [[value] for value in row.values()], {})
    others = client.execute(f"SELECT count() FROM {landed[1].views}.activity")  # noqa: S608 - our view
    assert others[0][0] > 100
    assert invoke("restore-audit", "--yes").exit_code == 0
    assert client.execute(f"SELECT count() {asked}") == [(1,)]
    assert client.execute(f"SELECT count() FROM {landed[1].views}.activity") == others  # noqa: S608 - our view
    client.execute(f"DELETE {asked.replace(' FINAL', '')}")
    client.close()


def test_a_restore_that_is_not_confirmed_changes_nothing(
    landed: tuple[Stack, Warehouse], invoke: Callable[..., Result]
) -> None:
    before = support.contents(landed[1])
    assert invoke("restore-audit", input="n\n").exit_code == 1
    assert support.contents(landed[1]) == before


def test_a_recorder_tells_its_figures(landed: tuple[Stack, Warehouse]) -> None:
    stack, _ = landed
    recorder = stack.start_worker("record")
    support.write_audit(stack, [support.closure(2000 + n, "figures") for n in range(3)])
    support.await_landed(stack, recorder)
    figures = stack.metrics(recorder)
    assert 'opportune_record_rows_total{table="closure"} 3.0' in figures
    assert "opportune_record_waiting 0.0" in figures
    assert "opportune_record_lag_seconds" in figures
    assert "figures" not in figures
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(30) == 0


def test_rows_that_clickhouse_refuses_go_to_the_dead_letters_alone(landed: tuple[Stack, Warehouse]) -> None:
    stack, house = landed
    records = [support.delivery(5000 + n, "refused") for n in range(9)]
    records[4]["body"][1]["dispatch_id"] = "no id"
    offsets = support.write_audit(stack, records)
    recorder = stack.start_worker("record")
    support.await_landed(stack, recorder)
    count = "SELECT count() FROM delivery WHERE recipient_id = 'refused'"
    assert _one(house, count) == (8,)
    letters = [each for each in DeadLetters(stack.client).chosen(Choice()) if each.reason == "refused"]
    assert [(each.topic, each.offset, each.key) for each in letters] == [
        (topics.AUDIT.name, offsets[4], b"refused")
    ]
    assert codec.decode(topics.AUDIT.name, letters[0].value or b"")["recipient_id"] == "refused"
    assert "no id" in letters[0].error
    support.await_landed(stack, recorder)
    assert _one(house, "SELECT count() FROM dlq WHERE reason = 'refused'") == (1,)
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(30) == 0


def test_a_dead_letter_written_again_by_a_recorder_that_was_killed_is_no_discrepancy(
    landed: tuple[Stack, Warehouse],
) -> None:
    stack, house = landed
    message = Message(
        topic=topics.AUDIT.name, partition=0, offset=10**9, value=b"", timestamp=(2, support.AT)
    )
    letter = Unrecorded(message, DeadLetterReason.MALFORMED, "it was").letter()
    recorder = stack.start_worker("record")
    for _ in range(2):
        reading.produce(stack.client, [letter])
        support.await_landed(stack, recorder)
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(30) == 0
    expected = Recorded(progress.committed(stack.client))
    begins = facts.read(stack.client, recorded=expected).begins
    assert compare(expected, sums_of(house.address, house.views, expected, begins))[1] == []


def test_a_dead_letter_that_is_none_is_passed_over_and_makes_no_other(
    landed: tuple[Stack, Warehouse],
) -> None:
    stack, _ = landed
    name = topics.DEAD_LETTERS.name
    before = len(list(DeadLetters(stack.client).chosen(Choice())))
    (offset,) = reading.produce(stack.client, [Out(name, b"x", b"no letter", 1)])
    recorder = stack.start_worker("record")
    support.await_landed(stack, recorder)
    consumer = stack.client.reader()
    letters = [each for p in range(PARTITIONS) for each in read_all(consumer, name, p)]
    consumer.close()
    assert len(letters) == before + 1
    assert 'opportune_record_dead_letters_total{reason="malformed"} 1.0' in stack.metrics(recorder)
    refused = next(line for line in stack.log(recorder).splitlines() if "record_refused" in line)
    assert f'"offset": {offset}' in refused
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(30) == 0


def test_a_migration_that_was_changed_after_it_was_applied_is_refused_by_name(
    landed: tuple[Stack, Warehouse],
) -> None:
    client = landed[1].connect()
    known = migrate.migrations()
    other = [migrate.Migration(1, "one", "CREATE TABLE IF NOT EXISTS {stored}.one (x Int8) ENGINE = Log;")]
    try:
        assert migrate.migrate(client, "elsewhere", other) == ["0001_one"]
        assert migrate.migrate(client, "elsewhere", other) == []
        changed = [migrate.Migration(1, "one", other[0].text + "\n")]
        with pytest.raises(migrate.MigrationChanged, match="0001_one was applied and has been changed"):
            migrate.migrate(client, "elsewhere", changed)
        with pytest.raises(migrate.MigrationChanged, match="0001_one was applied and is not known here"):
            migrate.pending(client, "elsewhere", [])
        assert [each.number for each in migrate.pending(client, "nowhere", known)] == [
            m.number for m in known
        ]
        with pytest.raises(migrate.MigrationsPending, match="0001_decision"):
            migrate.check(client, "nowhere")
    finally:
        migrate.drop(client, "elsewhere")
        client.close()


def test_tables_made_by_two_at_once_are_whole(landed: tuple[Stack, Warehouse]) -> None:
    house = Warehouse(landed[1].address, "both")
    client = house.connect()
    try:
        code = (
            "from sinks.clickhouse.client import Address; from streams.warehouse import Warehouse; "
            f"Warehouse(Address({house.address.host!r}, {house.address.port}), 'both').migrate()"
        )
        both = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(2)]  # noqa: S603
        assert [each.wait(60) for each in both] == [0, 0]
        migrate.check(client, "both")
        tables = "SELECT count() FROM system.tables WHERE database = %(name)s"
        assert client.execute(tables, {"name": "both"}) == client.execute(tables, {"name": landed[1].views})
    finally:
        migrate.drop(client, "both")
        client.close()


def test_migrate_says_what_it_did(invoke: Callable[..., Result]) -> None:
    assert "0 migrations applied" in invoke("migrate").stdout
    assert invoke("migrate", "--check").exit_code == 0
