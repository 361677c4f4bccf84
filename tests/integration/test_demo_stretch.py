"""The whole stretch of `opportune demo`, recomputed by the plain reference."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from streams.cli import demo
from streams.policy import load_policy
from streams.replay import completejourney, session
from tests.support import stack as stacks
from tests.support.pipeline import differences


@pytest.mark.kafka
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_demo_decides_as_the_reference_recomputes_from_topics_and_journal(tmp_path: Path) -> None:
    start, turn = demo.BEGIN, demo.LIVE_FROM
    end = turn + timedelta(seconds=60 * demo.SPEED)
    with stacks.running(tmp_path, partitions=12) as stack:
        stack.start_worker()
        stack.start_worker()
        events = completejourney.people(start, turn, None) + completejourney.events(start, turn, None)
        _, ends = session.load_history(stack.client, 12, events, start, turn, lambda _: None)
        stacks.await_plan(stack, ends)
        lived = completejourney.events(turn, end, None)
        session.live(stack.client, lived, turn, end, demo.SPEED, lambda _: None)
        stacks.await_quiet(stack)
        stack.end()
        assert differences(stack.client, load_policy(stack.settings), 12) == []
        assert stack.run("reconcile").returncode == 0
        assert stack.run("verify").returncode == 0
