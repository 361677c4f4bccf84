"""The simulator: providers that take what they are used to, and senders who feel it; all in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from models.lanes import Bucket
from schemas import policy_files
from schemas.profile import DAY_MS, HOUR_MS
from schemas.replies import Replies
from schemas.settings import Settings
from streams.policy import policy_folder
from streams.simulator import heedless
from streams.simulator.compare import Figures, compare, sweep
from streams.simulator.demand import Demand
from streams.simulator.parameters import Parameters
from streams.simulator.provider import Answer, MailboxProvider
from streams.simulator.run import SENDERS, run
from streams.simulator.smtp import Plan, virtual

ASSUMED = Parameters.assumed()
DAYS, RECIPIENTS = 6, 20_000


def replies() -> Replies:
    return policy_files.load_replies(policy_folder(Settings()))


def mailbox(name: str = "gmail", **changed: float) -> MailboxProvider:
    parameters = ASSUMED
    for number, value in {"storms": 0.0, "greylisted": 0.0, "unknown": 0.0, **changed}.items():
        was = getattr(parameters.provider[name], number).value
        parameters = parameters.scaled(name, number, value / was if was else 0.0)
    return MailboxProvider(name, parameters.provider[name], 30, seed=1)


def test_every_number_has_a_source() -> None:
    names = [*ASSUMED.names()]
    assert len(names) > 50
    assert len({*names}) == len(names)


def test_one_number_changes_alone() -> None:
    changed = ASSUMED.scaled("yahoo", "growth", 0.5)
    assert changed.provider["yahoo"].growth.value == 0.5 * ASSUMED.provider["yahoo"].growth.value
    assert (
        changed.provider["yahoo"].model_copy(update={"growth": ASSUMED.provider["yahoo"].growth})
        == (ASSUMED.provider["yahoo"])
    )
    assert ASSUMED.scaled("sender", "expiry_h", 2).sender.expiry_h.value == 48


def test_a_provider_takes_its_quota_and_defers_the_rest_in_its_own_words() -> None:
    box = mailbox()
    quota = box.quota
    answers = [box.answer(hour * HOUR_MS / 1000, i) for i, hour in enumerate(range(1000))]
    taken = sum(answer.kind == "accepted" for answer in answers)
    assert 0.9 * quota < taken < 1.3 * quota
    busy = next(answer for answer in answers if answer.kind == "deferred")
    assert busy.code == 421
    assert "unusual rate" in busy.text


def test_who_presses_on_is_trusted_less_and_who_is_read_more() -> None:
    pressing, patient = mailbox(), mailbox()
    for second in range(0, 3 * 86_400, 2):
        pressing.answer(second * 1000.0, second % 5000)
        if second % 40 == 0:
            patient.answer(second * 1000.0, second % 5000)
    assert pressing.reputation < 0.5 < patient.reputation


def test_a_quota_grows_by_the_day_with_what_is_usual() -> None:
    box, quotas = mailbox(), []
    for day in range(5):
        for i in range(24 * 200):
            box.answer(day * DAY_MS + i * HOUR_MS / 200, i)
        quotas.append(box.quota)
    assert quotas[1] > 2 * quotas[0], "what is usual is known at the end of a day"
    assert min(quotas[1:]) > 2 * quotas[0]


def test_unknown_recipients_are_refused_each_time_and_greylisting_ends() -> None:
    box = mailbox("other", unknown=0.03, greylisted=0.4)
    first = {i: box.answer(i * 60_000.0, i) for i in range(500)}
    unknown = [i for i, answer in first.items() if answer.kind == "bounced"]
    grey = [i for i, answer in first.items() if "greylisted" in answer.text]
    assert 3 < len(unknown) < 40
    assert 120 < len(grey) < 280
    later = 600 * 60_000.0
    assert all(box.answer(later + i, i).kind == "bounced" for i in unknown[:3])
    assert all(box.answer(later + DAY_MS + i * 60_000, i).kind == "accepted" for i in grey[:20])


def test_everything_ends_and_is_counted_once() -> None:
    for found in run(ASSUMED, replies(), "yahoo", 3, RECIPIENTS, seed=2).values():
        assert found.accepted + found.bounced + found.expired == found.messages
        assert found.inbox <= found.accepted


def test_demand_is_the_same_for_each_sender_and_clusters() -> None:
    one, other = (Demand.of(ASSUMED, "gmail", DAYS, RECIPIENTS, seed=3) for _ in range(2))
    assert (one.released == other.released).all()
    assert (np.diff(one.released) >= 0).all()
    by_hour = np.bincount((one.released // HOUR_MS).astype(int))
    assert by_hour.max() > 8 * by_hour.mean(), "an event sets many off at once"


@pytest.mark.parametrize("seed", [1, 2])
def test_ours_is_deferred_less_trusted_more_and_delivers_more_than_the_others(seed: int) -> None:
    found = compare(ASSUMED, replies(), DAYS, RECIPIENTS, seed, lambda: None)
    ours, fixed, retries = (Figures.of([*found[sender].values()]) for sender in SENDERS)
    for other in (fixed, retries):
        assert ours.deferrals < other.deferrals / 5
        assert ours.reputation > other.reputation
        assert ours.inbox > other.inbox


def test_a_sweep_changes_every_number_both_ways_and_holds_every_second_aside() -> None:
    small = ASSUMED.model_copy(update={"provider": {"other": ASSUMED.provider["other"]}})
    assumed = [*sweep(small, replies(), 2, 1000, 2)]
    assert [(each.where, each.name, each.factor) for each in assumed] == small.changes()
    assert len(assumed) == 2 * len([*small.names()])
    assert sum(each.aside for each in assumed) in (len(assumed) // 2 - 1, len(assumed) // 2)
    assert all({*seed} == {*SENDERS} for each in assumed for seed in each.figures)
    unchanged = compare(small, replies(), 2, 1000, 1, lambda: None)
    changed = next(each for each in assumed if each.name == "share")
    assert changed.figures[1]["ours"] != Figures.of([*unchanged["ours"].values()])


@pytest.mark.parametrize("name", ["gmail", "other"])
def test_answers_together_are_those_one_by_one(name: str) -> None:
    changed = {"storms": 0.5, "greylisted": 0.4, "unknown": 0.03}
    together, singly = mailbox(name, **changed), mailbox(name, **changed)
    chance = np.random.default_rng(5)
    times = np.sort(chance.random(30_000) * 2 * DAY_MS).tolist()
    recipients = chance.integers(0, 5000, len(times)).tolist()
    given = [answer for answer, so_many in together.answers(times, recipients) for _ in range(so_many)]
    assert given == [singly.answer(*each) for each in zip(times, recipients, strict=True)]
    assert together.reputation == pytest.approx(singly.reputation)


class Taking(MailboxProvider):
    """Takes everything, and notes when it came."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.asked: list[float] = []

    def answers(self, times: Sequence[float], recipients: Sequence[int]) -> list[tuple[Answer, int]]:
        self.asked += times
        return [(Answer(250, "2.0.0 OK"), len(times))]


