"""Workers as child processes of a command, for as long as the command needs them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from infra.embedded.process import tail
from schemas.settings import Settings

KEPT_APART: Final = ("cache_dir", "partitions", "log_level")  # settings that say nothing of a deployment
_DRAIN_S: Final = 60.0


class WorkerDied(RuntimeError):
    """A worker ended by itself; the message has the end of its log."""


class Workers:
    """Running children and their logs."""

    def __init__(self, children: Mapping[Path, subprocess.Popen[bytes]]) -> None:
        self._children = children

    def check(self) -> None:
        """Raise `WorkerDied` if any has ended."""
        for log, child in self._children.items():
            if child.poll() is not None:
                raise WorkerDied(
                    f"a worker ended with exit status {child.returncode}. The end of {log}:\n{tail(log)}"
                )


@contextmanager
def running(
    settings: Settings, roles: Mapping[str, int], environment: Mapping[str, str] = os.environ
) -> Iterator[Workers]:
    """Run so many workers of each role; at the end they are told to drain, and after 30 s ended.

    They are told in the order of `roles`, each role once those before it have ended: a later one still takes
    in what an earlier one writes last. `environment` is all that they find in theirs, but for the settings'
    state folder and a web port.
    """
    folder = settings.state_dir / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    children: dict[Path, subprocess.Popen[bytes]] = {}
    wanted = [(role, number) for role, count in roles.items() for number in range(count)]
    try:
        for role, number in wanted:
            log = folder / f"{role}-{number}.log"
            with log.open("wb") as out:
                children[log] = subprocess.Popen(  # noqa: S603 - our own command line
                    [sys.executable, "-m", "streams.cli.main", "run", role],
                    env={
                        **environment,
                        "OPPORTUNE_STATE_DIR": str(settings.state_dir.absolute()),
                        "OPPORTUNE_WEB_PORT": "0",
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
        yield Workers(children)
    finally:
        for role in roles:
            _end([child for log, child in children.items() if log.name.startswith(f"{role}-")])


def apart(settings: Settings) -> dict[str, str]:
    """Environment for workers with these settings, which are `stack.apart`.

    Nothing of a deployment that this process knows, by file or by environment, gets to them: they must not
    read its topics, nor send through its relays.
    """
    config = settings.state_dir / "opportune.toml"
    config.write_text("# Settings of these workers are in their environment.\n")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OPPORTUNE_")},
        **{f"OPPORTUNE_{name.upper()}": str(getattr(settings, name)) for name in KEPT_APART},
        "OPPORTUNE_CONFIG": str(config.absolute()),
    }


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(_DRAIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
