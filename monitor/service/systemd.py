"""systemd's notify protocol (sd_notify(3)): one datagram a state to ``$NOTIFY_SOCKET``; silent where there is none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

from .logs import escape


class Systemd:
    """Tells systemd what state the service is in. Without ``NOTIFY_SOCKET`` every method does nothing.

    A datagram that can't be sent is dropped: the service manager then acts by its own timeouts.
    """

    def __init__(self, env: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        env = os.environ if env is None else env
        address = env.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._clock = clock
        self._interval_s = self._watchdog_s(env) / 2
        self._last = float("-inf")

    @staticmethod
    def _watchdog_s(env: Mapping[str, str]) -> float:
        own = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = env.get("WATCHDOG_USEC", "")
        return int(microseconds) / 1e6 if own and microseconds.isdigit() else 0.0

    def ready(self) -> None:
        """The service is up (or up again after a reload)."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload began; :meth:`ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self) -> None:
        """A drain began."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={escape(text)}")

    def watchdog(self) -> None:
        """The main loop went round: call it as often as it does, it sends at half the time that the unit allows."""
        now = self._clock()
        if self._interval_s and now - self._last >= self._interval_s:
            self._last = now
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto(state.encode(), self._address)
        except OSError:
            return
