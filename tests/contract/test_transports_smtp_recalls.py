"""A message that is not wanted any more: whatever the step at which that is found, its end is not sent."""

import asyncio
from contextlib import suppress

import pytest

from sinks.transports import Outcome
from tests.support.smtp import Spoken, message, polite, sent, transport


def test_what_is_not_wanted_any_more_at_the_last_moment_is_vetoed_and_nothing_of_it_is_sent() -> None:
    server = Spoken(polite)
    asked: list[list[str]] = []

    def no_longer() -> bool:
        asked.append(list(server.connections[-1]))
        return False

    async def run() -> list[Outcome]:
        async with server.listening() as port:
            through = transport(port)
            outcomes = [await through.send(message(1), no_longer), *await sent(through, message(2))]
            await through.close()
            return outcomes

    assert [outcome.kind for outcome in asyncio.run(run())] == ["vetoed", "accepted"]
    assert asked == [["EHLO opportune.example"]]
    assert [line[:4] for line in server.connections[0]] == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize(
    ("after", "said", "connections"),
    [
        ("MAIL", ["EHLO", "MAIL", "RSET", "MAIL", "RCPT", "DATA", "QUIT"], 1),
        ("RCPT", ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "QUIT"], 1),
        ("DATA", ["EHLO", "MAIL", "RCPT", "DATA"], 2),
    ],
)
def test_a_recall_while_the_server_takes_its_time_stops_the_message_and_not_the_next_one(
    after: str, said: list[str], connections: int
) -> None:
    recalled = False
    ends = 0

    def answer(line: str) -> bytes | None:
        nonlocal recalled, ends
        recalled = recalled or line.startswith(after)
        ends += line == "."
        return polite(line)

    server = Spoken(answer)

    async def run() -> list[Outcome]:
        async with server.listening() as port:
            through = transport(port, connections=1)
            outcomes = [await through.send(message(1), lambda: not recalled)]
            before = ends
            outcomes += await sent(through, message(2))
            await through.close()
            assert (before, ends) == (0, 1)
            return outcomes

    assert [outcome.kind for outcome in asyncio.run(run())] == ["vetoed", "accepted"]
    assert [line[:4] for line in server.connections[0]] == said
    assert len(server.connections) == connections


def test_a_recall_while_the_content_is_on_its_way_keeps_its_end_back() -> None:
    async def run() -> tuple[Outcome, bytes]:
        recalled, taken = False, bytearray()
        gone = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal recalled
            writer.write(b"220 here\r\n")
            while not (await reader.readline()).startswith(b"DATA"):
                writer.write(b"250 fine\r\n")
            writer.write(b"354 go on\r\n")
            await reader.readline()  # and the rest only now that it is recalled
            recalled = True
            with suppress(ConnectionError):
                while some := await reader.read(1 << 20):
                    taken[:] = (taken + some)[-5:]
            writer.close()
            gone.set()

        server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=1024)
        through = transport(server.sockets[0].getsockname()[1])
        outcome = await through.send(message(1, size=64 << 20), lambda: not recalled)
        await gone.wait()
        await through.close()
        server.close()
        return outcome, bytes(taken)

    outcome, end = asyncio.run(run())
    assert outcome == Outcome("vetoed")
    assert end != b"\r\n.\r\n"
