"""SIGTERM and SIGINT ask for a drain, and the second one leaves at once; SIGHUP asks for a reload."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Signals:
    """A context in which the process's signals become flags that the main loop looks at.

    The handlers only set flags: what a drain or a reload is, the loop decides where it stands between two batches.
    Enter it on the main thread (Python's rule for signal handlers); the handlers before it come back at its end.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_stop)
        if hasattr(signal, "SIGHUP"):
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_reload)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop.is_set():
            os._exit(128 + number)  # the drain takes too long for whoever asked: leave without it, uncommitted
        self._stop.set()

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload.set()

    @property
    def stopping(self) -> bool:
        """Whether a drain was asked for."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask for a drain from inside (an end of input, a fatal error elsewhere)."""
        self._stop.set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep at most so long, less if a drain is asked for; whether it is."""
        return self._stop.wait(timeout_s)

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last call."""
        asked = self._reload.is_set()
        self._reload.clear()
        return asked
