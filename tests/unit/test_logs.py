"""Logs: JSON where nobody watches, and nothing in them that names a person."""

import json
import logging
import sys

import pytest
import structlog

from streams import events, logs


@pytest.fixture(autouse=True)
def _restored() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_an_entry_is_a_line_of_json_with_listed_keys_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    structlog.get_logger().info(
        events.LINE_DROPPED, partition=3, recipient_id="ann", address="ann@example.com", value=b"payload"
    )
    text = capsys.readouterr().err
    entry = json.loads(text)
    assert entry["event"] == events.LINE_DROPPED
    assert entry["partition"] == 3
    assert "@" not in text
    assert set(entry) <= events.ALLOWED_KEYS


def test_a_librarys_text_becomes_the_message_of_one_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    logging.getLogger("somebody.elses").warning("something %s", "happened")
    entry = json.loads(capsys.readouterr().err)
    assert (entry["event"], entry["message"]) == (events.FRAMEWORK, "something happened")


def test_a_traceback_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    try:
        raise ValueError("the cause")
    except ValueError:
        structlog.get_logger().error(events.WORKER_FAILED, exc_info=sys.exc_info())
    assert "ValueError: the cause" in json.loads(capsys.readouterr().err)["trace"]


def test_less_severe_entries_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("error")
    structlog.get_logger().warning(events.LINE_DROPPED)
    assert capsys.readouterr().err == ""
