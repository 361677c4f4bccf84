"""The mail sandbox as a process: what it keeps, what it says, and how it ends."""

import json
import os
import signal
import smtplib
import socket
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest

from infra.embedded.process import choose_ports
from infra.embedded.sandbox_script import Rule, Script, ScriptError, portion

Start = Callable[..., subprocess.Popen[bytes]]
PATIENCE_S = 60.0


def dispatch(number: int) -> str:
    return str(uuid5(NAMESPACE_DNS, str(number)))


def mail(dispatch_id: str, lane: str = "gmail") -> bytes:
    headers = f"X-Opportune-Dispatch: {dispatch_id}\r\nX-Opportune-Lane: {lane}\r\nTo: jane@mail.example\r\n"
    return f"{headers}Subject: hello\r\n\r\n.hidden\r\nhello\r\n".encode()


class Sandbox:
    """One sandbox's folder and port, and the process that was started last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = choose_ports({"smtp": None})["smtp"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                [
                    sys.executable,
                    "-m",
                    "infra.embedded.smtp_sandbox",
                    str(self.folder),
                    "--port",
                    str(self.port),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with self.client():
                    return self.process
            except OSError:
                time.sleep(0.02)
        raise AssertionError(self.log)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def script(self, text: str) -> None:
        """Move a script into place, as an editor does."""
        self.folder.mkdir(exist_ok=True)
        new = self.folder / "script.new"
        new.write_text(text)
        new.rename(self.folder / "script.toml")

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE_S)

    def send(self, dispatch_id: str, recipient: str = "jane@mail.example", lane: str = "gmail") -> str:
        """Return the first digit of the answer, or `lost`."""
        with self.client() as client:
            try:
                envelope = [f"ENVID={dispatch_id}"]
                client.sendmail("hello@opportune.example", [recipient], mail(dispatch_id, lane), envelope)
            except smtplib.SMTPRecipientsRefused as refused:
                return str(next(iter(refused.recipients.values()))[0])[0]
            except smtplib.SMTPServerDisconnected:
                return "lost"
            except smtplib.SMTPResponseException as refused:
                return str(refused.smtp_code)[0]
        return "2"

    @property
    def received(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "received.jsonl").read_text().splitlines()]

    @property
    def kept(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "mail").rglob("*.eml"))

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path / "sandbox")
    yield sandbox
    sandbox.end()


def test_what_is_accepted_is_kept_byte_by_byte_and_listed_without_an_address(sandbox: Sandbox) -> None:
    sandbox.start()
    before = time.time_ns() // 1_000_000
    assert sandbox.send(dispatch(1)) == "2"

    path = f"mail/{dispatch(1)[:2]}/{dispatch(1)}.1.eml"
    [line] = sandbox.received
    assert (sandbox.folder / path).read_bytes() == mail(dispatch(1))
    assert before <= line.pop("at") <= time.time_ns() // 1_000_000
    assert line == {
        "dispatch_id": dispatch(1),
        "lane": "gmail",
        "answer": "accept",
        "reply": "250 2.0.0",
        "eml": path,
    }
    assert "@" not in (sandbox.folder / "received.jsonl").read_text() + sandbox.log


def test_what_it_makes_is_for_its_own_user_alone_whatever_the_umask(sandbox: Sandbox) -> None:
    before = os.umask(0o022)
    try:
        sandbox.start()
    finally:
        os.umask(before)
    assert sandbox.send(dispatch(1)) == "2"

    mail_folder = sandbox.folder / "mail"
    files = [sandbox.folder / "received.jsonl", *mail_folder.rglob("*.eml")]
    folders = [mail_folder, mail_folder / dispatch(1)[:2]]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    assert [stat.S_IMODE(path.stat().st_mode) for path in folders] == [0o700, 0o700]


def test_a_dispatch_that_comes_twice_is_kept_twice_also_over_a_restart(sandbox: Sandbox) -> None:
    sandbox.start()
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(sandbox.send, [dispatch(1)] * 4)) == {"2"}
    sandbox.end()
    sandbox.start()
    assert sandbox.send(dispatch(1)) == "2"

    assert sandbox.kept == [f"{dispatch(1)}.{n}.eml" for n in range(1, 6)]


@pytest.mark.parametrize("dispatch_id", ["../../../etc/passwd", ".", "a", "a b", ""])
def test_a_message_that_does_not_name_its_dispatch_properly_is_refused(
    sandbox: Sandbox, dispatch_id: str
) -> None:
    sandbox.start()
    with sandbox.client() as client, pytest.raises(smtplib.SMTPDataError, match="X-Opportune-Dispatch"):
        client.sendmail("hello@opportune.example", ["jane@mail.example"], mail(dispatch_id))

    assert sandbox.kept == []


def test_a_message_that_is_too_large_is_refused(sandbox: Sandbox) -> None:
    sandbox.start()
    with sandbox.client() as client:
        client.ehlo()
        code, _ = client.mail("hello@opportune.example", [f"SIZE={(4 << 20) + 1}"])

    assert code == 552


def test_it_listens_on_loopback_only(sandbox: Sandbox) -> None:
    sandbox.start()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.2", sandbox.port))


def test_the_first_rule_that_matches_wins(sandbox: Sandbox) -> None:
    sandbox.script("""
        [[rule]]
        answer = "accept"
        domain = "kept.example"
        [[rule]]
        answer = "bounce"
        at = "rcpt"
        domain = "Gone.example"
        [[rule]]
        answer = "defer"
        lane = "slow"
        first = 2
        [[rule]]
        answer = "close"
        at = "after_store"
        domain = "cut.example"
        [[rule]]
        answer = "close"
        domain = "lost.example"
        [[rule]]
        answer = "close"
        at = "rcpt"
        domain = "shut.example"
        [[rule]]
        answer = "bounce"
        domain = "never.example"
        text = "552 5.3.4 <jane@never.example> takes none"
    """)
    sandbox.start()

    assert sandbox.send(dispatch(1), "a@kept.example", "slow") == "2"
    assert sandbox.send(dispatch(2), "a@GONE.example") == "5"
    assert [sandbox.send(dispatch(3), lane="slow") for _ in range(3)] == ["4", "4", "2"]
    assert sandbox.send(dispatch(4), "a@cut.example") == "lost"
    assert sandbox.send(dispatch(5), "a@lost.example") == "lost"
    assert sandbox.send(dispatch(6), "a@shut.example") == "lost"
    assert sandbox.send(dispatch(7), "a@never.example") == "5"

    assert sandbox.kept == sorted(f"{dispatch(n)}.1.eml" for n in (1, 3, 4))
    listed = [(line["dispatch_id"], line["answer"], line["eml"] is not None) for line in sandbox.received]
    assert listed == [
        (dispatch(1), "accept", True),
        (dispatch(2), "bounce", False),
        (dispatch(3), "defer", False),
        (dispatch(3), "defer", False),
        (dispatch(3), "accept", True),
        (dispatch(4), "close", True),
        (dispatch(5), "close", False),
        (dispatch(6), "close", False),
        (dispatch(7), "bounce", False),
    ]
    assert sandbox.received[-1]["reply"] == "552 5.3.4"


def test_a_share_is_of_dispatches_and_repeats_agree(sandbox: Sandbox) -> None:
    sandbox.script('[[rule]]\nanswer = "defer"\nshare = 0.5\n')
    sandbox.start()
    ids = [dispatch(number) for number in range(40)]

    first, second = [[sandbox.send(one) for one in ids] for _ in range(2)]

    assert first == second == ["4" if portion(one) < 0.5 else "2" for one in ids]
    assert set(first) == {"2", "4"}


def test_a_share_is_about_as_large_as_it_says() -> None:
    assert 800 < Counter(portion(dispatch(n)) < 0.1 for n in range(10_000))[True] < 1200


def test_a_script_is_read_again_when_it_changes_and_a_wrong_one_leaves_the_last_good_one(
    sandbox: Sandbox,
) -> None:
    sandbox.start()
    assert sandbox.send(dispatch(1)) == "2"
    sandbox.script('[[rule]]\nanswer = "defer"\n')
    assert sandbox.send(dispatch(2)) == "4"
    sandbox.script('[[rule]]\nanswer = "refuse"\n')
    assert [sandbox.send(dispatch(n)) for n in (3, 4)] == ["4", "4"]
    assert sandbox.log.count("the last good script stays in force") == 1
    (sandbox.folder / "script.toml").unlink()
    assert sandbox.send(dispatch(5)) == "2"


def test_a_wrong_script_at_the_start_is_exit_status_2_with_file_and_rule(sandbox: Sandbox) -> None:
    sandbox.script('[[rule]]\nanswer = "accept"\n\n[[rule]]\nanswer = "slow"\n')
    with pytest.raises(AssertionError, match=r"script\.toml: rule 2: .*slow, and only slow, needs seconds"):
        sandbox.start()

    assert sandbox.process is not None
    assert sandbox.process.wait() == 2


def test_a_port_that_is_taken_is_exit_status_1_with_the_cause(sandbox: Sandbox) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", sandbox.port))
        other.listen()
        other.settimeout(PATIENCE_S)
        command = [sys.executable, "-m", "infra.embedded.smtp_sandbox", str(sandbox.folder)]
        done = subprocess.run(  # noqa: S603 - our own command line
            [*command, "--port", str(sandbox.port)], capture_output=True, text=True, check=False
        )

    assert done.returncode == 1
    assert "address already in use" in done.stderr


def test_sigterm_lets_the_reply_under_way_out_and_ends_idle_connections(sandbox: Sandbox) -> None:
    sandbox.script('[[rule]]\nanswer = "slow"\nseconds = 1\n')
    process = sandbox.start()
    with ThreadPoolExecutor(1) as thread, sandbox.client() as idle:
        sent = thread.submit(sandbox.send, dispatch(1))
        deadline = time.monotonic() + PATIENCE_S
        while not sandbox.kept and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)

        assert sent.result() == "2"
        assert process.wait(PATIENCE_S) == 0
        with pytest.raises(smtplib.SMTPServerDisconnected):
            idle.noop()


def test_after_kill_9_everything_that_was_acknowledged_is_there_and_nothing_is_half(sandbox: Sandbox) -> None:
    process = sandbox.start()
    acknowledged = []
    with ThreadPoolExecutor(4) as threads:
        for number, sent in enumerate([threads.submit(_answer, sandbox, dispatch(n)) for n in range(200)]):
            if sent.result() == "2":
                acknowledged.append(dispatch(number))
            if number == 60:
                os.kill(process.pid, signal.SIGKILL)
    process.wait()

    kept = {path.name.split(".")[0]: path for path in (sandbox.folder / "mail").rglob("*.eml")}
    assert 60 < len(acknowledged) < 200
    assert set(acknowledged) <= kept.keys()
    assert all(path.read_bytes() == mail(dispatch_id) for dispatch_id, path in kept.items())
    assert message_from_bytes(kept[acknowledged[0]].read_bytes())["Subject"] == "hello"


def _answer(sandbox: Sandbox, dispatch_id: str) -> str:
    try:
        return sandbox.send(dispatch_id)
    except OSError:  # it is gone
        return "lost"


@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        ('answer = "no"', "'accept', 'defer', 'bounce', 'slow' or 'close'"),
        ('answer = "accept"\nwhen = 1', "when: Extra inputs are not permitted"),
        ('answer = "accept"\nat = "rcpt"', "at of accept is nothing, not rcpt"),
        ('answer = "defer"\nat = "after_store"', "at of defer is rcpt or data, not after_store"),
        ('answer = "defer"\nat = "rcpt"\nlane = "x"', "the lane is not known yet"),
        ('answer = "defer"\ntext = "550 no"', 'text is one ASCII line such as "451 4.7.1'),
        ('answer = "bounce"\ntext = "550 no\\r\\n250 yes"', "text is one ASCII line"),
        ('answer = "accept"\ntext = "250 yes"', "accept takes no text"),
        ('answer = "close"\nseconds = 1', "slow, and only slow, needs seconds"),
        ('answer = "accept"\nshare = 1.5', "share: Input should be less than or equal to 1"),
        ('answer = "accept"\nshare = "1"', "share: Input should be a valid number"),
        ('answer = "accept"\nfirst = 0', "first: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_rule_is_refused_with_what_would_be_right(tmp_path: Path, rule: str, cause: str) -> None:
    path = tmp_path / "script.toml"
    path.write_text(f"[[rule]]\n{rule}\n")

    with pytest.raises(ScriptError) as refused:
        Script(path)
    assert cause in str(refused.value)
    assert f"{path}: rule 1: " in str(refused.value)


@pytest.mark.parametrize("text", ["rule =", "rule = 1", "[rule]\nanswer = 'accept'", "rules = []"])
def test_what_is_no_list_of_rules_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "script.toml"
    path.write_text(text)

    with pytest.raises(ScriptError, match=str(path)):
        Script(path)


def test_a_rule_that_accepts_a_lane_does_not_shield_from_rules_at_the_recipient() -> None:
    assert Rule(answer="accept", domain="a.example").decides_at("rcpt")
    assert not Rule(answer="accept", lane="gmail").decides_at("rcpt")
