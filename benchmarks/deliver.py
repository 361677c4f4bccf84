"""The deliver suite: the whole DELIVER line, beside a loop that does nothing but hand messages over.

Commands go into Kafka, outcomes come out of it, and between stand vault, template, signature, pace, SMTP and
the table; the mail sandbox keeps each message in a file. The bare loop has the same messages ready and sends
them over as many connections to a server that keeps nothing. A message that arrives twice ends the suite.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console

from benchmarks import deliver_backlog, results, rig
from benchmarks.decide_events import Record
from benchmarks.decide_feed import Feed
from benchmarks.deliver_line import CONNECTIONS, Outcomes, command, prepared, worker
from benchmarks.results import Result, Run
from benchmarks.rig import Bench, Launch, PeerFailed
from infra.embedded import SandboxServer
from schemas import topics

BARE: Final = "bare aiosmtplib to aiosmtpd"
OURS: Final = "opportune"
SIGNED: Final = "opportune, DKIM with RSA 2048"
# What is promised: a share of the bare loop, and messages a second.
_SHARE: Final = 0.6
_LEAST: Final = {OURS: 700, SIGNED: 350}
_ROUNDS: Final = 3
_SECONDS: Final = 30.0
_LEAD: Final = 3_000
_COMMANDS: Final = 100_000
_NEVER: Final = [1 << 62]
_LANES: Final = f"""\
[default]
rate = "10000/s"
connections = {CONNECTIONS}
"""


@dataclass(frozen=True)
class Peer:
    """A program, what it guarantees, and whether it signs."""

    name: str
    guarantee: str
    signs: bool = False


PEERS: Final = (
    Peer(BARE, "none: nothing is written down"),
    Peer(OURS, "never twice"),
    Peer(SIGNED, "never twice", signs=True),
)


def run(rounds: int = _ROUNDS, seconds: float = _SECONDS) -> None:
    """Measure the programs, and what half a million messages weigh that wait; show what was found."""
    console = Console(stderr=True)
    found = {peer.name: Result(peer.name, peer.guarantee) for peer in PEERS}
    with rig.running() as bench:
        for number in range(rounds):
            for place, peer in enumerate(rig.rotated(PEERS, number)):
                one = _measure(bench, peer, f"deliver-{number}-{place}", seconds)
                console.print(f"round {number + 1}: {peer.name}: {one.events_per_s:,.0f}/s {one}")
                found[peer.name].runs.append(one)
        backlog = deliver_backlog.run(bench)
    title = f"deliver: messages a second over {CONNECTIONS} connections, from command to outcome"
    results.show("deliver", title, [*found.values()], OURS)
    for line in _held(found):
        Console().print(line)
    deliver_backlog.show(backlog)


def _held(found: dict[str, Result]) -> Iterator[str]:
    """Which bars are met."""
    share = found[OURS].rate / found[BARE].rate
    yield f"{share:.0%} of the bare loop, {_SHARE:.0%} promised: {_met(share >= _SHARE)}"
    for name, least in _LEAST.items():
        yield f"{name}: {found[name].rate:,.0f}/s, {least}/s promised: {_met(found[name].rate >= least)}"


def _met(holds: bool) -> str:
    return "met" if holds else "missed"


def _measure(bench: Bench, peer: Peer, group: str, seconds: float) -> Run:
    """One run on fresh topics, with a state folder, a vault and a sandbox of its own. Raises PeerFailed.

    The folder stays until the suite ends: ext4 makes files slowly for minutes where thousands were deleted.
    """
    bench.create(topics.TOPICS)
    folder = bench.folder / group
    with ExitStack() as ending:
        settings = prepared(bench, folder, _LANES)
        if peer.name == BARE:
            file = folder / "received"
            file.touch()
            program = [sys.executable, "-m", "benchmarks.deliver_bare", str(CONNECTIONS), str(file)]
            return bench.measure(Launch(program, group, (), settings), lines(file), _NEVER, seconds)
        sandbox = SandboxServer(folder)
        ending.callback(sandbox.down)
        sandbox.up()
        if peer.signs:
            settings["OPPORTUNE_DKIM_KEY"] = str(_key(folder))
        outcomes = ending.enter_context(Outcomes(bench.client, {"delivered"}))
        commands = [*_commands(_COMMANDS)]
        feed = ending.enter_context(Feed(bench.client, commands, lambda: outcomes.done, _LEAD))
        one = bench.measure(worker(settings), outcomes, _NEVER, seconds)
        if feed.dry:
            raise PeerFailed(f"all {_COMMANDS:,} messages were sent; load more")
        if twice := [*folder.glob("sandbox/mail/*/*.2.eml")]:
            raise PeerFailed(f"{len(twice)} messages came twice")
    return one


def _commands(count: int) -> Iterator[Record]:
    expires_at = time.time_ns() // 1_000_000 + 3_600_000
    return (command(number, "gmail", expires_at) for number in range(count))


def _key(folder: Path) -> Path:
    path = folder / "dkim.pem"
    path.touch(0o600)
    key = generate_private_key(65537, 2048)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def lines(file: Path) -> Callable[[], Sequence[int]]:
    """How many lines a file that grows has by now."""
    found, opened = 0, file.open("rb")

    def count() -> Sequence[int]:
        nonlocal found
        found += opened.read().count(b"\n")
        return [found]

    return count


if __name__ == "__main__":
    run(int(sys.argv[1]), float(sys.argv[2]))
