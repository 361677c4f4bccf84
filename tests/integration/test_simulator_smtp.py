"""The simulator's demand through Kafka, DECIDE, DELIVER and SMTP, beside the pure model of the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas import policy_files
from schemas.settings import Settings
from streams.policy import policy_folder
from streams.simulator import smtp
from streams.simulator.compare import Figures
from streams.simulator.smtp import By, Plan
from tests.support import containers

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(containers.chosen(), reason="starts a broker of its own"),
]


def both(plan: Plan, folder: Path) -> tuple[By, By]:
    rules = policy_folder(Settings())
    replies = policy_files.load_replies(rules)
    settings = Settings(state_dir=folder, partitions=4)
    return smtp.virtual(plan, replies), smtp.real(plan, rules, settings, lambda _: None)


def figures(by: By) -> Figures:
    return Figures.of([*by.values()])


def test_every_message_ends_once_and_lanes_feel_what_servers_answer(tmp_path: Path) -> None:
    plan = Plan.of(days=1, recipients=1000, seed=0, speed=2880.0).undisturbed(expiry_h=4)
    virtual, real = both(plan, tmp_path)
    for provider, found in real.items():
        assert found.messages == virtual[provider].messages
        assert found.accepted + found.bounced + found.expired == found.messages
        assert 0 < found.inbox <= found.accepted
        assert found.deferrals > 0
        assert (sum(found.taken), sum(found.deferred)) == (found.accepted, found.deferrals)
        assert found.waiting[-1] == 0


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.timeout(2700)
def test_two_days_of_two_thousand_recipients_agree_with_virtual_time(tmp_path: Path) -> None:
    by_virtual, by_real = both(Plan.of(days=2, recipients=2000, seed=0).undisturbed(), tmp_path)
    virtual, real = figures(by_virtual), figures(by_real)
    for name in ("accepted", "inbox", "expired", "deferrals", "reputation"):
        assert getattr(real, name) == pytest.approx(getattr(virtual, name), rel=0.02), name
