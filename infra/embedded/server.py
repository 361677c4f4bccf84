"""What the servers of `up` have in common: one child each, its record, lock, addresses and log.

Any process may call `up`, `down` and `status` of any server, because all that is known of it lies in
`state/<folder_name>/`:

    ports.json      the addresses, kept over `down` so that they stay the same
    server.json     the running process; there from its start until `down`
    lock            held while a process starts or ends it
    data/           what it keeps
    logs/           its log of the last start, and with `.1` that of the one before
"""

from __future__ import annotations

import contextlib
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

from infra.embedded.process import (
    Child,
    EmbeddedError,
    Progress,
    await_ready,
    choose_ports,
    exit_status,
    find,
    locked,
    read_child,
    read_record,
    silent,
    spawn,
    stop,
    tail,
    write_child,
    write_record,
)

HOST = "127.0.0.1"

Health = Literal["ready", "unreachable", "dead", "down"]


class ServerDied(EmbeddedError):  # noqa: N818 - says what happened
    """The server ended while it started. Its data are kept: once the cause is gone, `up` starts it again."""

    def __init__(self, name: str, status: int | None, log: Path) -> None:
        """Tell how it ended and what it last said."""
        self.status = status
        self.log = log
        how = "" if status is None else f" with exit status {status}"
        super().__init__(f"the {name} ended{how} before it answered. The end of {log}:\n{tail(log)}")


class ServerNotReady(EmbeddedError):  # noqa: N818 - says what happened
    """The server runs but does not answer. It is left running: `up` waits again, `down` ends it."""

    def __init__(self, name: str, pid: int, seconds: float, log: Path) -> None:
        """Name the process, how long it was waited for, and what it last said."""
        super().__init__(
            f"the {name} (pid {pid}) did not answer within {seconds:g} s. It is left running: run `up` "
            f"again to wait longer, or `down` to end it. The end of {log}:\n{tail(log)}"
        )


@dataclass(frozen=True)
class Endpoint:
    """Where clients connect."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`."""
        return f"{self.host}:{self.port}"


AnEndpoint = TypeVar("AnEndpoint", bound=Endpoint)


@dataclass(frozen=True)
class Status:
    """How a server is.

    `health` is `ready` if it just answered a question; `unreachable` if it runs and did not (it is
    starting, frozen or overloaded); `dead` if it ended without `down`; `down` if it was never started or
    was ended. `endpoint` is the address it has or last had. `uptime` is in seconds. `reason` is the end
    of the log of a server that should answer and does not, else empty.
    """

    health: Health
    endpoint: Endpoint | None
    pid: int | None
    uptime: float | None
    data: Path
    log: Path
    reason: str


