"""A mail server that keeps what it is sent and relays nothing: the child behind `infra.embedded.sandbox`.

    python -m infra.embedded.smtp_sandbox FOLDER --port N [--host ADDRESS]

It listens on loopback, unless it is told an address: in a container, on a network that only DELIVER shares.
What it answers stands in `FOLDER/script.toml` (see `sandbox_script`), which is read again when it changes.
What it takes is, before the 250, in

    FOLDER/mail/<first two characters of the dispatch id>/<dispatch id>.<n>.eml

whole and safe from the death of any process, though not of the machine: Kafka beside it waits for no disk
either. n is 1, or one more for each time the same dispatch came again: a doubled send is there to be seen.
`FOLDER/received.jsonl` has one line for each transaction that was answered, without an address. A message
names its dispatch in the header X-Opportune-Dispatch and its lane in X-Opportune-Lane. Before they are read,
the dispatch is known where ENVID of RFC 3461 names it. What it makes is for the user it runs as alone, since
a stored message has an address: files 0600, folders 0700.

SIGTERM ends it after the replies under way. Exit status 2: the script is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import os
import re
import signal
import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session

from infra.embedded.sandbox_script import Rule, Script, ScriptError, Stage

HOST = "127.0.0.1"
# A rendered template is at most 256 KiB in text and in HTML, and quoted-printable triples that at worst.
LARGEST_MESSAGE = 4 << 20
KEPT = "250 2.0.0 kept"
NO_DISPATCH = "554 5.6.0 the header X-Opportune-Dispatch must name the dispatch"
CODES = re.compile(r"\d{3}( \d\.\d{1,3}\.\d{1,3})?")
DISPATCH_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{1,63}")
# Parameters of RFC 3461, which aiosmtpd would refuse.
OF_DSN = re.compile(r"\s(ENVID|RET|NOTIFY|ORCPT)=(\S+)", re.IGNORECASE)
USUAL_ADDRESS = re.compile(
    r"<(?P<address>[\w+-]+(?:\.[\w+-]+)*@[\w-]+(?:\.[\w-]+)*)> *(?P<parameters>[\w= -]*)", re.ASCII
)
OURS = re.compile(rb"^X-Opportune-(Dispatch|Lane):[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)

log = logging.getLogger("sandbox")


@dataclass(frozen=True)
class Transaction:
    """What is written down of one; `reply` is None where the connection was closed instead."""

    dispatch_id: str | None
    lane: str | None
    answer: str
    reply: str | None

    def line(self, eml: str | None) -> str:
        """Return the line of received.jsonl."""
        record = dict(vars(self))
        # Only the codes: a scripted text may quote an address, as real servers do.
        codes = CODES.match(self.reply or "")
        record["reply"] = codes and codes[0]
        return json.dumps({"at": time.time_ns() // 1_000_000, **record, "eml": eml}) + "\n"


class MailFolder:
    """The stored messages and the list of transactions. One process writes to it."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, and remove the unfinished files of a process that was killed."""
        self._mail = folder / "mail"
        self._mail.mkdir(parents=True, exist_ok=True)
        for part in self._mail.glob("*.part"):
            part.unlink()
        self._numbers = itertools.count()
        self._received = (folder / "received.jsonl").open("a", encoding="utf-8")

    def enter(self, transaction: Transaction, eml: str | None = None) -> None:
        """Add one line to the list of transactions."""
        self._received.write(transaction.line(eml))
        self._received.flush()

    def keep(self, dispatch_id: str, transaction: Transaction, content: bytes) -> None:
        """Store a message whole, then list it; both outlive this process. Raises OSError."""
        # Names are texts here: to make Paths of them takes longer than the system calls.
        shelf, part = dispatch_id[:2], f"{self._mail}/{next(self._numbers)}.part"
        with open(part, "wb") as file:
            file.write(content)
        names = (f"{shelf}/{dispatch_id}.{n}.eml" for n in itertools.count(1))
        name = next(name for name in names if not os.path.exists(f"{self._mail}/{name}"))
        try:
            os.rename(part, f"{self._mail}/{name}")
        except FileNotFoundError:  # the first on its shelf
            os.mkdir(f"{self._mail}/{shelf}")
            os.rename(part, f"{self._mail}/{name}")
        self.enter(transaction, f"{self._mail.name}/{name}")

    def close(self) -> None:
        """Close the list."""
        self._received.close()


class Conversation(SMTP):
    """One client's connection; `envelope_id` is what its message's ENVID says."""

    envelope_id: str | None = None

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Answer `MAIL FROM`."""
        said = {name.upper(): value for name, value in OF_DSN.findall(arg or "")}
        self.envelope_id = said.get("ENVID")
        await super().smtp_MAIL(OF_DSN.sub("", arg) if arg else arg)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Answer `RCPT TO`."""
        await super().smtp_RCPT(OF_DSN.sub("", arg) if arg else arg)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        # aiosmtpd's own parser takes any address, and a third of the time of a whole message.
        usual = USUAL_ADDRESS.fullmatch(arg)
        return (usual["address"], usual["parameters"]) if usual else super()._getaddr(arg)


