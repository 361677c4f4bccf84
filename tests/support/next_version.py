"""The next version of the program, whose recipients' rows have one field more: how often they were seen.

Run as `python -m tests.support.next_version run decide`, like `opportune`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from schemas import profile
from schemas.layouts import Layouts
from tests.support.stack import SESSION_TIMEOUT_S, Stack

VERSION = profile.ROW_VERSION + 1
_NOW = profile.ROW.descr
NEXT = np.dtype([*_NOW[:2], ("seen", "<u4"), *_NOW[2:]])


def seen(old: np.ndarray, new: np.ndarray) -> None:
    """The step from the row of today to the next one."""
    new["seen"] = old["daily"].sum((1, 2), dtype=np.uint32)


LAYOUTS = Layouts("a row", (*profile.LAYOUTS.versions, NEXT), (*profile.LAYOUTS.steps, seen))


def as_today(value: bytes) -> bytes:
    """What today's program would have written where the next one has written this row."""
    if value[0] != VERSION:
        return value
    row, today = np.frombuffer(value, NEXT), np.zeros(1, profile.ROW)
    for name in profile.ROW.names or ():
        today[name] = row[name]
    today["version"] = VERSION - 1
    return today.tobytes()


def start(stack: Stack) -> subprocess.Popen[bytes]:
    """Start a decider of the next version on a stack, as `Stack.start_worker` does one of today's."""
    with (stack.settings.state_dir / f"worker-{len(stack.children)}.log").open("wb") as out:
        child = subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "tests.support.next_version", "run", "decide"],
            env=os.environ
            | {
                "OPPORTUNE_STATE_DIR": str(stack.settings.state_dir),
                "OPPORTUNE_PARTITIONS": str(stack.settings.partitions),
                "OPPORTUNE_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            }
            | stack.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    stack.children.append(child)
    return child


def main() -> None:
    """Be the next version: all that imports the layout comes after it is changed."""
    profile.ROW, profile.ROW_VERSION, profile.LAYOUTS = NEXT, VERSION, LAYOUTS  # type: ignore[misc]
    from streams.cli import main as command

    command.main()


if __name__ == "__main__":
    main()