class Server(ABC, Generic[AnEndpoint]):
    """One server with its state in `state/<folder_name>/`.

    A server of its own kind says what it is called, which ports it needs, how it is started (`_command`),
    where it is then found (`_at`) and how to tell that it answers (`_probe`).
    """

    name: ClassVar[str]
    folder_name: ClassVar[str]
    data_name: ClassVar[str] = "data"
    log_name: ClassVar[str]
    port_names: ClassVar[Sequence[str]]
    died: ClassVar[type[ServerDied]] = ServerDied
    not_ready: ClassVar[type[ServerNotReady]] = ServerNotReady

    def __init__(self, state: Path, *, on_progress: Progress = silent, start_seconds: float = 60.0) -> None:
        """Look at the folder only; nothing is started or written.

        `on_progress` is told what `up` is doing, `start_seconds` is how long it waits for an answer.
        """
        self.folder = state.absolute() / self.folder_name
        self.data = self.folder / self.data_name
        self.log = self.folder / "logs" / self.log_name
        self._record = self.folder / "server.json"
        self._ports = self.folder / "ports.json"
        self._on_progress = on_progress
        self._start_seconds = start_seconds

    def up(self) -> AnEndpoint:
        """Start the server unless it runs, wait until it answers, and return its address.

        Raises
        ------
        ServerDied
            It ended before it answered.
        ServerNotReady
            It runs, and did not answer in time.
        EmbeddedError
            Another of the reasons in this package.
        """
        with self._locked():
            child = read_child(self._record)
            if child is not None and find(child) is not None:
                endpoint = self._endpoint()
                if endpoint is None:
                    raise EmbeddedError(f"{self._ports} is gone while the server runs: run `down`, then `up`")
                try:
                    self._wait(child, endpoint)
                    return endpoint
                except ServerDied:
                    pass  # it was ending when it was looked at: one that was killed takes its time
            child, endpoint = self._start(), self._endpoint()
            if endpoint is None:
                raise EmbeddedError(f"{self._ports} is gone; run `up` again")
            self._wait(child, endpoint)
        return endpoint

    def down(self) -> None:
        """End the server if it runs and forget the process; data and address are kept."""
        self._end(patience=30.0)

    def discard(self) -> None:
        """End the server at once and delete all that it kept."""
        self._end(patience=0.0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, patience: float) -> None:
        with self._locked():
            child = read_child(self._record)
            if child is None:
                return
            self._on_progress(f"stopping the {self.name}")
            stop(child, patience=patience)
            self._record.unlink()

    def status(self) -> Status:
        """Tell how the server is, asking it; takes 2 seconds if it does not answer."""
        child, endpoint = read_child(self._record), self._endpoint()
        process = find(child) if child is not None else None
        health: Health
        if child is None:
            health = "down"
        elif process is None:
            health = "dead"
        else:
            answers = endpoint is not None and self._probe(child, endpoint)(2.0)
            health = "ready" if answers else "unreachable"
        return Status(
            health=health,
            endpoint=endpoint,
            pid=child.pid if child is not None else None,
            uptime=time.time() - process.create_time() if process is not None else None,
            data=self.data,
            log=self.log,
            reason=self._reason(health, child),
        )

    @abstractmethod
    def _command(self) -> tuple[Sequence[str], str]:
        """Prepare a start: take the ports, write what the server reads.

        Returns its command line, and the part of it that no other process has.
        """

    @abstractmethod
    def _at(self, ports: Mapping[str, int]) -> AnEndpoint:
        """Return the address of a server that has these ports."""

    @abstractmethod
    def _probe(self, child: Child, endpoint: AnEndpoint) -> Callable[[float], bool]:
        """Return a function that tells whether `child` answers at `endpoint` within so many seconds.

        Another server may have taken the port in the moment between its choice and its use.
        """

    def _take_ports(self) -> Mapping[str, int]:
        """Choose free ports, the last ones where they are free, and record them."""
        last = read_record(self._ports) or {}
        ports = choose_ports({name: last.get(name) for name in self.port_names}, HOST)
        write_record(self._ports, ports)
        return ports

    def _endpoint(self) -> AnEndpoint | None:
        ports = read_record(self._ports)
        return self._at(ports) if ports is not None else None

    def _start(self) -> Child:
        command, marker = self._command()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        self._on_progress(f"starting the {self.name}")
        child = spawn(command, marker=marker, log=self.log)
        write_child(self._record, child)
        return child

    def _wait(self, child: Child, endpoint: AnEndpoint) -> None:
        probe = self._probe(child, endpoint)
        if await_ready(child, lambda: probe(0.5), seconds=self._start_seconds):
            return
        if find(child) is None:
            raise self.died(self.name, exit_status(child), self.log)
        raise self.not_ready(self.name, child.pid, self._start_seconds, self.log)

    def _reason(self, health: Health, child: Child | None) -> str:
        if health not in ("dead", "unreachable") or child is None:
            return ""
        status = exit_status(child) if health == "dead" else None
        how = "" if status is None else f"exit status {status}\n"
        return f"{how}{tail(self.log)}"

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.folder / "lock", self._on_progress)
