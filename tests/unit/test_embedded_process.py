"""Recorded child processes, records, locks and ports of embedded servers."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.embedded.process import (
    LISTEN_PORTS,
    Child,
    EmbeddedError,
    await_ready,
    child_environment,
    choose_ports,
    exit_status,
    find,
    listens,
    locked,
    read_child,
    read_record,
    spawn,
    stop,
    tail,
    write_atomically,
    write_child,
)

FOREVER = "import signal, sys; print('running', flush=True); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + FOREVER

Start = Callable[[str], Child]


def eventually(holds: Callable[[], object], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def started(code: str) -> Child:
        log = tmp_path / "child.log"
        child = spawn([sys.executable, "-c", code, str(tmp_path)], marker=str(tmp_path), log=log)
        children.append(child)
        assert eventually(lambda: "running" in tail(log))
        return child

    yield started
    for child in children:
        stop(child, patience=0.0)


def test_a_child_is_found_by_its_record(start: Start, tmp_path: Path) -> None:
    child = start(FOREVER)

    write_child(tmp_path / "server.json", child)
    recorded = read_child(tmp_path / "server.json")

    assert recorded == child
    assert recorded is not None
    process = find(recorded)
    assert process is not None
    assert process.pid == child.pid


@pytest.mark.skipif(not psutil.LINUX, reason="elsewhere the system keeps the time of day of a birth itself")
def test_a_child_is_found_after_the_clock_was_set(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    child = start(FOREVER)
    boot = psutil.boot_time()

    # Whatever tells times of day from the boot on tells others from now on.
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 35.0)
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 35.0)

    assert find(child) is not None
    stop(child, patience=0.0)
    assert find(child) is None


def test_a_child_has_a_session_of_its_own_so_that_it_outlives_the_terminal(start: Start) -> None:
    child = start(FOREVER)

    assert os.getsid(child.pid) == child.pid != os.getsid(0)


@pytest.mark.parametrize(
    "other", [{"birth": 1.0}, {"marker": "/another/state/folder"}], ids=["other birth", "other command"]
)
def test_a_process_that_only_has_the_recorded_pid_is_left_alone(
    start: Start, other: dict[str, object]
) -> None:
    child = start(FOREVER)
    stale = replace(child, **other)  # type: ignore[arg-type]

    stop(stale, patience=0.0)

    assert find(stale) is None
    assert find(child) is not None


def test_stop_ends_a_child_and_its_status_can_be_told(start: Start) -> None:
    child = start("import sys, signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3));" + FOREVER)

    stop(child, patience=60.0)

    assert find(child) is None


def test_stop_kills_a_child_that_ignores_the_request(start: Start) -> None:
    child = start(DEAF)

    stop(child, patience=0.1)

    assert find(child) is None


def test_stopping_twice_is_the_same_as_once(start: Start) -> None:
    child = start(FOREVER)

    stop(child, patience=60.0)
    stop(child, patience=60.0)

    assert find(child) is None


def test_a_child_is_stopped_though_whoever_started_it_never_asks_how_it_ended(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = (
        "import sys, time; from pathlib import Path; from infra.embedded.process import spawn, write_child\n"
        f"log, record = Path({str(log)!r}), Path({str(tmp_path / 'record')!r})\n"
        f"write_child(record, spawn([sys.executable, '-c', {FOREVER!r}, {str(tmp_path)!r}],"
        f" marker={str(tmp_path)!r}, log=log))\n"
        "time.sleep(600)"
    )
    careless = subprocess.Popen([sys.executable, "-c", code])  # noqa: S603 - our own words
    try:
        assert eventually(lambda: "running" in tail(log) and (tmp_path / "record").exists())
        child = read_child(tmp_path / "record")
        assert child is not None

        stop(child, patience=60.0)

        assert find(child) is None
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    finally:
        careless.kill()
        careless.wait()
        if left := read_child(tmp_path / "record"):
            stop(left, patience=0.0)


def test_a_child_that_was_killed_is_not_found_and_tells_the_signal_each_time(start: Start) -> None:
    child = start(FOREVER)
    os.kill(child.pid, signal.SIGKILL)

    assert eventually(lambda: find(child) is None)
    assert eventually(lambda: exit_status(child) is not None)
    assert [exit_status(child), exit_status(child)] == [-signal.SIGKILL, -signal.SIGKILL]


def test_the_status_of_a_process_that_is_not_ours_is_unknown() -> None:
    assert exit_status(Child(pid=1, birth=0.0, marker="init")) is None


def test_a_marker_that_the_command_line_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no part of the command line"):
        spawn([sys.executable, "-c", "pass"], marker="/state", log=tmp_path / "log")


def test_waiting_ends_when_the_child_is_ready(start: Start) -> None:
    answers = iter([False, False, True])

    assert await_ready(start(FOREVER), lambda: next(answers), seconds=60.0)


def test_waiting_ends_when_the_child_has_ended(start: Start) -> None:
    child = start(FOREVER)
    os.kill(child.pid, signal.SIGKILL)

    assert not await_ready(child, lambda: False, seconds=60.0)


def test_waiting_ends_when_the_time_is_over_and_leaves_the_child_running(start: Start) -> None:
    child = start(FOREVER)

    assert not await_ready(child, lambda: False, seconds=0.05)
    assert find(child) is not None


def test_java_gets_no_options_that_nobody_asked_for_and_reads_any_file_name() -> None:
    given = {"PATH": "/bin", "JAVA_TOOL_OPTIONS": "-Xmx9g", "LC_ALL": "C"}

    assert child_environment(given) == {"PATH": "/bin", "LC_CTYPE": "C.UTF-8"}


def test_a_tail_leaves_out_stack_frames_and_empty_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\n\ntwo\njava.lang.Error: full\n\tat kafka.Kafka.main(Kafka.scala)\nfour\n")

    assert tail(log, lines=3) == "two\njava.lang.Error: full\nfour"


def test_a_log_that_is_not_there_has_an_empty_tail(tmp_path: Path) -> None:
    assert tail(tmp_path / "log") == ""


def test_a_failed_write_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    write_atomically(path, b"old")

    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_record_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "server.json") is None
    assert read_child(tmp_path / "server.json") is None


@pytest.mark.parametrize("text", ["{", "[1]", '{"pid": "7", "birth": 1.0, "marker": "x"}', "{}"])
def test_a_record_that_somebody_edited_is_refused_naming_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.json"
    path.write_text(text)

    with pytest.raises(EmbeddedError, match="server.json is not readable"):
        read_child(path)


def test_a_lock_is_waited_for_and_the_wait_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with locked(path, lambda _: waiting.set()):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30.0)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]


def test_a_process_that_dies_gives_its_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import os, pathlib, sys; from infra.embedded.process import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os._exit(9)"
    )
    root = Path(__file__).parents[2]

    died = subprocess.run([sys.executable, "-c", code, str(path)], check=False, cwd=root)  # noqa: S603 - our own code

    assert died.returncode == 9
    with locked(path, lambda message: pytest.fail(message)):
        pass


def test_a_wanted_port_is_given_when_it_is_free() -> None:
    first = choose_ports({"client": None, "controller": None})

    assert choose_ports(first) == first
    assert len(set(first.values())) == 2


def test_a_wanted_port_that_is_taken_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert choose_ports({"client": port})["client"] != port


def test_ports_are_chosen_where_no_outgoing_connection_gets_its_own() -> None:
    assert choose_ports({"client": None})["client"] in LISTEN_PORTS


def test_only_who_listens_at_a_port_is_said_to(start: Start, tmp_path: Path) -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]);" + FOREVER
    listening = start(code)
    port = int(tail(tmp_path / "child.log").split()[0])
    other = start(FOREVER)

    assert listens(listening, port)
    assert not listens(other, port)
    stop(listening, patience=30.0)
    assert not listens(listening, port)


def test_a_child_holds_no_lock_that_a_shell_left_open(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        fcntl.flock(lock, fcntl.LOCK_EX)
        start(FOREVER)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
