"""Work that a sink or a store may keep waiting: nothing is read meanwhile, and nothing is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Set
from dataclasses import dataclass

from monitor.errors import DependencyDown, SinkBusy
from monitor.observe import Observer
from monitor.service import Health, Signals, Systemd, fields
from monitor.source.protocol import Source

_LOG = logging.getLogger(__name__)
_KEEP_ALIVE_S = 1.0


@dataclass(slots=True)
class Patience:
    """Does work again until it succeeds. ``held``: the partitions that stay paused when reading goes on.

    After SIGTERM it waits ``drain_s`` seconds more and then raises what it waited for.
    """

    source: Source
    observe: Observer
    health: Health
    signals: Signals
    systemd: Systemd
    drain_s: float
    held: Callable[[], Set[int]]

    def __call__(self, work: Callable[[], None]) -> None:
        """Do ``work``; while it raises SinkBusy or DependencyDown, read nothing and say so."""
        paused = False
        deadline: float | None = None
        while True:
            try:
                work()
                break
            except (SinkBusy, DependencyDown) as busy:
                self.observe.failed(busy)
                if not paused:
                    paused = True
                    self._pause(busy)
                if self.signals.stopping:
                    deadline = deadline or time.monotonic() + self.drain_s
                    if time.monotonic() > deadline:
                        raise
                self.health.beat()
                self.systemd.watchdog()
                self._rest(min(getattr(busy, "retry_after_s", _KEEP_ALIVE_S), _KEEP_ALIVE_S))
        if paused:
            self.source.resume()
            self.source.pause(self.held())
            self.observe.telemetry.paused.set(0)
            self.health.set("sinks", True)

    def _pause(self, busy: Exception) -> None:
        self.source.pause()
        self.observe.telemetry.paused.set(1)
        self.observe.telemetry.pauses.inc()
        self.health.set("sinks", False, str(busy))
        _LOG.warning("reading is paused", extra=fields(reason=str(busy)))

    def _rest(self, seconds: float) -> None:
        """Wait; heartbeats go on by themselves. No poll: it could hand over state that is ahead of its offset.

        After ``max_poll_interval_ms`` the group goes on without us, and the next owner reads the same records again.
        """
        if self.signals.wait(seconds):
            time.sleep(seconds)
