"""Logs on stderr, one JSON object or one line of text a message. Writes no text of a request and no secret.

What can go wrong by itself is closed off here: an exception is written as its type and the places it went through,
without its message, which may quote the input (pydantic's and Polars' do), unless it is our own; control, bidirectional
and line-separator characters are escaped, so that nothing can forge a line or steer a terminal; a message repeated from
one place is written a few times in a window and then counted.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ..errors import MonitorError
from ..settings import LogSettings

BURST = 10
"""Messages of one place that are written in a window before the rest is counted."""
_PLACES = 1_024
_LENGTH = 2_000
_ROOT = Path(__file__).resolve().parent.parent.parent
_LIBRARIES = ("kafka", "redis", "urllib3", "asyncio", "numba")
Excinfo = tuple[type[BaseException], BaseException, TracebackType | None]


def fields(**values: Any) -> dict[str, Any]:
    """Values beside a message: ``logger.info("partition taken up", extra=fields(partition=3))``.

    Strings, numbers, booleans, None and lists of them; of anything else only the type is written.
    """
    return {"fields": values}


def escape(text: str) -> str:
    """The text with all that is not printable (controls, bidirectional marks, separators) as ``\\x..``/``\\u....``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def describe(exc: BaseException, tb: TracebackType | None) -> str:
    """Type and places of an exception and its causes, newest first; the message only where it is our own."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen and len(parts) < 5:
        seen.add(id(current))
        frames = traceback.extract_tb(tb if current is exc else current.__traceback__)[-8:]
        places = " > ".join(f"{_place(frame.filename)}:{frame.lineno}({frame.name})" for frame in frames)
        said = f": {current}" if isinstance(current, MonitorError) else ""
        parts.append(f"{type(current).__qualname__}{said} at {places or 'no frame'}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return " | caused by ".join(parts)


def _place(filename: str) -> str:
    path = Path(filename)
    try:
        return str(path.resolve().relative_to(_ROOT))
    except ValueError:
        return "/".join(path.parts[-2:])


def _value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return escape(value)[:_LENGTH]
    if isinstance(value, list | tuple | set | frozenset) and len(value) <= 100:
        return [_value(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return f"<{type(value).__name__}>"


def _content(record: logging.LogRecord) -> dict[str, Any]:
    content: dict[str, Any] = {"event": ""}
    given = getattr(record, "fields", None)
    if isinstance(given, Mapping):
        content.update({str(key): _value(value) for key, value in given.items()})
    content["event"] = escape(record.getMessage())[:_LENGTH]
    repeated = getattr(record, "repeated", 0)
    if repeated:
        content["repeated"] = repeated
    if record.exc_info and record.exc_info[1] is not None:
        content["exception"] = escape(describe(record.exc_info[1], record.exc_info[2]))
    return content


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``ts``, ``level``, ``logger``, ``event``, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """ASCII only: what is not is escaped as JSON does."""
        head = {"ts": _stamp(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**head, **_content(record), **head}, ensure_ascii=True, allow_nan=True, default=str)


class TextFormatter(logging.Formatter):
    """``time LEVEL logger: event key=value``, for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        content = _content(record)
        rest = "".join(f" {escape(key)}={value}" for key, value in content.items() if key != "event")
        return f"{_stamp(record)} {record.levelname:<7} {record.name}: {content['event']}{rest}"


class RepeatFilter(logging.Filter):
    """Lets :data:`BURST` messages of one place through in a window; the next window's first counts the others."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it; sets ``record.repeated``."""
        if self._window_s <= 0:
            return True
        place = (record.pathname, record.lineno, record.levelname)
        now = self._clock()
        with self._lock:
            begin, count = self._places.get(place, (now, 0))
            if now - begin >= self._window_s:
                record.repeated = max(0, count - BURST)
                begin, count = now, 0
            if len(self._places) >= _PLACES and place not in self._places:
                self._places.clear()
            self._places[place] = (begin, count + 1)
        return count < BURST


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> logging.Handler:
    """Send every logger of the process to one handler on stderr, and uncaught exceptions too. Returns the handler.

    Client libraries speak from warnings on: their info lines come by the hundred at each rebalance.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    handler.addFilter(RepeatFilter(settings.repeat_s))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(max(logging.WARNING, root.level))
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    return handler


def _uncaught(kind: type[BaseException], exc: BaseException, tb: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("monitor").critical("stopped by an error that is not handled", exc_info=(kind, exc, tb))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("monitor").critical("a thread was stopped by an error that is not handled", exc_info=info)