class Handler:
    """What aiosmtpd asks: whom it takes mail for, and what becomes of a message."""

    def __init__(self, folder: MailFolder, script: Script) -> None:
        """Take the folder, which stays open, and the script."""
        self._folder = folder
        self._script = script
        self._under_way = 0
        self._all_replied = asyncio.Event()

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Say what is spoken here."""
        session.host_name = hostname
        return [*responses[:-1], "250-DSN", "250-PIPELINING", responses[-1]]

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: Conversation, session: Session, envelope: Envelope, address: str, options: Sequence[str]
    ) -> str:
        """Answer `RCPT TO`."""
        if envelope.rcpt_tos:
            return "452 4.5.3 one recipient a message"
        named = DISPATCH_ID.fullmatch(server.envelope_id or "")
        dispatch_id = named and named[0]
        rule = self._decide("rcpt", address, None, dispatch_id)
        if rule.answer == "accept":
            envelope.rcpt_tos.append(address)
            return "250 2.1.5 OK"
        self._folder.enter(Transaction(dispatch_id, None, rule.answer, rule.reply or None))
        if rule.answer == "close":
            hang_up(server)
        return rule.reply

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Answer the end of a message."""
        self._under_way += 1
        self._all_replied.clear()
        try:
            return await self._take(server, envelope)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._all_replied.set()

    async def handle_exception(self, error: Exception) -> str:
        """Answer for what went wrong here, such as a full disk: the sender shall try again."""
        log.error("a message was not taken", exc_info=error)
        return f"451 4.3.0 the sandbox failed: {type(error).__name__}"

    async def settle(self) -> None:
        """Return when every message under way has its reply."""
        while self._under_way:  # one may begin before this wakes up
            await self._all_replied.wait()

    async def _take(self, server: SMTP, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        dispatch_id, lane = _named(content)
        if dispatch_id is None or not DISPATCH_ID.fullmatch(dispatch_id):
            self._folder.enter(Transaction(None, lane, "bounce", NO_DISPATCH))
            return NO_DISPATCH
        rule = self._decide("data", envelope.rcpt_tos[0], lane, dispatch_id)
        reply = KEPT if rule.answer in ("accept", "slow") else rule.reply or None
        transaction = Transaction(dispatch_id, lane, rule.answer, reply)
        if rule.answer in ("accept", "slow") or rule.at == "after_store":
            self._folder.keep(dispatch_id, transaction, content)
        else:
            self._folder.enter(transaction)
        if reply is None:
            hang_up(server)
        await asyncio.sleep(rule.seconds or 0)
        return reply

    def _decide(self, stage: Stage, address: str, lane: str | None, dispatch_id: str | None) -> Rule:
        try:
            self._script.reload()
        except ScriptError as error:
            log.error("%s; the last good script stays in force", error)
        domain = address.rpartition("@")[2].lower()
        return self._script.answer(stage, domain=domain, lane=lane, key=dispatch_id or address)


def _named(content: bytes) -> tuple[str | None, str | None]:
    """The dispatch and the lane that a message's header names."""
    head = content.partition(b"\r\n\r\n")[0] + b"\r\n"
    found = {name.lower(): value.decode("ascii", "replace") for name, value in reversed(OURS.findall(head))}
    return found.get(b"dispatch"), found.get(b"lane")


def hang_up(server: SMTP) -> NoReturn:
    """Close the connection and leave it unanswered, as a server that dies would.

    Raises
    ------
    CancelledError
        Always: it is how aiosmtpd's own session ends when its client is gone.
    """
    if server.transport is not None:
        server.transport.close()
    raise asyncio.CancelledError


async def serve(folder: Path, host: str, port: int) -> None:
    """Take mail until SIGTERM or SIGINT.

    Raises
    ------
    ScriptError
        The script is wrong.
    OSError
        The port is taken, or the folder cannot be written.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    kept = MailFolder(folder)
    handler = Handler(kept, Script(folder / "script.toml"))
    sessions: weakref.WeakSet[Conversation] = weakref.WeakSet()

    def session() -> Conversation:
        made = Conversation(
            handler,
            data_size_limit=LARGEST_MESSAGE,
            enable_SMTPUTF8=True,
            hostname="sandbox.localhost",  # or each connection would ask the resolver
            ident="opportune mail sandbox",
            loop=loop,
        )
        sessions.add(made)
        return made

    server = await loop.create_server(session, host, port)
    log.info("listening on %s:%d", *server.sockets[0].getsockname()[:2])
    await ended.wait()
    server.close()
    await handler.settle()
    for made in list(sessions):
        if made.transport is not None:
            made.transport.close()
    await asyncio.sleep(0)  # the transports say goodbye in the loop's next round
    kept.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sandbox; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.embedded.smtp_sandbox", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="where script.toml is read and mail is kept")
    parser.add_argument("--host", default=HOST, help="address to listen on, loopback by default")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # at INFO it writes every address
    # A client that hangs up is what this server is for: not worth a stack trace.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        uvloop.run(serve(options.folder, options.host, options.port))
    except ScriptError as error:
        print(f"{error}: correct it, or delete the file to accept everything", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"the mail sandbox cannot run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
