"""Mail under faults: never twice, never after a recall, never faster than the lane, and nothing is lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from infra.embedded import SandboxServer
from schemas import topics
from schemas.dispatch import State
from schemas.scopes import Scoped
from streams import control
from streams.control import Pause
from tests.support import mail, oracle
from tests.support.mail import command, recall

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

CONNECTIONS = 4  # of a lane
FAST = '[default]\nrate = "60/s"\n'


def _under_kills(folder: Path, kills: int, messages: int, seed: int) -> None:
    """Kill DELIVER and the sandbox by turns at random moments while messages go."""
    chance = random.Random(seed)  # noqa: S311 - moments of a test, not secrets
    with mail.running(folder, messages, lanes=FAST) as stack:
        commands = [command(f"lane{i % 3}", i) for i in range(messages)]
        mail.produce(stack, topics.COMMANDS.name, commands)
        worker = stack.start_worker("deliver")
        for number in range(kills):
            before = len(mail.received(stack))
            mail.await_mail(stack, before + 20)
            time.sleep(chance.random() * 0.5)
            if number % 2:
                sandbox = SandboxServer(stack.settings.state_dir)
                mail.kill_sandbox(sandbox)
                sandbox.up()
            else:
                worker.kill()
                worker.wait()
                worker = stack.start_worker("deliver")
        dispatches = {each["dispatch_id"] for each in commands}
        # What the sandbox was taking when it was killed waits for minutes: the server dropped it.
        mail.await_until(
            "the end of every other dispatch",
            lambda: (
                {
                    dispatch
                    for dispatch, state in mail.states(stack).items()
                    if state in (State.WAITING, State.CLAIMED)
                }
                <= mail.put_off(stack)
            ),
        )
        waiting = mail.put_off(stack)
        assert not waiting & mail.mails(stack).keys(), "what waits has no mail"
        oracle.assert_mailed(stack, dispatches - waiting)
        kinds = Counter(outcome["kind"] for outcome in mail.outcomes(stack))
        assert kinds["delivered"] > messages * 0.5, kinds


def test_kills_of_deliver_and_of_the_sandbox_send_nothing_twice(tmp_path: Path) -> None:
    _under_kills(tmp_path, kills=3, messages=900, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_kills_of_deliver_and_of_the_sandbox_send_nothing_twice(tmp_path: Path) -> None:
    _under_kills(tmp_path, kills=10, messages=4000, seed=2)


def test_where_one_of_two_relays_dies_the_other_takes_over_and_shares_again_later(tmp_path: Path) -> None:
    other = SandboxServer(tmp_path / "other")
    try:
        second = other.up()
        with mail.running(tmp_path / "stack", 600, lanes=FAST) as stack:
            first = SandboxServer(stack.settings.state_dir).status().endpoint
            stack.environment |= {"OPPORTUNE_RELAY": f"{first},{second}", "OPPORTUNE_RELAY_TLS": "none"}
            commands = [command("one", i) for i in range(600)]
            sent, later = commands[:400], commands[400:]
            mail.produce(stack, topics.COMMANDS.name, sent)
            stack.start_worker("deliver")
            mail.await_mail(stack, 50)
            assert mail.mails_in(other.folder), "both take their share"
            mail.kill_sandbox(other)
            mail.await_ended(stack, {each["dispatch_id"] for each in sent})
            taken = mail.mails_in(other.folder).total()
            assert other.up() == second
            # It is left alone for about as long as it was away: what comes now lasts for a minute.
            while later and mail.mails_in(other.folder).total() == taken:
                mail.produce(stack, topics.COMMANDS.name, later[:10])
                sent, later = sent + later[:10], later[10:]
                time.sleep(3)
            mail.await_ended(stack, {each["dispatch_id"] for each in sent})
            arrived = mail.mails(stack) + mail.mails_in(other.folder)
            assert set(arrived.values()) == {1}, "nothing arrives twice"
            assert mail.mails_in(other.folder).total() > taken, "it is used again"
            ended = {each["dispatch_id"]: each["kind"] for each in mail.outcomes(stack)}
            assert {*ended.values()} <= {"delivered", "unknown"}
            delivered = {dispatch for dispatch, kind in ended.items() if kind == "delivered"}
            assert delivered <= arrived.keys()
            assert len(ended) == len(sent)
            assert list(ended.values()).count("unknown") <= CONNECTIONS
    finally:
        other.down()


def test_a_recall_stops_what_waits_and_what_is_claimed_and_nothing_goes_later(tmp_path: Path) -> None:
    with mail.running(tmp_path, 400, lanes='[default]\nrate = "20/s"\n') as stack:
        commands = [command("slow", i) for i in range(400)]
        mail.produce(stack, topics.COMMANDS.name, commands)
        stack.start_worker("deliver")
        mail.await_mail(stack, 20)
        ahead = [command("slow", i) for i in range(20)]
        mail.produce(stack, topics.RECALLS.name, [recall(each) for each in commands + ahead])
        recalled_at = time.time_ns() // 1_000_000
        mail.produce(stack, topics.COMMANDS.name, ahead)
        dispatches = {each["dispatch_id"] for each in commands + ahead}
        mail.await_ended(stack, dispatches)
        oracle.assert_mailed(stack, dispatches)
        kinds = Counter(outcome["kind"] for outcome in mail.outcomes(stack))
        late = [each for each in mail.received(stack) if each["at"] > recalled_at + 2000]
        assert late == [], "nothing went later than 2 s after the recall was acknowledged"
        assert kinds["recalled"] + kinds["delivered"] + kinds["unknown"] == 420
        assert kinds["recalled"] > 250


def test_a_pause_stops_all_mail_within_two_seconds_and_a_resume_loses_nothing(tmp_path: Path) -> None:
    with mail.running(tmp_path, 600, lanes=FAST) as stack:
        commands = [command("one" if i % 2 else "two", i) for i in range(600)]
        mail.produce(stack, topics.COMMANDS.name, commands)
        stack.start_worker("deliver")
        mail.await_mail(stack, 50)
        control.set_paused(stack.client, Pause(True), "test", "a test")
        paused_at = time.time_ns() // 1_000_000
        time.sleep(5)
        control.set_paused(stack.client, Pause(False), "test", "a test")
        resumed_at = time.time_ns() // 1_000_000
        dispatches = {each["dispatch_id"] for each in commands}
        mail.await_ended(stack, dispatches)
        at = [each["at"] for each in mail.received(stack)]
        assert [each for each in at if paused_at + 2000 < each < resumed_at] == []
        assert max(at) > resumed_at, "it went on"
        oracle.assert_mailed(stack, dispatches)
        assert {outcome["kind"] for outcome in mail.outcomes(stack)} == {"delivered"}


def test_what_is_paused_waits_through_a_restart_and_the_rest_goes_on(tmp_path: Path) -> None:
    of_segment = {"campaign": "replenishment", "template": "replenishment"}
    kinds: list[tuple[Scoped | None, str, dict[str, str]]] = [
        (None, "free", {}),
        (("lane", "held"), "held", {}),
        (("provider", "yahoo"), "yahoo", {}),
        (("segment", "due_to_replenish"), "free", of_segment),
        (("model", "st-1"), "free", {"model": "st-1"}),
    ]
    with mail.running(tmp_path, 50, lanes=FAST) as stack:
        commands = [(kinds[i % 5][0], command(kinds[i % 5][1], i, **kinds[i % 5][2])) for i in range(50)]
        scopes = [of for of, *_ in kinds if of is not None]
        for of in scopes:
            control.set_paused(stack.client, Pause(True, of), "test", "a test")
        mail.produce(stack, topics.COMMANDS.name, [each for _, each in commands])
        worker = stack.start_worker("deliver")
        goes = {each["dispatch_id"] for of, each in commands if of is None}
        mail.await_ended(stack, goes)
        worker.kill()
        worker.wait()
        stack.start_worker("deliver")
        for of in scopes:
            control.set_paused(stack.client, Pause(False, of), "test", "a test")
            goes |= {each["dispatch_id"] for whose, each in commands if whose == of}
            mail.await_ended(stack, goes)
            assert set(mail.mails(stack)) == goes


def test_a_worker_that_is_told_to_stop_leaves_nothing_unknown(tmp_path: Path) -> None:
    with mail.running(tmp_path, 300, lanes=FAST) as stack:
        commands = [command("one", i) for i in range(300)]
        mail.produce(stack, topics.COMMANDS.name, commands)
        worker = stack.start_worker("deliver")
        mail.await_mail(stack, 30)
        worker.terminate()
        assert worker.wait(60) == 0
        assert State.CLAIMED not in mail.states(stack).values()
        stack.start_worker("deliver")
        dispatches = {each["dispatch_id"] for each in commands}
        mail.await_ended(stack, dispatches)
        assert {outcome["kind"] for outcome in mail.outcomes(stack)} == {"delivered"}
        oracle.assert_mailed(stack, dispatches)


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("then", ["nothing", "it is killed", "two join it"])
def test_a_lane_keeps_to_its_rate_and_uses_it(tmp_path: Path, then: str) -> None:
    """Counted at the sandbox: in any 10 s at most 1.02 x rate x 10 + burst; 98 % of it over 60 s."""
    lanes = '[default]\nrate = "100/s"\n[lane.slow]\nrate = "20/s"\n'
    with mail.running(tmp_path, 100, lanes=lanes) as stack:
        commands = [command("fast", i % 100) for i in range(7500)]
        commands += [command("slow", i % 100) for i in range(1500)]
        mail.produce(stack, topics.COMMANDS.name, commands)
        worker = stack.start_worker("deliver")
        mail.await_mail(stack, 200)
        if then == "it is killed":
            worker.kill()
            worker.wait()
            stack.start_worker("deliver")
        elif then == "two join it":
            stack.start_worker("deliver")
            stack.start_worker("deliver")
        time.sleep(65)
        found = mail.received(stack)
    for lane, rate in (("fast", 100), ("slow", 20)):
        times = sorted(each["at"] for each in found if each["lane"] == lane)
        assert mail.most_within(times, 10_000) <= 1.02 * rate * 10 + 0.01 * rate * 10
        if then == "nothing":
            assert sum(at < times[0] + 60_000 for at in times) >= 0.98 * rate * 60
