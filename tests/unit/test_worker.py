"""What a worker sets up in its process before Faust runs."""

from __future__ import annotations

import subprocess
import sys

WHICH_LOOPS = """
import asyncio
from typing import Any, cast

from mode.utils.loops import get_event_loop

from schemas.settings import Settings
from streams import worker

def tell(*_: Any) -> None:
    print(type(get_event_loop()).__module__, type(asyncio.new_event_loop()).__module__)

cast(Any, worker)._run = tell
worker.run_deliver(Settings())
"""


def test_deliver_runs_on_uvloop_in_all_its_threads() -> None:
    program = [sys.executable, "-c", WHICH_LOOPS]
    ran = subprocess.run(program, capture_output=True, text=True, check=True)  # noqa: S603 - our own
    assert ran.stdout.split() == ["uvloop", "uvloop"]
