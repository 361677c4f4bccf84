"""The whole of it: events in, mail out, all of it in ClickHouse, and addresses in the vault alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta

import clickhouse_connect
import pytest
from clickhouse_driver import Client as Driver

from infra.embedded import ClickHouseServer
from schemas.topics import TOPICS
from streams import reading
from streams.replay import completejourney
from streams.warehouse import Warehouse
from tests.support import mail, record, whole
from tests.support import stack as stacks
from tests.support.stack import Stack
from tests.support.whole import BEGIN

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse]

HOUSEHOLDS, DAYS, HOURS = 300, 20, 14
LIVE_FROM = BEGIN + timedelta(days=DAYS, hours=12)
QUESTION = "SELECT count() FROM opportune.decision"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Warehouse, dict[str, int]]]:
    """Twenty days of history and fourteen hours of life, with mail; three clients ask meanwhile."""
    folder = tmp_path_factory.mktemp("whole")
    with whole.running(folder, HOUSEHOLDS, DAYS + 2) as (stack, house):
        deliver, decide = stack.start_worker("deliver"), stack.start_worker("decide")
        recorder = stack.start_worker("record")
        history = completejourney.events(BEGIN, LIVE_FROM, HOUSEHOLDS)
        people = completejourney.people(BEGIN, LIVE_FROM, HOUSEHOLDS)
        from streams.replay import session

        _, ends = session.load_history(
            stack.client, whole.PARTITIONS, people + history, BEGIN, LIVE_FROM, lambda _: None
        )
        stacks.await_plan(stack, ends)
        asked = _ask(stack, house)
        whole.live(stack, LIVE_FROM, HOURS, 2400.0, HOUSEHOLDS)
        for worker in (deliver, decide):
            worker.terminate()
            assert worker.wait(60) == 0, stack.log(worker)[-3000:]
        record.await_landed(stack, recorder)
        recorder.terminate()
        assert recorder.wait(60) == 0, stack.log(recorder)[-3000:]
        yield stack, house, asked


def _ask(stack: Stack, house: Warehouse) -> dict[str, int]:
    """Ask one question with each client that analysts have, while everything runs."""
    endpoint = ClickHouseServer(stack.settings.state_dir).up()  # it runs: this only tells where
    answers = {}
    driver = Driver(endpoint.host, endpoint.port)
    answers["clickhouse-driver"] = driver.execute(QUESTION)[0][0]
    driver.disconnect()
    http = clickhouse_connect.get_client(host=endpoint.host, port=endpoint.http_port)
    answers["clickhouse-connect"] = http.query(QUESTION).result_rows[0][0]
    http.close()
    if shutil.which("clickhouse-client"):
        command = ["clickhouse-client", "--host", endpoint.host, "--port", str(endpoint.port)]
        told = subprocess.run(  # noqa: S603 - our own command line
            [*command, "--query", QUESTION], capture_output=True, text=True, check=True
        )
        answers["clickhouse-client"] = int(told.stdout)
    return answers


def test_three_clients_of_analysts_are_answered_while_it_runs(
    lived: tuple[Stack, Warehouse, dict[str, int]],
) -> None:
    assert {"clickhouse-driver", "clickhouse-connect"} <= lived[2].keys()
    assert all(count > 0 for count in lived[2].values()), lived[2]


def test_mail_went_out_and_all_of_it_is_accounted_for(
    lived: tuple[Stack, Warehouse, dict[str, int]],
) -> None:
    stack = lived[0]
    assert sum(mail.mails(stack).values()) > 20
    reconciled = stack.run("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr


def test_what_decide_wrote_comes_out_the_same_again_beside_what_deliver_wrote(
    lived: tuple[Stack, Warehouse, dict[str, int]],
) -> None:
    verified = lived[0].run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_story_of_a_mail_is_told_to_its_end(lived: tuple[Stack, Warehouse, dict[str, int]]) -> None:
    stack, house, _ = lived
    client = house.connect()
    found = client.execute("SELECT recipient_id FROM opportune.delivery WHERE kind = 'delivered' LIMIT 1")
    client.close()
    told = stack.run("explain", found[0][0], "--last", "0")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "delivered" in told.stdout


def test_no_address_stands_anywhere_but_in_the_vault_and_in_the_mail(
    lived: tuple[Stack, Warehouse, dict[str, int]],
) -> None:
    stack, house, _ = lived
    people = completejourney.contacts(BEGIN, BEGIN + timedelta(days=DAYS + 2), HOUSEHOLDS)
    addresses = {each["address"].encode() for each in people}
    assert len(addresses) > 100
    pattern = re.compile(rb"household-\d+@[a-z]+\.example")

    def leaks(data: bytes) -> set[bytes]:
        return set(pattern.findall(data)) & addresses

    consumer = stack.client.reader()
    for topic in TOPICS:
        for part in reading.parts(consumer, topic.name):
            for message in reading.messages(consumer, part):
                held = (message.key() or b"", message.value() or b"", repr(message.headers()).encode())
                assert not [found for each in held if (found := leaks(bytes(each)))], topic.name
    consumer.close()

    client = house.connect()
    tables = client.execute(
        "SELECT database, name FROM system.tables WHERE database IN ('opportune', 'opportune_stored')"
    )
    assert len(tables) > 10
    for database, table in tables:
        rows = client.execute(f"SELECT * FROM {database}.{table}")  # noqa: S608 - our tables
        assert not leaks(repr(rows).encode()), table
    client.close()

    # The last of the tests here: files are searched at rest, since servers that run move and drop theirs.
    stopped = stack.run("down")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    state = stack.settings.state_dir
    files = [path for path in state.rglob("*") if path.is_file() and "mail" not in path.parts]
    assert any(path.name == "contacts.sqlite" for path in files), "the vault is searched too"
    assert any(path.name.endswith(".log") for path in files)
    leaking = [path for path in files if leaks(path.read_bytes())]
    assert leaking == []
    in_mail = {found for path in state.rglob("*.eml") for found in leaks(path.read_bytes())}
    assert in_mail, "the search finds what there is"
