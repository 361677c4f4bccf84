"""The recall suite: how long after a withdrawal the recall of what had been released can be read, in a burst.

Everybody of a group gets a message at once, which DELIVER, not running, never confirms. Then events come at a
rate, and meanwhile each of the group withdraws. Measured is from the moment at which the broker appended the
withdrawal to that at which a consumer that reads committed has the recall. What is released later to one who
withdrew would be a fault, and ends the suite.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import decide, open_loop, results, rig
from benchmarks.decide_events import Crowd, Record
from benchmarks.decide_feed import load
from benchmarks.decide_reference import POLICY
from benchmarks.open_loop import Reader
from benchmarks.rig import Bench, PeerFailed
from schemas import codec, topics
from streams.engine.kafka import read_batches
from streams.engine.partitioner import partition_of

RATE: Final = 20_000.0  # events a second
WITHDRAWING: Final = 3_000
_SECONDS: Final = 30.0
_ROUNDS: Final = 3
_CAMPAIGN: Final = """\
number = 63
name = "thanks"
version = 1
doc = "At once, for every purchase."
trigger.event = "purchase"
template = "post_purchase"
timing = "at_once"
cooldown = "1 h"
expiry = "24 h"
"""
_QUIET: Final = 'default = { from = "21:00", to = "08:00" }'


def run(rounds: int = _ROUNDS, seconds: float = _SECONDS) -> None:
    """Measure and show."""
    console = Console(stderr=True)
    crowd, now = Crowd(decide.RECIPIENTS, rig.PARTITIONS), time.time_ns() // 1_000_000
    known = list(crowd.known(now))
    behaviour = list(crowd.behaviour("zipf", int(RATE * seconds), now))
    runs: list[tuple[float, float, float]] = []
    with rig.running() as bench:
        for number in range(rounds):
            runs.append(_once(bench, known, behaviour, seconds, number))
            console.print(f"round {number + 1}: p50, p99, most in ms: {runs[-1]}")
    title = f"withdrawal to readable recall, {WITHDRAWING:,} withdrawals in {RATE:,.0f} events/s"
    table = Table("round", "p50 ms", "p99 ms", "most ms", title=title)
    for number, figures in enumerate(runs, 1):
        table.add_row(str(number), *(f"{figure:,.0f}" for figure in figures))
    Console().print(table)
    results.write("recall", {"machine": results.machine(), "rate": RATE, "runs": runs})


def _once(
    bench: Bench, known: Sequence[Record], behaviour: Sequence[Record], seconds: float, number: int
) -> tuple[float, float, float]:
    bench.create(topics.TOPICS)
    load(bench.client, known)
    policy = _policy(bench.folder / f"recall-{number}")
    launch = decide.worker(bench, f"recall-{number}", policy)
    child, log = bench.start(launch)
    try:
        open_loop.await_known(bench, launch.group)
        keys = _consenting(known)[:WITHDRAWING]
        load(bench.client, [_of(topics.PURCHASES.name, key, {"amount": 100}) for key in keys])
        _await_commands(bench, len(keys))
        reader = Reader(bench.client, topics.RECALLS.name)
        every = len(behaviour) // len(keys)
        mixed = [*_mixed(behaviour, keys, every)]
        open_loop.offer(bench, mixed, RATE * len(mixed) / len(behaviour), seconds)
        found = reader.found()
        if child.poll() is not None:
            raise PeerFailed(f"the worker ended\n{log.read_text(errors='replace')[-4000:]}")
    finally:
        rig.stop(child)
    withdrawn = dict(_withdrawals(bench))
    recalls = [(at, codec.decode(topics.RECALLS.name, value)["recipient_id"]) for at, value in found]
    waits = np.array([(at - withdrawn[who]) * 1000 for at, who in recalls])
    if len({who for _, who in recalls}) < len(keys):
        raise PeerFailed(f"{len(keys)} withdrew, {len({who for _, who in recalls})} recalls came")
    _nothing_later(bench, withdrawn)
    p50, p99 = np.percentile(waits, [50, 99]).tolist()
    return p50, p99, float(waits.max())


def _policy(folder: Path) -> Path:
    """The benchmarks' policy with a message at once for every purchase, at any hour, as often as it asks."""
    shutil.copytree(POLICY, folder)
    (folder / "campaigns" / "thanks.toml").write_text(_CAMPAIGN)
    contact = (folder / "contact.toml").read_text().replace(_QUIET, "").replace("most = 1", "most = 12")
    (folder / "contact.toml").unlink()
    (folder / "contact.toml").write_text(contact)
    return folder


def _consenting(known: Sequence[Record]) -> list[bytes]:
    consents = (record for record in known if record.topic == topics.CONSENT.name)
    read = ((record.key, codec.decode(record.topic, record.value)) for record in consents)
    return [key for key, fields in read if fields["purpose"] == "mail"]


def _of(topic: str, key: bytes, fields: Mapping[str, object]) -> Record:
    base = {"recipient_id": key.decode(), "event_id": None, "occurred_at": time.time_ns() // 1_000_000}
    return Record(topic, partition_of(key, rig.PARTITIONS), key, codec.encode(topic, {**base, **fields}))


def _mixed(behaviour: Sequence[Record], keys: Sequence[bytes], every: int) -> Iterator[Record]:
    withdrawing = iter(keys)
    for number, record in enumerate(behaviour):
        yield record
        if number % every == 0 and (key := next(withdrawing, None)) is not None:
            fields: dict[str, object] = {
                "purpose": "mail",
                "state": "withdrawn",
                "version": 9,
                "source": "form",
            }
            yield _of(topics.CONSENT.name, key, fields)


def _await_commands(bench: Bench, count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(1 for _ in _commands(bench)) < count:
        if time.monotonic() > deadline:
            raise PeerFailed(f"fewer than {count} messages were released in time")
        time.sleep(0.5)


def _commands(bench: Bench) -> Iterator[tuple[str, float]]:
    """Recipient of each command and when the broker appended it, UTC s."""
    consumer = bench.client.reader()
    for partition in range(rig.PARTITIONS):
        for batch in read_batches(consumer, topics.COMMANDS.name, partition):
            for message in batch:
                fields = codec.decode(topics.COMMANDS.name, message.value() or b"")
                yield fields["recipient_id"], message.timestamp()[1] / 1000
    consumer.close()


def _withdrawals(bench: Bench) -> Iterator[tuple[str, float]]:
    consumer = bench.client.reader()
    for partition in range(rig.PARTITIONS):
        for batch in read_batches(consumer, topics.CONSENT.name, partition):
            for message in batch:
                fields = codec.decode(topics.CONSENT.name, message.value() or b"")
                if fields["state"] == "withdrawn":
                    yield fields["recipient_id"], message.timestamp()[1] / 1000
    consumer.close()


def _nothing_later(bench: Bench, withdrawn: dict[str, float]) -> None:
    """A message released after its recipient's recall could have been would be a fault."""
    recalled = {}
    consumer = bench.client.reader()
    for partition in range(rig.PARTITIONS):
        for batch in read_batches(consumer, topics.RECALLS.name, partition):
            for message in batch:
                who = codec.decode(topics.RECALLS.name, message.value() or b"")["recipient_id"]
                recalled[who] = message.timestamp()[1] / 1000
    consumer.close()
    late = [who for who, at in _commands(bench) if who in recalled and at > recalled[who]]
    if late:
        raise PeerFailed(f"{len(late)} messages were released after their recipients withdrew")
