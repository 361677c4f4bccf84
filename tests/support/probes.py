"""What a worker answers to probes."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.support.stack import PATIENCE_S, Stack


def probe(stack: Stack, worker: subprocess.Popen[bytes], page: str) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of `livez` or `readyz`; status 0 if nobody answers."""
    started = next((line for line in stack.log(worker).splitlines() if "worker_started" in line), None)
    if started is None:
        return 0, {}
    port = json.loads(started[started.index("{") :])["web_port"]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=2) as answer:
            return int(answer.status), json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)
    except OSError:
        return 0, {}


def wait_until(condition: Callable[[], bool], stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    """Wait for a condition while the worker runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert worker.poll() is None, stack.log(worker)[-3000:]
        assert time.monotonic() < deadline, stack.log(worker)[-3000:]
        time.sleep(0.1)


def await_ready(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    """Wait until a worker is ready."""
    wait_until(lambda: probe(stack, worker, "readyz")[0] == 200, stack, worker)
