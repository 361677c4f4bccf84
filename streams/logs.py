"""Structured logs: JSON where nobody watches, readable on a terminal, and only allow-listed keys."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from streams import events


def configure(level: str) -> None:
    """Send our logs and the libraries' through one chain to standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _foreign,
        _trace,
        _allow_listed,
    ]
    terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    for name in ("faust", "mode", "aiokafka", "asyncio"):
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def _foreign(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A library's free text becomes the message of one event."""
    if "_from_structlog" in entry and not entry["_from_structlog"]:
        entry["message"] = str(entry["event"])
        entry["event"] = events.FRAMEWORK
    return entry


def _trace(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A traceback under an allowed key."""
    if entry.get("exc_info"):
        structlog.processors.format_exc_info(None, "", entry)
        entry["trace"] = entry.pop("exception", None)
    return entry


def _allow_listed(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what is not on the list: recipients, payloads and addresses never reach a log."""
    return {key: value for key, value in entry.items() if key in events.ALLOWED_KEYS or key.startswith("_")}
