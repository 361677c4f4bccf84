"""A failpoint that cannot be reached is refused when the process starts."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("decide.after_comit:kill", "after_commit"),
        ("decide.after_commit:explode", "one of kill, stop, hang, fail"),
        ("after_commit:kill", "is no failpoint"),
        ("decide.after_commit:kill@0", "write name:action@visit"),
    ],
)
def test_a_failpoint_that_is_not_understood_names_what_would_be_right(text: str, remedy: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "--version"],
        env={**os.environ, "OPPORTUNE_FAILPOINT": text},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert remedy in done.stderr


def test_failpoints_of_every_room_are_known() -> None:
    places = "decide.after_commit:kill@2,deliver.after_accept:stop,record.before_commit:hang"
    done = subprocess.run(
        [sys.executable, "-c", "import streams.engine.failpoint"],
        env={**os.environ, "OPPORTUNE_FAILPOINT": f"{places},snapshot.mid_write:fail"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
