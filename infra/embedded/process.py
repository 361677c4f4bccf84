"""What every embedded server needs: a recorded child process, a lock, an atomic record and free ports.

A child outlives the command that started it, so all that later commands know of it is what was written
down. A pid alone is not enough to end a process by, because the system gives pids out again; a `Child` is
therefore recognised by three things at once: its pid, how long after the boot it was born, and a text that
its command line must contain. Whatever fails one of them is somebody else's process and is never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

Progress = Callable[[str], None]

# The boot time is told in whole seconds.
SAME_BIRTH_SECONDS = 5.0
# Below the range from which Linux (32768 up) and macOS (49152 up) take the ports of outgoing connections:
# there, a client that keeps retrying a stopped server on this machine can be given the server's own port.
LISTEN_PORTS = range(20_000, 32_000)
# A Java process reads these by itself; they would change heap sizes, or write to the log.
JAVA_VARIABLES = ("CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")


class EmbeddedError(Exception):
    """An embedded server could not do what was asked; the message names the remedy."""


def silent(_message: str) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class Child:
    """A process we started: `birth` as `birth_of` tells it, `marker` a text of its command line."""

    pid: int
    birth: float
    marker: str


# The system tells how a child ended only once.
_ENDED: dict[Child, int] = {}


def spawn(command: Sequence[str], *, marker: str, log: Path) -> Child:
    """Start `command` in a session of its own, stdout and stderr appended to `log`; return at once.

    The child keeps none of our files open, nor any that a shell left open for us, so it holds nobody's lock.

    Raises
    ------
    ValueError
        `marker` is no part of `command`; the child could never be recognised.
    OSError
        The program cannot be executed, or `log` not opened.
    """
    if not any(marker in word for word in command):
        raise ValueError(f"the marker {marker!r} is no part of the command line {command!r}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        list(command),
        child_environment(os.environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
        ],
        setsid=True,
    )
    return Child(pid, birth_of(psutil.Process(pid)), marker)


def _inheritable() -> list[int]:
    """Open descriptors, beside the first three, that a child would inherit."""
    found = []
    for descriptor in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the one by which the folder was listed is closed again
            if descriptor > 2 and os.get_inheritable(descriptor):
                found.append(descriptor)
    return found


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without options for Java that nobody asked for, and with UTF-8 file names.

    In the C locale, which a service or a container often has, Java cannot open a folder called `Bücher`.
    """
    kept = {name: value for name, value in environment.items() if name not in (*JAVA_VARIABLES, "LC_ALL")}
    return {**kept, "LC_CTYPE": "C.UTF-8"}


def birth_of(process: psutil.Process) -> float:
    """Return when a process was born, in seconds, by a clock that nobody sets: on Linux, since the boot.

    Linux keeps just that. What it tells as a time of day is worked out from what the clock says now, so it
    changes for a living process when the clock is set, as it is after a virtual machine was moved.
    """
    return float(process.create_time() - (psutil.boot_time() if psutil.LINUX else 0.0))


def find(child: Child) -> psutil.Process | None:
    """Return the process that `child` is the record of, or None if it has ended.

    A killed process whose threads are still ending counts as running: it still has its ports and its files.
    """
    try:
        process = psutil.Process(child.pid)
        if abs(birth_of(process) - child.birth) >= SAME_BIRTH_SECONDS:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            return process if process.num_threads() > 1 else None
        words = process.cmdline()  # already empty where it is ending
    except psutil.ZombieProcess:
        return find(child)  # it became one between the two questions
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return process if not words or any(child.marker in word for word in words) else None


def listens(child: Child, port: int) -> bool:
    """Tell whether it is `child` that accepts TCP connections at `port`."""
    process = find(child)
    if process is None:
        return False
    try:
        open_now = process.net_connections("tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in open_now)


def exit_status(child: Child) -> int | None:
    """Return how an ended child ended: its exit code, or minus the signal; None where nobody can know.

    Only the process that started a child can know.
    """
    with contextlib.suppress(ChildProcessError):
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            _ENDED[child] = os.waitstatus_to_exitcode(status)
    return _ENDED.get(child)


def stop(child: Child, *, patience: float) -> None:
    """End `child`: SIGTERM, and SIGKILL after `patience` seconds. A process that is not it is left alone.

    It has ended when `find` no longer finds it, whether or not whoever started it has asked how it ended: the
    first process of a container, whose child it may have become, often never does.
    """
    process = find(child)
    if process is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        if not _await_end(child, patience):
            process.kill()
            _await_end(child, math.inf)
    exit_status(child)  # asks, if it is ours


def _await_end(child: Child, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while find(child) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def await_ready(child: Child, ready: Callable[[], bool], *, seconds: float, every: float = 0.02) -> bool:
    """Poll `ready` until it is true (True), `child` has ended, or `seconds` have passed (False)."""
    deadline = time.monotonic() + seconds
    while find(child) is not None and time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(every)
    return False


def tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of a log without Java's stack frames; empty if there is no log."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    telling = [line for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    return "\n".join(telling[-lines:])


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, so that a reader, or a crash, finds the old content or the new."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` as JSON, atomically."""
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record, or None if there is none.

    Raises
    ------
    EmbeddedError
        The file is not a JSON object; someone edited it.
    """
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EmbeddedError(_unreadable(path, error)) from error
    if not isinstance(record, dict):
        raise EmbeddedError(_unreadable(path, record))
    return record


def write_child(path: Path, child: Child) -> None:
    """Record `child`, atomically."""
    write_record(path, asdict(child))


def read_child(path: Path) -> Child | None:
    """Return the recorded child, or None if there is no record.

    Raises
    ------
    EmbeddedError
        The record is not one of a child; someone edited it.
    """
    match read_record(path):
        case None:
            return None
        case {"pid": int(pid), "birth": float(birth), "marker": str(marker)}:
            return Child(pid, birth, marker)
        case record:
            raise EmbeddedError(_unreadable(path, record))


def _unreadable(path: Path, why: object) -> str:
    return f"{path} is not readable ({why}): if its server runs, end it by hand; then delete the file"


@contextlib.contextmanager
def locked(path: Path, on_progress: Progress = silent) -> Iterator[None]:
    """Hold the lock file `path`, waiting for whoever has it; a process that dies gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(f"waiting for another command that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def choose_ports(wanted: Mapping[str, int | None], host: str = "127.0.0.1") -> dict[str, int]:
    """Return a free port for each name: the wanted one where it is free, else another; all different.

    A port is only known to be free while this runs: the server still has to be ready for its loss.

    Raises
    ------
    EmbeddedError
        No port could be had.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name, port in wanted.items():
            random = (secrets.choice(LISTEN_PORTS) for _ in range(100))
            for candidate in (*([port] if port else []), *random, 0):
                probe = held.enter_context(socket.socket())
                # As the server will: connections of the one before may still be in TIME_WAIT.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, candidate))
                    probe.listen()
                except OSError:
                    probe.close()
                    continue
                chosen[name] = int(probe.getsockname()[1])
                break
            else:
                raise EmbeddedError(f"no free port on {host} for {name}: end a program that holds many")
    return chosen