def test_a_fixed_rate_holds_and_waits_for_nobody() -> None:
    demand = Demand.of(ASSUMED, "gmail", 1, RECIPIENTS, seed=4)
    box = Taking("gmail", ASSUMED.provider["gmail"], 3, seed=1)
    found = heedless.send(demand, box, Bucket.of(0.02, None))
    times = box.asked
    assert (np.diff(times) >= 50_000 - 1e-3).all()
    assert found.accepted + found.expired == found.messages
    assert found.accepted == len(times) > 0.95 * 0.02 * 2 * 86_400 * 0.7


class Late(MailboxProvider):
    """A provider whose answers come some seconds late, as they do from servers."""

    last = 0.0

    def answer(self, now: float, recipient: int) -> Answer:
        self.last = max(self.last, now + recipient * 7_919 % 10_000)
        return super().answer(self.last, recipient)


@pytest.mark.parametrize("seed", range(3))
def test_a_few_seconds_do_not_reshuffle_what_comes_of_messages(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    plan = Plan.of(days=2, recipients=2000, seed=seed)
    on_time = Figures.of([*virtual(plan, replies()).values()])
    monkeypatch.setattr("streams.simulator.smtp.MailboxProvider", Late)
    late = Figures.of([*virtual(plan, replies()).values()])
    assert late != on_time
    for name in ("accepted", "inbox", "expired", "deferrals", "reputation"):
        assert getattr(late, name) == pytest.approx(getattr(on_time, name), rel=0.02), name
