"""A campaign tried on what has happened says what it did where it was live, and what a new one would do."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import infra
from schemas import topics
from streams.engine.kafka import bounds
from tests.support import stack as stacks
from tests.support.pipeline import decoded
from tests.support.stack import Stack

pytestmark = pytest.mark.kafka

NEW = """\
number = 9
name = "hello_again"
version = 1
doc = "For tests: every purchase, above all others."
trigger.event = "purchase"
priority = 1000
template = "post_purchase"
cooldown = "7 days"
expiry = "24 h"
arms = { hold_out = 0.3 }
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stacks.running(tmp_path_factory.mktemp("dry")) as running:
        ends = stacks.load(running, days=14, households=60)
        worker = running.start_worker()
        stacks.await_plan(running, ends)
        worker.terminate()
        worker.wait(60)
        yield running


def _ends(stack: Stack) -> dict[tuple[str, int], int]:
    """How far every topic goes."""
    consumer = stack.client.reader()
    found = consumer.list_topics(timeout=10).topics
    ends = {
        (name, p): bounds(consumer, name, p)[1]
        for name in topics.BY_NAME
        if name in found
        for p in found[name].partitions
    }
    consumer.close()
    return ends


def test_a_campaign_that_was_live_would_have_done_what_it_did(stack: Stack) -> None:
    decided = [a for a in decoded(stack.client, topics.AUDIT.name, 4) if "campaign_version" in a["body"]]
    mine = [a for a in decided if a["body"]["campaign"] == "post_purchase"]
    outcomes = Counter(a["body"]["reason"] for a in mine)
    assert outcomes["scheduled"] > 5
    done = stack.run("campaigns", "dry-run", "post_purchase", "--days", "400", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["decisions"] == len(mine)
    assert sum(told["reached"].values()) == outcomes["scheduled"]
    assert set(told["reached"]) == {a["recipient_id"] for a in mine if a["body"]["outcome"] == "scheduled"}
    held = {reason: withheld["decisions"] for reason, withheld in told["withheld"].items()}
    assert held == {reason: n for reason, n in outcomes.items() if reason != "scheduled"}


def test_a_new_campaign_is_tried_without_a_trace(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(Path(infra.__file__).parent / "policy", folder)
    (folder / "campaigns" / "hello_again.toml").write_text(NEW)
    before = _ends(stack)
    done = stack.run("campaigns", "dry-run", "hello_again", "--policy", str(folder), "--days", "7", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sum(told["reached"].values()) > 10
    assert told["withheld"]["hold_out"]["decisions"] > 0
    assert "another arm" in told["withheld"]["hold_out"]["needed"]
    assert told["outranks"]["post_purchase"] > 0
    assert sum(told["hours"].values()) == sum(told["days"].values()) == sum(told["reached"].values())
    assert _ends(stack) == before
    shown = stack.run("campaigns", "dry-run", "hello_again", "--policy", str(folder))
    assert "It would have outranked: post_purchase" in shown.stdout
    assert "hold_out" in shown.stdout


def test_a_campaign_that_is_not_there_is_refused_with_what_was_meant(stack: Stack) -> None:
    done = stack.run("campaigns", "dry-run", "post_purchas")
    assert done.returncode == 1
    assert "there is no campaign post_purchas; did you mean post_purchase?" in done.stderr
