"""The bare loop: messages that are ready are handed over by aiosmtplib to aiosmtpd, and nothing else is done.

    python -m benchmarks.deliver_bare CONNECTIONS FILE

The server is a process of its own, keeps nothing, and adds a line to FILE for each message. Each message is
rendered before the first goes, and has another dispatch id each time. It goes on until SIGTERM.
"""

import asyncio
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import Final

import aiosmtplib
from aiosmtpd.smtp import SMTP, Envelope, Session

from benchmarks.deliver_line import dispatch_id
from models.deliver import Claim
from schemas.routes import DEFAULT_IDENTITY
from schemas.settings import Settings
from sinks.transports import Message
from sinks.vault.sqlite import SqliteVault
from streams.policy import load_policy, policy_folder
from streams.rendering import Renderer, load_templates
from streams.sending_lane import Prepared

_HOST: Final = "127.0.0.1"
_DIFFERENT: Final = 1_000
_SENDER: Final = "hello@opportune.example"


def _rendered(settings: Settings) -> list[Message]:
    policy = load_policy(settings)
    vault = SqliteVault(settings.vault_path, settings.vault_key_path)
    templates = load_templates(policy_folder(settings), policy)
    render = Renderer(vault, templates, settings.identities, {DEFAULT_IDENTITY: None})
    now = time.time_ns() // 1_000_000
    claims = [
        Claim(dispatch_id(n), f"recipient-{n}", "post_purchase", "post_purchase", "gmail", now, 1)
        for n in range(_DIFFERENT)
    ]
    return [ready.message for ready in render(claims, now) if isinstance(ready, Prepared)]


def _messages(rendered: list[Message]) -> Iterator[tuple[str, bytes]]:
    for number in count():
        message = rendered[number % _DIFFERENT]
        fresh = dispatch_id(number).encode()
        yield message.recipient, message.content.replace(message.dispatch_id.encode(), fresh)


class _Taking:
    def __init__(self, file: str) -> None:
        self._taken = open(file, "w", buffering=1)  # noqa: SIM115 - as long as the process

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self._taken.write("\n")
        return "250 OK"


async def _serve(file: str, sender: Connection) -> None:
    loop, taking = asyncio.get_running_loop(), _Taking(file)
    server = await loop.create_server(lambda: SMTP(taking, hostname="bare.example", loop=loop), _HOST, 0)
    sender.send(server.sockets[0].getsockname()[1])
    with suppress(EOFError):  # the sender has ended, however that came
        await asyncio.to_thread(sender.recv)


def _server(file: str, server: Connection, sender: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what it was forked with would be held up by its loop
    server.close()  # the copy that came with the fork: it would hide that the sender's is gone
    asyncio.run(_serve(file, sender))


async def _send(port: int, messages: Iterator[tuple[str, bytes]]) -> None:
    client = aiosmtplib.SMTP(hostname=_HOST, port=port, use_tls=False, start_tls=False)
    await client.connect()
    for recipient, content in messages:
        await client.sendmail(_SENDER, [recipient], content)


async def _run(connections: int, port: int) -> None:
    messages = _messages(_rendered(Settings()))
    await asyncio.gather(*(_send(port, messages) for _ in range(connections)))


def main(connections: int, file: str) -> None:
    """Serve and send."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # or the server would go on
    server, sender = multiprocessing.Pipe()
    multiprocessing.Process(target=_server, args=(file, server, sender), daemon=True).start()
    sender.close()
    asyncio.run(_run(connections, server.recv()))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
