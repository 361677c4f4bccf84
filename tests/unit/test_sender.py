"""Sending between two cuts: what begins, what is given back, and what comes of it; no Kafka, no SMTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from models.deliver import Claim, Result, Stop
from schemas.settings import Settings
from sinks.transports import Message, Outcome
from sinks.transports.dkim import Signer
from sinks.vault import Contact
from sinks.vault.sqlite import SqliteVault
from streams.engine.control import Clock, Control
from streams.engine.cut import uptime
from streams.policy import load_policy, policy_folder
from streams.rendering import Renderer, load_templates
from streams.sending_lane import Prepared
from tests.support.sending import Scripted, claim, prepare, results, run, sender


def test_what_is_claimed_goes_and_its_outcome_comes_back() -> None:
    async def story() -> None:
        transport = Scripted()
        of = sender(transport)
        of.begin(0, [claim("a"), claim("b")], uptime())
        found = await results(of, 2)
        assert transport.sent == ["a", "b"]
        assert [(r.kind, r.code, r.template) for r in found.values()] == [("delivered", 250, "t@1")] * 2

    run(story())


def test_a_claim_that_is_older_than_a_second_is_given_back_however_it_became_so() -> None:
    async def story() -> None:
        transport = Scripted()
        of = sender(transport)
        of.begin(0, [claim("late")], uptime() - 1.5)
        assert (await results(of, 1))["late"].kind == "returned"
        assert transport.sent == []

    run(story())


def test_a_recall_is_asked_before_a_message_begins_and_again_before_it_is_handed_over() -> None:
    async def story() -> None:
        transport = Scripted()
        transport.gate.clear()
        of = sender(transport)
        of.begin(0, [claim("a")], uptime())
        await asyncio.sleep(0.05)
        of.begin(0, [Stop("a")], uptime())
        transport.gate.set()
        assert (await results(of, 1))["a"].kind == "returned"
        assert transport.sent == []

    run(story())


HOLDING = [
    Control(paused=True),
    *(
        Control(held=frozenset({scoped}))
        for scoped in (
            ("lane", "gmail"),
            ("provider", "gmail"),
            ("campaign", "win_back"),
            ("segment", "lapsing"),
            ("template", "win_back"),
            ("model", "st-1"),
        )
    ),
    Control(clock=Clock("plan", plan_id="year")),
]


@pytest.mark.parametrize("control", HOLDING)
def test_a_pause_that_comes_between_claim_and_hand_over_holds_the_message(control: Control) -> None:
    async def story() -> None:
        transport = Scripted()
        transport.gate.clear()
        of = sender(transport)
        of.begin(0, [claim("a")], uptime())
        await asyncio.sleep(0.05)
        of.observe(control)
        transport.gate.set()
        assert (await results(of, 1))["a"].kind == "returned"
        assert transport.sent == []

    run(story())


@pytest.mark.parametrize("control", HOLDING)
def test_what_is_held_is_given_back(control: Control) -> None:
    async def story() -> None:
        transport = Scripted()
        of = sender(transport)
        of.observe(control)
        of.begin(0, [claim("a")], uptime())
        assert (await results(of, 1))["a"].kind == "returned"
        assert transport.sent == []

    run(story())


def test_a_message_whose_time_has_passed_is_given_back() -> None:
    async def story() -> None:
        transport = Scripted()
        of = sender(transport)
        of.begin(0, [claim("a", expires_at=time.time_ns() // 1_000_000 - 1)], uptime())
        assert (await results(of, 1))["a"].kind == "returned"
        assert transport.sent == []

    run(story())


def test_a_lane_whose_server_is_away_rests_and_the_others_go_on() -> None:
    async def story() -> None:
        transport = Scripted(lambda m: Outcome("not_sent" if m.dispatch_id == "a" else "accepted"))
        of = sender(transport)
        of.begin(0, [claim("a", "down"), claim("b", "up")], uptime())
        found = await results(of, 2)
        assert {name: result.kind for name, result in found.items()} == {"a": "returned", "b": "delivered"}
        room = of.feedback(0, None).room
        assert (room("down", False), room("up", False) > 0) == (0, True)

    run(story())


def test_a_slow_lane_has_room_only_shortly_before_its_bucket_opens() -> None:
    async def story() -> None:
        room = sender(Scripted(), "6/hr").feedback(0, None).room
        assert room("gmail", False) == 0, "the bucket of a new owner is empty"
        quick = sender(Scripted(), "20/s", connections=20).feedback(0, None).room
        assert quick("gmail", False) == 10, "half a second's"

    run(story())


def test_a_fast_lane_has_as_much_room_as_it_has_free_connections_and_began_just_now() -> None:
    async def story() -> None:
        of = sender(Scripted(), "100000/s", connections=5)
        assert of.feedback(0, None).room("gmail", False) == 5
        of.begin(0, [claim(str(i)) for i in range(100)], uptime())
        await results(of, 100)
        assert 5 < of.feedback(0, None).room("gmail", False) <= 105

    run(story())


def test_what_is_being_rendered_takes_room() -> None:
    async def story() -> None:
        of = sender(Scripted(), "20/s", connections=20)
        of.begin(0, [claim(str(i)) for i in range(7)], uptime())
        assert of.feedback(0, None).room("gmail", False) == 3
        await results(of, 7)

    run(story())


def test_slow_rendering_slows_a_lane_and_does_not_stop_it() -> None:
    def slowly(claims: Sequence[Claim], now: int) -> list[Prepared | Result]:
        time.sleep(0.005 * len(claims))
        return prepare(claims, now)

    async def story() -> None:
        transport = Scripted()
        of = sender(transport, "2000/s", slowly, connections=100)
        of.begin(0, [claim(str(i)) for i in range(of.feedback(0, None).room("gmail", False))], uptime())
        found = await results(of, 100)
        assert {result.kind for result in found.values()} == {"delivered"}

    run(story())


def test_where_nothing_can_be_prepared_all_is_given_back() -> None:
    def broken(claims: Sequence[Claim], now: int) -> list[Prepared | Result]:
        raise RuntimeError("the vault is away")

    async def story() -> None:
        of = sender(Scripted(), prepare=broken)
        of.begin(0, [claim("a"), claim("b")], uptime())
        assert {result.kind for result in (await results(of, 2)).values()} == {"returned"}
        assert of.feedback(0, None).room("gmail", False) == 0, "it rests"

    run(story())


def test_an_error_while_sending_leaves_the_message_unknown() -> None:
    def fails(message: Message) -> Outcome:
        raise RuntimeError("a bug")

    async def story() -> None:
        of = sender(Scripted(fails))
        of.begin(0, [claim("a")], uptime())
        assert (await results(of, 1))["a"].kind == "unknown"

    run(story())


def test_draining_ends_what_is_under_way_and_gives_the_rest_back() -> None:
    async def story() -> None:
        transport = Scripted()
        transport.gate.clear()
        of = sender(transport, connections=1)
        of.begin(0, [claim("a"), claim("b")], uptime())
        await asyncio.sleep(0.05)
        draining = asyncio.create_task(of.drain(0, 5.0))
        await asyncio.sleep(0.02)
        feedback = of.feedback(0, None)
        assert feedback.room("gmail", False) == 0
        transport.gate.set()
        assert await draining
        found = {result.dispatch_id: result for result in feedback.results}
        found |= await results(of, 2 - len(found))
        assert (found["a"].kind, found["b"].kind) == ("delivered", "returned")
        of.begin(0, [claim("c")], uptime())
        assert (await results(of, 1))["c"].kind == "returned", "committed late: it does not begin any more"

    run(story())


class Closed(Scripted):
    """Servers that swallow connections until the gate is open: only then a message might begin."""

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        await self.gate.wait()
        return self.answer(message) if still_wanted() else Outcome("vetoed")


def test_draining_gives_back_what_waits_for_a_server_and_has_not_begun() -> None:
    async def story() -> None:
        transport = Closed()
        transport.gate.clear()
        of = sender(transport)
        of.begin(0, [claim("a"), claim("b")], uptime())
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            assert await of.drain(0, 3600.0)
        assert {r.kind for r in of.feedback(0, None).results} == {"returned"}

    run(story())


def test_many_under_way_at_a_server_that_goes_away_are_one_failure() -> None:
    async def story() -> None:
        transport = Closed(lambda _: Outcome("not_sent"))
        transport.gate.clear()
        of = sender(transport, connections=20)
        of.begin(0, [claim(str(i)) for i in range(20)], uptime())
        await asyncio.sleep(0.05)
        with capture_logs() as told:
            transport.gate.set()
            await results(of, 20)
        assert [each["seconds"] for each in told] == [0.5]

    run(story())


def test_one_contact_that_does_not_open_holds_up_nobody_else(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    vault = SqliteVault.create(settings.vault_path, settings.vault_key_path)
    vault.put_many(Contact(f"r-{name}", f"{name}@mail.example") for name in "abc")
    vault._db.execute("UPDATE contact SET sealed = zeroblob(60) WHERE recipient_id = 'r-b'")
    renderer = Renderer(
        vault,
        load_templates(policy_folder(settings), load_policy(settings)),
        settings.identities,
        {"default": None},
    )
    ready = renderer([claim("a"), claim("b"), claim("c"), claim("d")], 1_700_000_000_000)
    kinds = [each.kind if isinstance(each, Result) else "message" for each in ready]
    assert kinds == ["message", "deferred", "message", "deferred"]
    details = [each.detail for each in ready if isinstance(each, Result)]
    assert [("does not open" in str(details[0])), details[1]] == [True, "no address in the vault"]
    vault.close()


def test_a_message_is_written_and_signed_in_the_name_of_its_lane_s_identity(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        identity={"news": {"mail_from": "News <news@shop.example>", "mail_domain": "n.example"}},
    )
    vault = SqliteVault.create(settings.vault_path, settings.vault_key_path)
    vault.put_many([Contact("r-a", "a@mail.example"), Contact("r-b", "b@mail.example")])
    signed: list[bytes] = []

    class Signs:
        def sign(self, content: bytes, at: int) -> bytes:
            signed.append(content)
            return content

    renderer = Renderer(
        vault,
        load_templates(policy_folder(settings), load_policy(settings)),
        settings.identities,
        {"default": None, "news": cast(Signer, Signs())},
    )
    ours, theirs, gone = renderer(
        [claim("a"), claim("b", "news/gmail#1"), claim("a", "gone/gmail")], 1_700_000_000_000
    )
    assert isinstance(ours, Prepared)
    assert b"From: Opportune <hello@opportune.example>" in ours.message.content
    assert isinstance(theirs, Prepared)
    assert b"From: News <news@shop.example>" in theirs.message.content
    assert b"@n.example>" in theirs.message.content
    assert signed == [theirs.message.content]
    assert isinstance(gone, Result)
    assert (gone.kind, gone.detail) == ("deferred", "no identity gone in the settings")
    vault.close()
