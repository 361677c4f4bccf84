"""Our engine: a worker with the state suite's handler, one transaction per cut. `python -m … GROUP`."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.state_handler import STATE, Counting
from schemas import topics
from schemas.settings import Settings
from streams import logs, worker
from streams.engine import app as engine
from streams.engine.kafka import Client
from streams.engine.snapshot import NoSnapshots
from streams.engine.store import SlabStore
from streams.web import listen


def main(group: str, commit_s: float, datadir: Path) -> None:
    """Run until told to stop."""
    brokers = os.environ["BENCH_BROKERS"]
    settings = Settings(brokers=brokers, state_dir=datadir)
    logs.configure("info")
    spec = replace(
        worker.decide_spec(settings, Client.of(settings, brokers)),
        app=group,
        sources=(topics.CLICKS.name,),
        follows_plan=False,
        handler=Counting(topics.CLICKS.name),
        new_store=lambda: SlabStore(STATE),
        snapshots=NoSnapshots(),  # which are of profiles' layouts
        layouts=None,
    )
    app = engine.build(spec, settings, listen(settings), datadir)
    app.conf.broker_commit_interval = commit_s
    running: Any = app.Worker(loglevel="info", quiet=True, redirect_stdouts=False, override_logging=False)
    running.execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
