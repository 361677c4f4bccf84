"""A message of SMTP that is recalled: whatever the step at which that is found, its end is not sent."""

import pytest
import uvloop

from sinks.transports import Outcome
from tests.support.smtp import Spoken, message, polite, sent, transport


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

    assert [outcome.kind for outcome in uvloop.run(run())] == ["vetoed", "accepted"]
    assert [line[:4] for line in server.connections[0]] == said
    assert len(server.connections) == connections
