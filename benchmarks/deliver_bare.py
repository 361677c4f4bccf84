"""The bare loop: messages that are ready are handed over by aiosmtplib, and nothing else is done.

    python -m benchmarks.deliver_bare CONNECTIONS

It sends to the sandbox of its settings until it is ended. Each message is rendered before the first goes, and
has another dispatch id each time that it is sent.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import count
from typing import Final

import aiosmtplib
import uvloop

from benchmarks.deliver_line import dispatch_id
from infra.embedded import SandboxServer
from infra.embedded.server import Endpoint
from models.deliver import Claim
from schemas.routes import DEFAULT_IDENTITY
from schemas.settings import Settings
from sinks.transports import Message
from sinks.vault.sqlite import SqliteVault
from streams import worker
from streams.rendering import Renderer, load_templates
from streams.sending_lane import Prepared

_DIFFERENT: Final = 1_000
_SENDER: Final = "hello@opportune.example"


def _rendered(settings: Settings) -> list[Message]:
    policy = worker.load_policy(settings)
    vault = SqliteVault(settings.vault_path, settings.vault_key_path)
    templates = load_templates(worker.policy_folder(settings), policy)
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


async def _send(endpoint: Endpoint, messages: Iterator[tuple[str, bytes]]) -> None:
    client = aiosmtplib.SMTP(hostname=endpoint.host, port=endpoint.port, use_tls=False, start_tls=False)
    await client.connect()
    for recipient, content in messages:
        await client.sendmail(_SENDER, [recipient], content)


async def _run(connections: int) -> None:
    settings = Settings()
    endpoint = SandboxServer(settings.state_dir).status().endpoint
    if endpoint is None:
        raise RuntimeError("no sandbox runs there")
    messages = _messages(_rendered(settings))
    await asyncio.gather(*(_send(endpoint, messages) for _ in range(connections)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(int(sys.argv[1])))
