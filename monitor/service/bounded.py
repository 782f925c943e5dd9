"""What both of the standard library's servers here need to hold against strangers: few connections, each for a while.

More than ``connections`` at a time are closed at once, each ends after ``deadline_s``, nothing of a request is echoed
or logged. HTTP without TLS: what leaves the host belongs behind a proxy.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from ..errors import BadInput, Problem

S = TypeVar("S", bound="BoundedServer")


class BoundedServer(ThreadingHTTPServer):
    """A thread for each connection, ``connections`` at most, each cut off after ``deadline_s``."""

    daemon_threads = True
    block_on_close = False
    log: logging.Logger

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], connections: int, deadline_s: float
    ):
        self.request_queue_size = connections
        self._deadline_s = deadline_s
        self._slots = threading.BoundedSemaphore(connections)
        self._busy, self._idle = 0, threading.Condition()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    @property
    def url(self) -> str:
        """Where it listens, e.g. ``http://127.0.0.1:9464``."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def drain(self, seconds: float) -> None:
        """Wait until every connection has its answer, for at most ``seconds``."""
        with self._idle:
            self._idle.wait_for(lambda: not self._busy, seconds)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a connection, or close it at once where there are too many."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._idle:
            self._busy += 1
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._done()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, to its end or its deadline."""
        timer = threading.Timer(self._deadline_s, _cut, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._done()

    def _done(self) -> None:
        self._slots.release()
        with self._idle:
            self._busy -= 1
            self._idle.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""
        self.log.debug("a connection ended early", exc_info=True)


def listen(make: Callable[[], S], host: str, port: int, setting: str, every_s: float) -> S:
    """Make a server and serve on a thread of its own. BadInput, naming ``setting``, where the address is taken."""
    try:
        server = make()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not an address"
        message = f"can't listen on {host}:{port} ({reason}): choose another, or 0 for a free one"
        raise BadInput([Problem("settings", 0, message, setting)]) from None
    name = setting.partition(".")[0]
    threading.Thread(target=server.serve_forever, args=(every_s,), name=name, daemon=True).start()
    return server


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
