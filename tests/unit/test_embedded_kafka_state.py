"""What an embedded Kafka writes and remembers, without starting one."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.embedded import EmbeddedError, KafkaServer
from infra.embedded.kafka import cluster_id, cluster_of, properties, server_settings
from infra.embedded.process import Child, birth_of, write_child, write_record

PORTS = {"client": 21001, "controller": 21002}


def test_topics_are_never_created_by_accident() -> None:
    assert server_settings(Path("/data"), PORTS)["auto.create.topics.enable"] == "false"


def test_only_this_machine_can_connect() -> None:
    settings = server_settings(Path("/data"), PORTS)

    assert settings["listeners"] == "CLIENT://127.0.0.1:21001,CONTROLLER://127.0.0.1:21002"
    assert settings["advertised.listeners"] == settings["listeners"]


def test_what_a_producer_may_send_a_replica_may_fetch() -> None:
    settings = server_settings(Path("/data"), PORTS)

    assert settings["message.max.bytes"] == settings["replica.fetch.max.bytes"] == str(4 << 20)


def test_a_properties_file_escapes_what_java_would_read_otherwise() -> None:
    assert properties({"log.dirs": "C:\\ü/𝄞"}) == b"log.dirs=C:\\\\\\u00fc/\\ud834\\udd1e\n"


def test_a_cluster_id_is_16_bytes_and_no_option() -> None:
    for made in (cluster_id() for _ in range(200)):
        assert len(base64.urlsafe_b64decode(made + "==")) == 16
        assert not made.startswith("-")


def test_a_data_folder_knows_its_cluster(tmp_path: Path) -> None:
    assert cluster_of(tmp_path) is None

    (tmp_path / "meta.properties").write_text("#\nnode.id=1\ncluster.id=abc\n")

    assert cluster_of(tmp_path) == "abc"


def test_a_folder_that_kafka_would_take_for_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="choose folders without"):
        KafkaServer(tmp_path / "a,b", tmp_path)
    with pytest.raises(EmbeddedError, match="choose folders without"):
        KafkaServer(tmp_path, tmp_path / f"a{os.pathsep}b")


def test_a_server_that_never_ran_is_down_and_nothing_is_written(tmp_path: Path) -> None:
    status = KafkaServer(tmp_path / "state", tmp_path / "cache").status()

    assert (status.health, status.endpoint, status.pid, status.uptime) == ("down", None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_down_leaves_a_foreign_process_alone_that_got_the_recorded_pid(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path, tmp_path / "cache")
    config = str(tmp_path / "kafka" / "server.properties")
    (tmp_path / "kafka").mkdir()
    write_record(tmp_path / "kafka" / "ports.json", PORTS)
    code = "import signal; signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code, config]) as foreign:  # noqa: S603 - our own code
        birth = birth_of(psutil.Process(foreign.pid))
        write_child(tmp_path / "kafka" / "server.json", Child(foreign.pid, birth - 3600.0, config))

        assert server.status().health == "dead"
        server.down()

        assert foreign.poll() is None
        assert server.status().health == "down"
        foreign.kill()
