"""Logs: one line a message whatever it holds, no text of an exception, repeats counted."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from monitor.errors import BadInput, Problem
from monitor.service import configure_logging, fields
from monitor.service.logs import BURST, RepeatFilter, escape
from monitor.settings import LogSettings

CANARY = "canary-text-of-a-prompt"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream to log to; the process's own logging comes back after the test."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook, logging.raiseExceptions)
    yield io.StringIO()
    logging.captureWarnings(False)
    root.handlers[:], level, sys.excepthook, threading.excepthook, logging.raiseExceptions = before
    root.setLevel(level)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_json_object_a_line(stream: io.StringIO) -> None:
    configure_logging(LogSettings(), stream)
    log = logging.getLogger("monitor.test")
    log.info("partition %d taken up", 3, extra=fields(partition=3, offsets=[1, 2], found={"b", "a"}, ok=None))
    log.debug("not at this level")
    (record,) = records(stream)
    assert record.pop("ts").endswith("Z")
    assert record == {
        "level": "info", "logger": "monitor.test", "event": "partition 3 taken up", "partition": 3, "offsets": [1, 2],
        "found": ["a", "b"], "ok": None,
    }  # fmt: skip


def test_values_that_are_no_scalars_leave_their_type_only(stream: io.StringIO) -> None:
    configure_logging(LogSettings(), stream)
    logging.getLogger("monitor").info("x", extra=fields(row={"prompt": CANARY}, raw=CANARY.encode(), level="forged"))
    (record,) = records(stream)
    assert (record["row"], record["raw"], record["level"]) == ("<dict>", "<bytes>", "info")
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize("style", ["json", "text"])
def test_nothing_forges_a_line_or_steers_a_terminal(stream: io.StringIO, style: Any) -> None:
    configure_logging(LogSettings(format=style), stream)
    hostile = 'a\n{"level": "info"}\r\x1b[31m\x00\x7f\u202e\u2028\u0085z'
    logging.getLogger("monitor").warning("got %s", hostile, extra=fields(name=hostile))
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert written.endswith("\n")
    assert not any(c in written for c in "\r\x1b\x00\x7f\u202e\u2028\u0085")
    assert len(written.splitlines()) == 1


@pytest.mark.parametrize("style", ["json", "text"])
def test_an_exception_is_its_type_and_places_without_its_message(stream: io.StringIO, style: Any) -> None:
    configure_logging(LogSettings(format=style), stream)
    try:
        try:
            json.loads("{" + CANARY)
        except ValueError as cause:
            raise KeyError(CANARY) from cause
    except KeyError:
        logging.getLogger("monitor").exception("a step failed")
    written = stream.getvalue()
    assert CANARY not in written
    assert "KeyError at tests/unit/test_service_logs.py:" in written
    assert "caused by JSONDecodeError at" in written


def test_our_own_errors_keep_their_words(stream: io.StringIO) -> None:
    configure_logging(LogSettings(), stream)
    try:
        raise BadInput([Problem("rules/a.yaml", 3, "is odd")])
    except BadInput:
        logging.getLogger("monitor").exception("the rules are kept as they were")
    assert "rules/a.yaml:3: is odd" in records(stream)[0]["exception"]


def test_errors_that_nobody_caught_are_logged_without_their_message(stream: io.StringIO) -> None:
    configure_logging(LogSettings(), stream)

    def fail() -> None:
        raise ValueError(CANARY)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert [record["level"] for record in records(stream)] == ["critical", "critical"]
    assert "ValueError at tests/unit/test_service_logs.py" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_client_libraries_speak_from_warnings_on(stream: io.StringIO) -> None:
    configure_logging(LogSettings(level="debug"), stream)
    logging.getLogger("kafka.coordinator").info("joined")
    logging.getLogger("kafka.coordinator").warning("left")
    logging.getLogger("monitor").debug("seen")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old call", DeprecationWarning, stacklevel=1)
    assert [record["logger"] for record in records(stream)] == ["kafka.coordinator", "monitor", "py.warnings"]


def test_repeats_are_written_a_few_times_and_then_counted() -> None:
    now = [0.0]
    repeats = RepeatFilter(60.0, lambda: now[0])

    def record(line: int) -> logging.LogRecord:
        return logging.LogRecord("m", logging.WARNING, "f.py", line, "busy %d", (line,), None)

    assert [repeats.filter(record(1)) for _ in range(50)] == [True] * BURST + [False] * (50 - BURST)
    assert repeats.filter(record(2)), "another place is another message"
    now[0] = 61.0
    first = record(1)
    assert repeats.filter(first)
    assert first.repeated == 50 - BURST  # type: ignore[attr-defined]  # set by the filter
    second = record(1)
    assert repeats.filter(second)
    assert not hasattr(second, "repeated")


def test_the_filter_is_bounded_and_can_be_off() -> None:
    repeats = RepeatFilter(60.0)
    for line in range(5_000):
        repeats.filter(logging.LogRecord("m", logging.INFO, "f.py", line, "", (), None))
    assert len(repeats._places) <= 1_024
    off = RepeatFilter(0)
    assert all(off.filter(logging.LogRecord("m", logging.INFO, "f.py", 1, "", (), None)) for _ in range(100))


def test_escape_leaves_printable_text_of_any_language() -> None:
    assert escape("naïve 模型 ok") == "naïve 模型 ok"
    assert escape("a\tb\x9b") == "a\\tb\\x9b"
    assert escape("\ud800") == "\\ud800"
