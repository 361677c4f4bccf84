"""A real broker: started, asked, killed, frozen and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.embedded import (
    BrokerDied,
    BrokerNotReady,
    Endpoint,
    JarRefused,
    KafkaServer,
    Status,
    default_cache,
)
from infra.embedded.jars import class_path

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).parents[2]


def config_of(state: Path) -> str:
    return str(state / "kafka" / "server.properties")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Return a running server for the tests that leave it as it is."""
    server = KafkaServer(tmp_path_factory.mktemp("shared"), default_cache())
    server.up()
    yield server
    server.down()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KafkaServer]:
    """Return a server that the test starts; it is ended afterwards."""
    server = KafkaServer(tmp_path, default_cache())
    yield server
    server.down()


def create(endpoint: Endpoint, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": str(endpoint)})
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(30.0)


def produce(endpoint: Endpoint, topic: str, value: bytes) -> None:
    acknowledged: list[Message] = []
    producer = Producer({"bootstrap.servers": str(endpoint), "log_level": 0, "message.max.bytes": 4 << 20})
    producer.produce(topic, value, on_delivery=lambda error, message: acknowledged.append(message))
    producer.flush(30.0)
    assert [message.error() for message in acknowledged] == [None]


def consume(endpoint: Endpoint, topic: str, group: str) -> bytes:
    consumer = Consumer(
        {
            "bootstrap.servers": str(endpoint),
            "log_level": 0,
            "group.id": group,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(60.0)
        assert message is not None
        assert message.error() is None
        value = message.value()
        assert isinstance(value, bytes)
        return value
    finally:
        consumer.close()


def dead(server: KafkaServer, signal_number: int) -> Status:
    """Return the status after the recorded process got a deadly signal."""
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal_number)
    while (status := server.status()).health != "dead":
        time.sleep(0.01)
    return status


def test_a_second_up_changes_nothing(shared: KafkaServer) -> None:
    before = shared.status()

    assert shared.up() == before.endpoint
    assert shared.status().pid == before.pid


def test_status_tells_address_process_and_folders_of_a_ready_server(shared: KafkaServer) -> None:
    status = shared.status()

    assert status.health == "ready"
    assert status.pid is not None
    assert status.uptime is not None
    assert status.uptime > 0
    assert status.data.is_dir()
    assert status.log.is_file()
    assert status.reason == ""


def test_another_process_sees_the_same_server(shared: KafkaServer) -> None:
    again = KafkaServer(shared.folder.parent, default_cache())

    assert again.status().pid == shared.status().pid
    assert again.status().health == "ready"


def test_what_is_produced_is_consumed_by_a_group(shared: KafkaServer) -> None:
    endpoint = shared.up()
    create(endpoint, "round.trip")

    produce(endpoint, "round.trip", b"hello")

    assert consume(endpoint, "round.trip", "readers") == b"hello"


def test_a_message_of_three_mebibytes_is_accepted_and_each_codec_is_read(shared: KafkaServer) -> None:
    endpoint = shared.up()
    large = os.urandom(3 << 20)
    for codec in ("lz4", "zstd", "snappy", "gzip"):  # the broker compresses anew: its native code loads
        create(endpoint, f"large.{codec}", **{"compression.type": codec})
        produce(endpoint, f"large.{codec}", large)
        assert consume(endpoint, f"large.{codec}", codec) == large


def test_a_transaction_commits(shared: KafkaServer) -> None:
    endpoint = shared.up()
    create(endpoint, "transactions")
    producer = Producer({"bootstrap.servers": str(endpoint), "transactional.id": "cutter"})
    producer.init_transactions(30.0)
    producer.begin_transaction()
    producer.produce("transactions", b"whole")
    producer.commit_transaction(30.0)

    assert consume(endpoint, "transactions", "committed") == b"whole"


def test_a_topic_that_nobody_created_is_an_error(shared: KafkaServer) -> None:
    servers: dict[str, str | int | float | bool] = {"bootstrap.servers": str(shared.up()), "log_level": 0}
    refused: list[str] = []
    producer = Producer({**servers, "topic.metadata.propagation.max.ms": 0})
    producer.produce("mistyped", b"lost?", on_delivery=lambda error, _: refused.append(str(error)))
    producer.flush(30.0)
    admin = AdminClient(servers)

    assert len(refused) == 1
    assert "UNKNOWN_TOPIC" in refused[0]
    assert "mistyped" not in admin.list_topics(timeout=30.0).topics


def test_addresses_and_data_survive_down_and_up(server: KafkaServer) -> None:
    first = server.up()
    create(first, "kept")
    produce(first, "kept", b"still here")
    server.down()
    down = server.status()

    second = server.up()

    assert (down.health, down.pid, down.endpoint) == ("down", None, first)
    assert second == first
    assert consume(second, "kept", "readers") == b"still here"


def test_down_ends_the_process_and_a_second_down_changes_nothing(server: KafkaServer) -> None:
    server.up()
    pid = server.status().pid
    assert pid is not None

    server.down()
    server.down()

    assert not psutil.pid_exists(pid)


def test_addresses_that_somebody_took_are_replaced_and_the_data_still_found(server: KafkaServer) -> None:
    first = server.up()
    create(first, "kept")
    produce(first, "kept", b"still here")
    connections = psutil.Process(server.status().pid).net_connections("tcp")
    ports = {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    server.down()
    taken = [socket.create_server(("127.0.0.1", port)) for port in ports]
    try:
        second = server.up()

        assert len(ports) == 2
        assert second.port not in ports
        assert consume(second, "kept", "readers") == b"still here"
    finally:
        for one in taken:
            one.close()


def test_a_killed_broker_is_reported_with_its_log_and_started_again_on_its_data(server: KafkaServer) -> None:
    first = server.up()
    create(first, "kept")
    produce(first, "kept", b"still here")

    status = dead(server, signal.SIGKILL)

    assert status.uptime is None
    assert "exit status -9" in status.reason
    assert "Kafka Server started" in status.reason
    assert server.up() == first
    assert server.status().pid != status.pid
    assert consume(first, "kept", "readers") == b"still here"


def test_a_broker_that_dies_while_it_starts_is_reported_and_can_be_repaired(server: KafkaServer) -> None:
    server.up()
    server.down()
    meta = server.data / "meta.properties"
    good = meta.read_text()
    meta.write_text(good.replace("node.id=1", "node.id=7"))

    with pytest.raises(BrokerDied) as died:
        server.up()

    assert died.value.status == 1
    assert "configured node id" in str(died.value)
    assert str(server.log) in str(died.value)
    assert server.status().health == "dead"
    meta.write_text(good)
    server.up()
    assert server.status().health == "ready"


def test_a_frozen_broker_is_unreachable_and_up_says_so(server: KafkaServer, tmp_path: Path) -> None:
    server.up()
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        status = server.status()
        with pytest.raises(BrokerNotReady, match=f"pid {pid}"):
            KafkaServer(tmp_path, default_cache(), start_seconds=0.1).up()
    finally:
        os.kill(pid, signal.SIGCONT)

    assert (status.health, status.pid) == ("unreachable", pid)
    assert "Kafka Server started" in status.reason
    assert server.up() == status.endpoint
    assert server.status().pid == pid


def test_two_commands_that_start_it_at_once_start_one_broker_that_outlives_them(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path, default_cache())
    code = (
        "import sys, pathlib; from infra.embedded import KafkaServer, default_cache\n"
        "print(KafkaServer(pathlib.Path(sys.argv[1]), default_cache()).up())"
    )
    try:
        commands = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)  # noqa: S603
            for _ in range(2)
        ]
        said = [command.communicate()[0].decode().strip() for command in commands]
        status = server.status()
        brokers = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if config_of(tmp_path) in (process.info["cmdline"] or [])
        ]
    finally:
        server.down()

    assert said == [str(status.endpoint)] * 2
    assert status.health == "ready"
    assert brokers == [status.pid]


def test_a_folder_of_any_name_will_do_in_any_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    server = KafkaServer(tmp_path / "Bücher und 本", default_cache())
    try:
        endpoint = server.up()
        create(endpoint, "named")
        produce(endpoint, "named", b"written")
        assert (server.data / "named-0").is_dir()
    finally:
        server.down()


def test_a_corrupt_jar_is_refused_before_anything_starts(tmp_path: Path) -> None:
    good = class_path(default_cache())[0].parent
    bad = shutil.copytree(good, tmp_path / "cache" / good.name)
    (jar,) = bad.glob("kafka-clients-*.jar")
    jar.write_bytes(jar.read_bytes()[:-1])
    server = KafkaServer(tmp_path / "state", tmp_path / "cache")

    with pytest.raises(JarRefused, match=r"kafka-clients-4\.3\.1\.jar was refused"):
        server.up()

    assert server.status().health == "down"
