"""What SMTP adds to the contract: each answer of the sandbox, and servers that break at each step."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from infra.embedded import SandboxServer
from sinks.transports import Message, Outcome
from sinks.transports.replies import without_addresses
from tests.support.peers import SmtpPeer
from tests.support.smtp import (
    ADDRESS,
    LOCAL,
    Answers,
    Spoken,
    answering,
    dispatch,
    message,
    polite,
    send,
    sent,
    spoken,
    transport,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    server = SandboxServer(tmp_path_factory.mktemp("sandbox"))
    server.up()
    yield server
    server.down()


@pytest.fixture
def sandbox(shared: SandboxServer) -> Answers:
    answers = Answers(shared)
    answers.script("")
    return answers


# The sandbox, answer by answer


def test_what_the_server_takes_is_accepted_and_arrives_byte_by_byte(sandbox: Answers) -> None:
    one = message(1)
    assert send(sandbox.port, one) == [Outcome("accepted", 250, "2.0.0 kept")]

    [path] = sandbox.server.folder.glob(f"mail/*/{dispatch(1)}.1.eml")
    assert path.read_bytes() == one.content


def test_lines_that_end_otherwise_cannot_end_a_message_early(sandbox: Answers) -> None:
    smuggled = b"one\n.\nMAIL FROM:<a@b.example>\r\n.\rtwo\n"
    one = Message(dispatch(2), ADDRESS, message(2).content + smuggled)
    assert [outcome.kind for outcome in send(sandbox.port, one)] == ["accepted"]

    [path] = sandbox.server.folder.glob(f"mail/*/{dispatch(2)}.1.eml")
    assert path.read_bytes().endswith(b"one\r\n.\r\nMAIL FROM:<a@b.example>\r\n.\r\ntwo\r\n")


@pytest.mark.parametrize(("at", "number"), [("rcpt", 10), ("data", 11)])
def test_a_transient_failure_is_deferred_and_the_next_message_goes(
    sandbox: Answers, at: str, number: int
) -> None:
    text = f"450 4.2.2 <{ADDRESS}>: mailbox of {LOCAL} is full"
    sandbox.script(
        f'[[rule]]\nanswer = "defer"\nat = "{at}"\ntext = "{text}"\nfirst = 1\ndomain = "mail.example"\n'
    )

    first, second = send(sandbox.port, message(number), message(number))

    assert first == Outcome("deferred", 450, "4.2.2 [address]: mailbox of [address] is full")
    assert (second.kind, sandbox.kept(number)) == ("accepted", 1)


@pytest.mark.parametrize(
    ("at", "text", "permanent"),
    [
        ("rcpt", "550 5.1.1 no such user", True),
        ("rcpt", "553 5.1.10 null MX", True),
        ("rcpt", "550 5.1.8 sender's domain is unknown", False),
        ("rcpt", "550 5.7.1 blocked", False),
        ("rcpt", "550 no such user", False),
        ("data", "550 5.1.1 no such user", False),
        ("data", "554 5.7.1 looks like spam", False),
    ],
)
def test_a_permanent_failure_is_bounced_and_permanent_only_for_a_bad_address_at_the_recipient(
    sandbox: Answers, at: str, text: str, permanent: bool
) -> None:
    sandbox.script(f'[[rule]]\nanswer = "bounce"\nat = "{at}"\ntext = "{text}"\n')

    [outcome] = send(sandbox.port, message(20))

    assert (outcome.kind, outcome.code, outcome.permanent) == ("bounced", int(text[:3]), permanent)
    assert outcome.detail == text[4:]
    assert sandbox.kept(20) == 0


@pytest.mark.parametrize(
    ("rule", "patience_s", "number", "kind", "kept"),
    [
        ('answer = "close"\nat = "rcpt"', 30.0, 30, "deferred", 0),
        ('answer = "close"\nat = "data"', 30.0, 31, "unknown", 0),
        ('answer = "close"\nat = "after_store"', 30.0, 32, "unknown", 1),
        ('answer = "slow"\nseconds = 600', 2.0, 33, "unknown", 1),
    ],
)
def test_only_what_may_have_been_taken_is_unknown(
    sandbox: Answers, rule: str, patience_s: float, number: int, kind: str, kept: int
) -> None:
    sandbox.script(f"[[rule]]\n{rule}\nfirst = 1\n")

    first, second = send(sandbox.port, message(number), message(100 + number), verdict_timeout_s=patience_s)
    sandbox.script("")
    third = send(sandbox.port, message(200 + number))

    assert (first.kind, sandbox.kept(number)) == (kind, kept)
    assert second.kind == kind  # of another dispatch, over another connection
    assert third[0].kind == "accepted"


def test_a_server_killed_before_its_reply_leaves_unknown_and_after_a_restart_the_next_one_goes(
    tmp_path: Path,
) -> None:
    server = SandboxServer(tmp_path)
    try:
        answers = Answers(server)
        answers.script('[[rule]]\nanswer = "slow"\nseconds = 600\nlane = "slow"\n')

        async def run() -> list[Outcome]:
            through = transport(answers.port)
            [before] = await sent(through, message(1))
            cut = asyncio.create_task(through.send(message(2, lane="slow"), lambda: True))
            while not answers.kept(2):
                await asyncio.sleep(0.01)
            answers.kill()
            outcomes = [before, await cut, *await sent(through, message(3))]
            await asyncio.to_thread(server.up)
            outcomes += await sent(through, message(3))
            await through.close()
            return outcomes

        outcomes = uvloop.run(run())
    finally:
        server.down()

    assert [outcome.kind for outcome in outcomes] == ["accepted", "unknown", "not_sent", "accepted"]
    assert [answers.kept(number) for number in (1, 2, 3)] == [1, 1, 1]


def test_of_the_addresses_nothing_is_seen(sandbox: Answers) -> None:
    text = f"550 5.1.1 <{ADDRESS}> {LOCAL.upper()} x=mail.example@relay.example is unknown"
    sandbox.script(f'[[rule]]\nanswer = "bounce"\nat = "rcpt"\ntext = "{text}"\n')

    outcomes = send(sandbox.port, message(40), message(41, recipient="jane doe@mail.example"))

    listed = (sandbox.server.folder / "received.jsonl").read_text() + sandbox.server.log.read_text()
    seen = repr((message(40), outcomes)) + listed
    assert "jane" not in seen.lower()
    assert "@" not in seen
    assert outcomes[0].detail == "5.1.1 [address] [address] [address] is unknown"


# Servers that the sandbox cannot be


@pytest.mark.parametrize(
    ("when", "reply", "expected"),
    [
        ("EHLO", None, ("not_sent", None)),
        ("EHLO", b"550 go away\r\n", ("not_sent", 550)),
        ("MAIL", None, ("deferred", None)),
        ("MAIL", b"451 4.3.0 busy\r\n", ("deferred", 451)),
        ("MAIL", b"421 4.7.0 too many\r\n", ("deferred", 421)),
        ("MAIL", b"550 5.7.1 not you\r\n", ("bounced", 550)),
        ("MAIL", b"what?\r\n", ("deferred", None)),
        ("RCPT", None, ("deferred", None)),
        ("RCPT", b"299 odd\r\n", ("deferred", 299)),
        ("DATA", None, ("deferred", None)),
        ("DATA", b"451 4.3.0 busy\r\n", ("deferred", 451)),
        ("DATA", b"250 2.0.0 odd\r\n", ("deferred", 250)),
        (".", None, ("unknown", None)),
        (".", b"what?\r\n", ("unknown", None)),
        (".", b"354 go on\r\n", ("unknown", 354)),
        (".", b"421 4.3.2 going down\r\n", ("deferred", 421)),
        (".", b"251-2.1.5 taken\r\n251 2.1.5 elsewhere\r\n", ("accepted", 251)),
    ],
)
def test_each_step_s_failure_is_told_apart_and_the_next_message_is_not_disturbed(
    when: str, reply: bytes | None, expected: tuple[str, int | None]
) -> None:
    failing = iter([reply])

    def answer(line: str) -> bytes | None:
        return next(failing, polite(line)) if line.startswith(when) else polite(line)

    first, second = uvloop.run(spoken(Spoken(answer), message(1), message(2)))

    assert (first.kind, first.code) == expected
    assert second == Outcome("accepted", 250, "2.0.0 fine")


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
def test_a_message_that_the_server_drops_is_deferred_with_what_happened_and_where(stage: str) -> None:
    closed = uvloop.run(spoken(Spoken(answering(stage, None)), message(1)))
    silent = uvloop.run(spoken(Spoken(answering(stage, b"")), message(1), timeout_s=0.5))

    assert closed == [Outcome("deferred", detail=f"the server closed the connection at {stage}")]
    assert silent == [Outcome("deferred", detail=f"no reply in time at {stage}")]


def test_where_no_reply_to_the_whole_message_comes_the_detail_says_so() -> None:
    silent = Spoken(answering(".", b""))
    assert uvloop.run(spoken(silent, message(1), verdict_timeout_s=0.5)) == [
        Outcome("unknown", detail="no reply in time after the whole message was sent")
    ]


@pytest.mark.parametrize("greeting", [b"554 5.3.2 closed\r\n", b"421 4.3.2 later\r\n", b"", b"what?\r\n"])
def test_a_server_that_does_not_let_us_in_was_sent_nothing(greeting: bytes) -> None:
    [outcome] = uvloop.run(spoken(Spoken(polite, greeting), message(1), timeout_s=0.5))

    assert outcome.kind == "not_sent"
    assert outcome.detail


def test_an_address_outside_ascii_needs_a_server_that_takes_it(sandbox: Answers) -> None:
    one = message(50, recipient="jürgen@mail.example")

    assert [o.kind for o in send(sandbox.port, one)] == ["accepted"]
    [refused] = uvloop.run(spoken(Spoken(polite), one))
    assert (refused.kind, refused.permanent) == ("bounced", False)
    assert "SMTPUTF8" in refused.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<jane.doe@mail.example>: unknown", "[address]: unknown"),
        ("user JANE.DOE unknown", "user [address] unknown"),
        ('"jane doe"@mail.example unknown', "[address] unknown"),
        ("jane.doe=mail.example@bounces.example", "[address]"),
        ("rfc822;jane.doe@mail.example", "rfc822;[address]"),
        ("jürgen@exämple.example", "[address]"),
        ("one\r\ntwo\x00\udcffthree", "one two three"),
        ("jane.doesnt match", "jane.doesnt match"),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_server_s_words_are_kept_without_addresses_on_one_short_line(text: str, expected: str) -> None:
    assert without_addresses(text, ADDRESS) == expected


def test_a_server_that_refuses_before_the_end_of_the_content_is_heard() -> None:
    gone = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"552 5.3.4 too big\r\n")
        with suppress(ConnectionError):
            await reader.read()  # as much as comes, until the client hangs up
        writer.close()
        gone.set()

    async def run() -> Outcome:
        async with SmtpPeer().breaking(refuse) as port:
            through = transport(port)
            try:
                return (await sent(through, message(1, size=16 << 20)))[0]
            finally:
                await gone.wait()
                await through.close()

    assert uvloop.run(run()) == Outcome("bounced", 552, "5.3.4 too big")
