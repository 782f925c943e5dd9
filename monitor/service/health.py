"""Whether the process is alive and whether it is ready, and why not. Probes nothing itself: it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .logs import escape

REASON_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Check:
    """One named condition of readiness. ``reason`` says what to do while it does not hold."""

    ok: bool
    reason: str = ""


class Health:
    """Liveness by a heartbeat of the main loop; readiness by named checks, all of which must hold.

    The names are given at the start and each begins as not ready, "starting": a check that nobody ever set can't be
    forgotten. ``on_change`` is called with the readiness whenever it changes (a gauge, a log line). A reason is shown
    to whoever reaches the port: it must hold no text of a request and no secret.
    """

    def __init__(
        self,
        checks: Iterable[str],
        stall_s: float = 60.0,
        on_change: Callable[[bool], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = {name: Check(False, "starting") for name in checks}
        self._stall_s = stall_s
        self._on_change = on_change
        self._clock = clock
        self._beat = clock()
        self._lock = threading.Lock()

    def beat(self) -> None:
        """The main loop went round."""
        self._beat = self._clock()

    def set(self, name: str, ok: bool, reason: str = "") -> None:
        """Set one check. Raises KeyError for a name that was not given at the start."""
        with self._lock:
            before = self._ready()
            if name not in self._checks:
                raise KeyError(name)
            self._checks[name] = Check(ok, escape(reason)[:REASON_LENGTH])
            after = self._ready()
        if before != after and self._on_change is not None:
            self._on_change(after)

    def _ready(self) -> bool:
        return all(check.ok for check in self._checks.values())

    @property
    def ready(self) -> bool:
        """Whether every check holds."""
        with self._lock:
            return self._ready()

    @property
    def silent_s(self) -> float:
        """Seconds since the main loop last went round."""
        return self._clock() - self._beat

    @property
    def alive(self) -> bool:
        """Whether the main loop went round within ``stall_s``."""
        return self.silent_s <= self._stall_s

    def checks(self) -> dict[str, Check]:
        """The checks as they are now, in the order of the start."""
        with self._lock:
            return dict(self._checks)
