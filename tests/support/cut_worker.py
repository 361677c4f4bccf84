"""The worker of `plain_worker`, written for our engine: the same count and the same answers, in cuts.

Run as `python -m tests.support.cut_worker` with the environment of `tests.support.counting.Setup`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from schemas import topics
from schemas.settings import Settings
from streams import logs
from streams.engine import app as engine
from streams.engine.control import Control
from streams.engine.cut import Cut, Handled, Out, Turn
from streams.engine.journal import Tally
from streams.engine.kafka import Client
from streams.engine.line import Spec
from streams.engine.store import NEVER, UNKNOWN, SlabStore, Store
from tests.support.counting import TROUBLED, Answer, Fault, Setup, Troubled, refuse_first_commit

ROW: Final = np.dtype([("count", "<i8")])
_FIGURES: Final = ("decided", "withheld", "released", "dropped", "pending")


class Count:
    """Counts the records of each key, and answers every one of them."""

    def __init__(self, outputs: str, fault: Fault) -> None:
        self.outputs = outputs
        self.fault = fault

    def handle(self, turn: Turn) -> list[Handled]:
        return [self._handle(cut, table) for cut, table in turn]

    def _handle(self, cut: Cut, table: Store) -> Handled:
        (topic, records), *_ = cut.records.items()
        counts: dict[bytes, int] = {}
        handled = Handled(figures=dict.fromkeys(_FIGURES, 0))
        for record in records:
            key, kind = record.key or b"", record.value or b""
            self._meet_trouble(kind)
            counts[key] = counts.get(key, _stored(table, key)) + 1
            answer = Answer(cut.partition, record.offset, counts[key])
            handled.outputs.append(Out(self.outputs, key, answer.encode(kind), cut.partition))
        handled.keys = list(counts)
        handled.rows = np.array([(count,) for count in counts.values()], ROW)
        handled.due_at = np.full(len(counts), NEVER)
        handled.tallies = [Tally(topic, cut.next_offsets[topic], consumed=len(records), decided=len(records))]
        return handled

    def _meet_trouble(self, kind: bytes) -> None:
        if kind == TROUBLED and self.fault == "raise":
            raise Troubled
        if kind == TROUBLED and self.fault == "hang":
            threading.Event().wait()

    def policy(self, control: Control) -> str:
        return "count"

    def due_at(self, keys: Sequence[bytes], rows: np.ndarray, after: int, control: Control) -> np.ndarray:
        return np.full(len(rows), NEVER)

    def due_by(self, control: Control) -> object:
        return ()

    def standing(self, rows: np.ndarray) -> dict[str, int]:
        return {}


def _stored(table: Store, key: bytes) -> int:
    slots = table.find([key])
    return 0 if slots[0] == UNKNOWN else int(table.gather(slots)["count"][0])


def main() -> None:
    setup = Setup()
    if setup.fault == "commit_refused":
        refuse_first_commit()
    settings = Settings(
        state_dir=setup.folder,
        brokers=setup.brokers,
        partitions=setup.partitions,
        worker_id=setup.instance,
        web_port=1,  # asked for with the name
        session_timeout_s=6.0,
    )
    logs.configure("info")
    spec = Spec(
        setup.app,
        Client.of(settings, setup.brokers),
        (setup.source,),
        setup.changelog,
        topics.JOURNAL.name,
        False,
        Count(setup.outputs, setup.fault),
        settings.cut_records,
        int(settings.target_latency) / 1000,
        lambda: SlabStore(ROW),
    )
    setup.folder.mkdir(parents=True, exist_ok=True)
    # A static member keeps its address. Nothing is served there, so that a successor never finds it taken.
    web: Any = SimpleNamespace(getsockname=lambda: (settings.web_bind, settings.web_port))
    app: Any = engine.build(spec, settings, web, setup.folder)
    app.conf.web_enabled = False
    worker: Any = app.Worker(loglevel="info", quiet=True, redirect_stdouts=False, override_logging=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
