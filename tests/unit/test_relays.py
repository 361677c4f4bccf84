"""Several servers for one lane: shared evenly, taken over from, tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from sinks.transports import Message, Outcome, Transport
from sinks.transports.relays import Health, Relays

ACCEPTED = Outcome("accepted", 250)
REFUSED = Outcome("not_sent", 535, "5.7.8 authentication failed")
UNREACHED = Outcome("not_sent", detail="Connection refused")
DROPPED = Outcome("deferred", detail="the server closed the connection at RCPT")
LOST = Outcome("unknown", detail="no reply in time after the whole message was sent")
BUSY = Outcome("deferred", 451, "4.3.0 later")
MESSAGE = Message("d", "someone@mail.example", b"")


class Server:
    """A transport that answers with `answer`, once `gate` is open."""

    def __init__(self, answer: Outcome = ACCEPTED) -> None:
        self.answer, self.asked = answer, 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, message: Message, still_wanted: Callable[[], bool]) -> Outcome:
        self.asked += 1
        await self.gate.wait()
        return self.answer if still_wanted() else Outcome("vetoed")

    async def close(self) -> None: ...


class Told(list[tuple[float, str]]):
    def __call__(self, seconds: float, why: str) -> None:
        self.append((seconds, why))


def over(servers: Sequence[Transport], told: Told) -> Relays:
    return Relays([(server, Health(told)) for server in servers])


async def send(relays: Relays) -> Outcome:
    return await relays.send(MESSAGE, lambda: True)


def test_servers_share_the_messages() -> None:
    async def run() -> None:
        servers = [Server(), Server(), Server()]
        for server in servers:
            server.gate.clear()
        relays = over(servers, Told())
        async with asyncio.TaskGroup() as group:
            for _ in range(9):
                group.create_task(send(relays))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [server.asked for server in servers] == [3, 3, 3]
            for server in servers:
                server.gate.set()

    asyncio.run(run())


@pytest.mark.parametrize("failure", [REFUSED, UNREACHED, DROPPED])
def test_the_next_takes_over_at_once_where_the_first_certainly_did_not_take_it(failure: Outcome) -> None:
    async def run() -> None:
        servers, told = [Server(failure), Server()], Told()
        relays = over(servers, told)
        assert [await send(relays) for _ in range(10)] == [ACCEPTED] * 10
        assert servers[0].asked == 1  # it rests
        assert told == [(1.0, failure.detail)]

    asyncio.run(run())


def test_what_fails_later_than_a_second_goes_nowhere_else_in_this_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that was frozen meanwhile may have lost the message: a recall has gone to somebody else."""
    uptime = iter([100.0, 101.5])
    monkeypatch.setattr(time, "clock_gettime", lambda _: next(uptime))

    async def run() -> None:
        servers = [Server(DROPPED), Server()]
        assert await send(over(servers, Told())) == DROPPED
        assert [server.asked for server in servers] == [1, 0]

    asyncio.run(run())


def test_a_message_on_which_every_server_hangs_up_rests_the_first_alone() -> None:
    async def run() -> None:
        servers, told = [Server(DROPPED), Server(DROPPED), Server(DROPPED)], Told()
        assert await send(over(servers, told)) == DROPPED
        assert ([server.asked for server in servers], len(told)) == ([1, 1, 1], 1)

    asyncio.run(run())


def test_a_message_that_may_have_been_taken_goes_nowhere_else_and_the_next_goes_elsewhere() -> None:
    async def run() -> None:
        servers = [Server(LOST), Server()]
        relays = over(servers, Told())
        assert await send(relays) == LOST
        assert await send(relays) == ACCEPTED
        assert [server.asked for server in servers] == [1, 1]

    asyncio.run(run())


@pytest.mark.parametrize("answer", [BUSY, Outcome("bounced", 550, "5.7.1 no")])
def test_what_a_server_says_of_a_message_counts_and_is_no_failure(answer: Outcome) -> None:
    async def run() -> None:
        servers, told = [Server(answer), Server(answer)], Told()
        assert await send(over(servers, told)) == answer
        assert (sum(server.asked for server in servers), told) == (1, [])

    asyncio.run(run())


def test_where_none_can_be_reached_each_is_asked_once_and_nothing_has_gone() -> None:
    async def run() -> None:
        servers = [Server(UNREACHED), Server(REFUSED)]
        relays = over(servers, Told())
        assert (await send(relays)).kind == "not_sent"
        assert [server.asked for server in servers] == [1, 1]
        assert (await send(relays)).kind == "not_sent"  # both rest: one is asked all the same
        assert sum(server.asked for server in servers) == 3

    asyncio.run(run())


def test_a_server_that_has_rested_is_tried_by_one_message_and_shares_again_once_it_answers() -> None:
    health = Health(Told())
    health.learn(100.0, UNREACHED)
    assert not health.usable(100.9)
    assert health.usable(101.0)
    health.under_way = 1
    assert not health.usable(101.0)
    health.learn(101.0, UNREACHED)
    health.under_way = 0
    assert not health.usable(102.9)  # longer each time
    assert health.usable(103.0)
    health.learn(103.0, BUSY)
    health.under_way = 5
    assert health.usable(103.0)


def test_many_under_way_at_a_server_that_fails_are_one_failure() -> None:
    told = Told()
    health = Health(told)
    for _ in range(20):
        health.learn(100.0, UNREACHED)
    assert told == [(1.0, "Connection refused")]
    assert health.usable(101.0)


def test_a_message_does_not_begin_at_the_next_once_that_took_long_to_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        away, slow = Server(UNREACHED), Server()
        slow.gate.clear()
        sending = asyncio.create_task(send(over([away, slow], Told())))
        while not slow.asked:
            await asyncio.sleep(0)
        uptime = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", lambda clock: uptime(clock) + 2)
        slow.gate.set()
        assert (await sending).kind == "vetoed"

    asyncio.run(run())


def test_a_message_that_is_not_wanted_any_more_is_not_offered_to_the_next() -> None:
    async def run() -> None:
        servers = [Server(UNREACHED), Server()]
        wanted = iter([True, False])
        outcome = await over(servers, Told()).send(MESSAGE, lambda: next(wanted))
        assert outcome.kind == "vetoed"

    asyncio.run(run())
