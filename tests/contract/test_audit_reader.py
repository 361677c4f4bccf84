"""Every reader of the audit trail gives the same records, decoded alike, in the order they were written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas import codec, topics
from sinks.audit import AuditReader
from streams import reading
from streams.engine.kafka import read_all
from tests.support import record, stack

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse]

PARTITIONS = 3
Trail = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, AuditReader], Trail]]:
    """Both readers over what DECIDE and DELIVER wrote, and the same read from the topic by hand."""
    folder: Path = tmp_path_factory.mktemp("audit")
    with stack.running(folder, PARTITIONS) as running, record.clickhouse(running) as house:
        ends = stack.load(running, days=9, households=80)
        running.start_worker()
        recorder = running.start_worker("record")
        stack.await_plan(running, ends)
        record.write_audit(running, [record.delivery(n, str(n % 20)) for n in range(200)])
        record.write_audit(running, [record.closure(n, str(n % 20)) for n in range(0, 200, 3)])
        record.await_landed(running, recorder)
        readers = {"topic": reading.audit_reader(running.client), "tables": house.audit()}
        yield readers, _by_hand(running)


def _by_hand(running: stack.Stack) -> Trail:
    consumer = running.client.reader()
    found: Trail = defaultdict(list)
    for partition in range(PARTITIONS):
        for each in read_all(consumer, topics.AUDIT.name, partition):
            decoded = codec.decode(topics.AUDIT.name, each.value or b"")
            found[decoded["recipient_id"]].append(decoded)
    consumer.close()
    return dict(found)


@pytest.mark.parametrize("name", ["topic", "tables"])
def test_a_recipients_records_come_back_as_they_were_written(
    landed: tuple[dict[str, AuditReader], Trail], name: str
) -> None:
    readers, written = landed
    assert len(written) > 20
    for recipient, records in written.items():
        assert list(readers[name].of_recipient(recipient)) == records


@pytest.mark.parametrize("name", ["topic", "tables"])
def test_all_records_come_back_each_recipients_in_order(
    landed: tuple[dict[str, AuditReader], Trail], name: str
) -> None:
    readers, written = landed
    found: Trail = defaultdict(list)
    for each in readers[name].all():
        found[each["recipient_id"]].append(each)
    assert dict(found) == written


@pytest.mark.parametrize("name", ["topic", "tables"])
@pytest.mark.parametrize("recipient", ["nobody", "", "x' OR 1 = 1 --", "%(recipient)s", "\\"])
def test_of_a_recipient_that_nobody_is_there_are_no_records(
    landed: tuple[dict[str, AuditReader], Trail], name: str, recipient: str
) -> None:
    assert list(landed[0][name].of_recipient(recipient)) == []


def test_what_was_written_has_every_body(
    landed: tuple[dict[str, AuditReader], Trail],
) -> None:
    fields = {tuple(sorted(each["body"])) for records in landed[1].values() for each in records}
    assert len(fields) == 6
