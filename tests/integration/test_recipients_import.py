"""`opportune recipients import` on a real Kafka: what lands where, and that no address leaves the vault."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import infra
from infra.embedded import KafkaServer
from schemas import policy_files, topics
from schemas.settings import Settings
from sinks.vault import Contact
from sinks.vault.sqlite import SqliteVault
from streams import cluster, recipients
from streams.engine.kafka import KafkaUnavailable, read_all
from streams.engine.partitioner import partition_of
from tests.support import stack as stacks
from tests.support.pipeline import decoded
from tests.support.stack import Stack

pytestmark = pytest.mark.kafka

PROVIDERS = policy_files.load_providers(Path(infra.__file__).parent / "policy")
FILE = """\
recipient_id,address,zone,locale,first_name
ann,ann@gmail.example,Europe/Berlin,de-DE,Ann
ben,ben@shop.example,,,
zoe,zoe.shop.example,,,
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with stacks.running(tmp_path) as running:
        SqliteVault.create(running.settings.vault_path, running.settings.vault_key_path).close()
        yield running


def _vault(settings: Settings) -> SqliteVault:
    return SqliteVault(settings.vault_path, settings.vault_key_path)


def _published(stack: Stack) -> list[dict[str, Any]]:
    found = decoded(stack.client, topics.ATTRIBUTES.name, stack.settings.partitions)
    return sorted(found, key=lambda each: str(each["recipient_id"]))


def test_addresses_go_into_the_vault_and_only_the_provider_onto_kafka(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text(FILE)
    told = stack.run("recipients", "import", str(file))
    assert told.returncode == 1, told.stderr
    assert "line 4: the address is not local@domain" in told.stdout

    with closing(_vault(stack.settings)) as vault:
        assert vault.get_many(["ann", "ben", "zoe"]) == {
            "ann": Contact("ann", "ann@gmail.example", {"first_name": "Ann"}),
            "ben": Contact("ben", "ben@shop.example"),
        }
    ann, ben = _published(stack)
    assert (ann["recipient_id"], ann["zone"], ann["locale"], ann["provider"]) == (
        "ann",
        "Europe/Berlin",
        "de-DE",
        "gmail",
    )
    assert (ben["recipient_id"], ben["zone"], ben["locale"], ben["provider"]) == ("ben", None, None, "other")

    raw, consumer = b"", stack.client.reader()
    for partition in range(stack.settings.partitions):
        for record in read_all(consumer, topics.ATTRIBUTES.name, partition):
            assert partition_of(record.key or b"", stack.settings.partitions) == partition
            raw += (record.key or b"") + (record.value or b"") + repr(record.headers).encode()
    consumer.close()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path != file]
    assert b"ann" in raw
    assert [
        where for where in (raw, *written) if b"@gmail.example" in where or b"@shop.example" in where
    ] == []
    assert "@shop" not in told.stdout + told.stderr


def test_a_file_imported_twice_gives_the_same(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text(FILE.removesuffix("zoe,zoe.shop.example,,,\n"))
    assert [stack.run("recipients", "import", str(file)).returncode for _ in range(2)] == [0, 0]
    ann, again, *_ = _published(stack)
    assert {**ann, "occurred_at": None} == {**again, "occurred_at": None}
    with closing(_vault(stack.settings)) as vault:
        assert vault.count() == 2


def test_where_kafka_dies_half_way_the_error_says_to_import_again_and_that_completes_it(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, settings = tmp_path / "people.csv", stack.settings
    rows = "".join(f"r{i},r{i}@mail.example,\n" for i in range(30_000))
    file.write_text(f"recipient_id,address,zone\n{rows}")
    kafka = KafkaServer(settings.state_dir, settings.cache_dir / "jars")
    pid = kafka.status().pid
    assert pid is not None
    monkeypatch.setattr("streams.reading._TIMEOUT_S", 3.0)  # how long it waits for Kafka to come back

    with (
        closing(_vault(settings)) as vault,
        pytest.raises(KafkaUnavailable, match="20,000 recipients are imported.*again is safe"),
    ):
        recipients.load(
            file, PROVIDERS, vault, stack.client, 1_700_000_000_000, lambda _: os.kill(pid, signal.SIGKILL)
        )
    with closing(_vault(settings)) as vault:
        assert vault.count() == 30_000, "the vault comes first"

    kafka.up()
    client = cluster.connect(settings)
    with closing(_vault(settings)) as vault:
        again = recipients.load(file, PROVIDERS, vault, client, 1_700_000_000_000, lambda _: None)
        assert (again.good.total(), vault.count()) == (30_000, 30_000)
    found = {each["recipient_id"] for each in decoded(client, topics.ATTRIBUTES.name, settings.partitions)}
    assert len(found) == 30_000
