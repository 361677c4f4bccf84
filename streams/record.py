"""RECORD: one process that lands the audit trail, the journals, dead letters and profiles in ClickHouse."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from schemas.settings import Settings
from streams import cluster, events, logs, reading, warehouse
from streams.engine.cut import Out
from streams.engine.kafka import Client
from streams.policy import load_policy
from streams.recording.figures import Figures
from streams.recording.landing import Landing
from streams.recording.names import ControlledNames, SegmentNames
from streams.recording.recorder import Recorder

_FAILED: Final = 70

_log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Record until SIGTERM or SIGINT, which it obeys within an insert; exit code 70 where it cannot go on.

    Raises
    ------
    NoKafka, NoClickHouse, ClickHouseError, PolicyError, PartitionsDiffer, PortTaken
        It could not start.
    """
    logs.configure(settings.log_level)
    structlog.contextvars.bind_contextvars(role="record")
    client, house, figures = cluster.connect(settings), warehouse.connect(settings), Figures()
    cluster.create_topics(client, settings)
    names = segment_names(client, settings)
    house.migrate()
    stopping: list[int] = []

    def stop(number: int, _: object) -> None:
        stopping.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    def make_landing(wait: Callable[[float], None]) -> Landing:
        return Landing(house.connect, house.stored, names, figures, wait)

    def produce(letters: Sequence[Out]) -> Any:
        return reading.produce(client, letters)

    port = figures.serve(settings.web_port, settings.web_bind, settings.watchdog_s / 2)
    recorder = Recorder(client, settings, make_landing, produce, figures, lambda: bool(stopping))
    _log.info(events.WORKER_STARTED, web_port=port, worker_id=settings.worker_id)
    try:
        recorder.run()
    except Exception as error:
        _log.error(events.WORKER_FAILED, error=f"{type(error).__name__}: {error}", exc_info=True)
        sys.exit(_FAILED)
    _log.info(events.WORKER_STOPPED)


def segment_names(client: Client, settings: Settings) -> SegmentNames:
    """Names of segments by their numbers. Raises PolicyError or `KafkaUnavailable`."""
    return ControlledNames(client, load_policy(settings).segments)
