"""Everything at once: servers, vault, people with addresses, and all three roles."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import infra
from infra.embedded import SandboxServer
from sinks.vault.sqlite import SqliteVault
from streams.engine.control import Clock
from streams.replay import completejourney, session
from streams.warehouse import Warehouse
from tests.support import record
from tests.support import stack as stacks
from tests.support.stack import Stack, set_clock

BEGIN = datetime(2017, 1, 1, tzinfo=UTC)
PARTITIONS = 4
_CAMPAIGN = """\
number = 3
name = "post_purchase"
version = 1
doc = "For tests: every purchase."
trigger = { event = "purchase" }
template = "post_purchase"
cooldown = "1 h"
expiry = "4 h"
"""
_CONTACT = """\
default_zone = "America/New_York"
purpose.mail = { consent = "opt_in" }
cap = [{ most = 6, window = "2 h" }]
quiet.default = { from = "03:00", to = "04:00" }
"""


def eager_policy(folder: Path, rate: str) -> Path:
    """A policy folder that sends for every purchase, at almost any hour, over lanes of a rate."""
    place = folder / "policy"
    shutil.copytree(Path(infra.__file__).parent / "policy", place)
    (place / "campaigns" / "post_purchase.toml").write_text(_CAMPAIGN)
    (place / "contact.toml").write_text(_CONTACT)
    (place / "lanes.toml").write_text(f'[default]\nrate = "{rate}"\n')
    return place


@contextmanager
def running(folder: Path, households: int, days: int) -> Iterator[tuple[Stack, Warehouse]]:
    """All servers, and a vault with the people of the first days, imported by the command."""
    with stacks.running(folder, PARTITIONS) as stack, record.clickhouse(stack) as house:
        sandbox = SandboxServer(stack.settings.state_dir)
        sandbox.up()
        try:
            SqliteVault.create(stack.settings.vault_path, stack.settings.vault_key_path).close()
            set_clock(stack, Clock("scaled", round(BEGIN.timestamp() * 1000), 0, 0.0))
            file = folder / "people.csv"
            people = completejourney.contacts(BEGIN, BEGIN + timedelta(days=days), households)
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, people[0].keys())
                writer.writeheader()
                writer.writerows(people)
            imported = stack.run("recipients", "import", str(file))
            file.unlink()
            assert imported.returncode == 0, imported.stdout + imported.stderr
            yield stack, house
        finally:
            stack.end()
            sandbox.down()


def live(stack: Stack, start: datetime, hours: int, speed: float, households: int) -> None:
    """Live through some hours of the shopping, in the foreground; then the clock stands."""
    end = start + timedelta(hours=hours)
    events = completejourney.events(start, end, households)
    session.live(stack.client, events, start, end, speed, lambda _: None)
