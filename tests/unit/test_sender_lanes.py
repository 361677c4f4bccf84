"""What a sender makes of refusals: lanes that stop, are asked again with care, and keep what they learnt."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from datetime import UTC, datetime

from models.pacing import Standing
from schemas.profile import DAY_MS, HOUR_MS
from schemas.replies import Replies, ReplyRule
from schemas.units import Milliseconds
from sinks.transports import Outcome
from streams.agents.deliver import Paced
from streams.engine.control import Clock, Control
from streams.engine.cut import uptime
from tests.support.sending import Scripted, claim, results, run, sender

BUSY = Outcome("deferred", 421, "4.7.28 unusual rate of unsolicited mail")
FULL = Outcome("deferred", 452, "4.2.2 mailbox full")
REPLIES = Replies(
    rule=(
        ReplyRule(
            provider="gmail",
            text="unusual RATE",
            action="suspend",
            pause=Milliseconds.parse("10 min"),
            source="x",
        ),
        ReplyRule(text="mailbox full", action="message", pause=Milliseconds.parse("2 h"), source="x"),
    )
)


def told(standing: Standing) -> dict[str, list[dict[str, object]]]:
    """Figures of the journal's entry after which gmail stood so, as they are read."""
    found = asdict(standing)
    for moment in ("since", "slowed_at", "stopped_until"):
        found[moment] = datetime.fromtimestamp(found[moment] / 1000, UTC)
    return {"lanes": [{"lane": "gmail", "waiting": 7, "rate": 1.0, "tokens": 0, **found}]}


def test_a_provider_that_asks_for_a_pause_stops_its_lane_and_no_other() -> None:
    async def story() -> None:
        of = sender(Scripted(lambda _: BUSY), replies=REPLIES)
        of.begin(0, [claim("a"), claim("b", "yahoo")], uptime())
        found = await results(of, 2)
        assert {result.kind for result in found.values()} == {"deferred"}
        assert found["a"].pause == 10 * 60_000
        feedback = of.feedback(0, None)
        assert (feedback.room("gmail", False), feedback.room("gmail", True)) == (0, 0)
        assert feedback.room("yahoo", False) > 0, "there the text means nothing"
        gmail = feedback.lanes["gmail"]
        assert gmail.standing.stopped_until > time.time() * 1000 + 9 * 60_000
        assert (gmail.standing.factor, gmail.rate, gmail.tokens) == (0.5, 500.0, 0)

    run(story())


def test_a_refusal_for_good_that_is_the_senders_fault_is_tried_again() -> None:
    refused = Outcome("bounced", 550, "5.7.26 unusual rate", permanent=True)

    async def story() -> None:
        of = sender(Scripted(lambda _: refused), replies=REPLIES)
        of.begin(0, [claim("a"), claim("b", "yahoo")], uptime())
        found = await results(of, 2)
        assert (found["a"].kind, found["a"].permanent) == ("deferred", False)
        assert (found["b"].kind, found["b"].permanent) == ("bounced", True)

    run(story())


def test_a_refusal_at_the_greeting_is_heard_where_a_rule_knows_it() -> None:
    async def story() -> None:
        of = sender(Scripted(lambda _: Outcome("not_sent", 421, "unusual rate")), replies=REPLIES)
        of.begin(0, [claim("a")], uptime())
        assert (await results(of, 1))["a"].kind == "returned"
        standing = of.feedback(0, None).lanes["gmail"].standing
        assert standing.stopped_until > time.time() * 1000 + 9 * 60_000
        assert standing.begun == 0

    run(story())


def test_where_no_clock_tells_the_time_what_was_learnt_stays() -> None:
    now = time.time_ns() // 1_000_000
    learnt = Standing(factor=0.25, since=now, day=now // DAY_MS, stopped_until=now + HOUR_MS, stops=3)

    async def story() -> None:
        of = sender(Scripted(), "100/s")
        of.observe(Control(clock=Clock("plan", plan_id="year")))
        assert of.feedback(0, told(learnt)).lanes["gmail"] == Paced(learnt, 0.0, 0)
        assert of.feedback(0, None).lanes["gmail"] == Paced(learnt, 0.0, 0)
        of.observe(Control())
        assert of.feedback(0, None).lanes["gmail"] == Paced(learnt, 25.0, 0)


def test_a_server_that_says_when_to_come_back_is_left_alone_for_so_long_on_the_deployments_clock() -> None:
    async def story() -> None:
        of = sender(Scripted(lambda _: Outcome("deferred", 429, "too many", retry_after_s=90.0)))
        wall = time.time_ns() // 1_000_000
        of.observe(Control(clock=Clock("scaled", origin=wall, wall=wall, speed=10.0)))
        of.begin(0, [claim("a"), claim("b", "yahoo")], uptime())
        found = await results(of, 2)
        assert {result.pause for result in found.values()} == {900_000}
        assert of.feedback(0, None).room("gmail", True) == 0

    run(story())


def test_what_is_one_mailboxs_fault_is_tried_again_later_and_slows_nothing_down() -> None:
    async def story() -> None:
        of = sender(Scripted(lambda _: FULL), replies=REPLIES)
        of.begin(0, [claim(str(i)) for i in range(30)], uptime())
        found = await results(of, 30)
        assert {(result.kind, result.pause) for result in found.values()} == {("deferred", 2 * HOUR_MS)}
        gmail = of.feedback(0, None).lanes["gmail"]
        assert (gmail.standing.factor, gmail.standing.stops, gmail.rate) == (1.0, 0, 1000.0)

    run(story())


def test_a_lane_goes_on_with_what_it_had_learnt_under_its_last_owner() -> None:
    now = time.time_ns() // 1_000_000
    learnt = Standing(factor=0.25, day=now // DAY_MS, stopped_until=now + HOUR_MS, stops=3)

    async def story() -> None:
        of = sender(Scripted(), "100/s")
        feedback = of.feedback(0, told(learnt))
        assert feedback.resumed
        assert feedback.lanes["gmail"] == Paced(learnt, 25.0, 0)
        assert feedback.room("gmail", True) == 0
        assert not of.feedback(0, None).resumed
        assert of.feedback(1, {}).resumed

    run(story())


def test_after_a_stop_one_message_tries_whether_the_provider_takes_any() -> None:
    now = time.time_ns() // 1_000_000
    learnt = Standing(factor=0.5, day=now // DAY_MS, stopped_until=now - 1, stops=2)

    async def story() -> None:
        transport = Scripted()
        of = sender(transport, "1000/s", connections=8)
        feedback = of.feedback(0, told(learnt))
        await asyncio.sleep(0.3)  # until its bucket, empty at first, lets one go
        assert feedback.room("gmail", False) == 1
        of.begin(0, [claim("a")], uptime())
        assert (await results(of, 1))["a"].kind == "delivered"
        assert feedback.room("gmail", False) > 1

    run(story())


def test_an_urgent_message_goes_before_those_that_were_taken_up_earlier() -> None:
    async def story() -> None:
        transport = Scripted()
        transport.gate.clear()
        of = sender(transport, "1000/s", connections=1)
        of.begin(0, [claim("first"), claim("a"), claim("b"), claim("u", urgent=True)], uptime())
        await asyncio.sleep(0.1)
        transport.gate.set()
        await results(of, 4)
        assert transport.sent.index("u") <= 1
        assert transport.sent[-2:] == ["a", "b"]

    run(story())
