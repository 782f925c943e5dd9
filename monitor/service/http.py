"""A small HTTP server for ``/healthz``, ``/readyz`` and ``/metrics``: reading only, on loopback by default.

It has no authentication. It is meant for a probe and a scraper, and holds against worse: at most :data:`CONNECTIONS`
at a time (more are closed at once), each for at most :data:`DEADLINE_S`, no request body is read, nothing of a request
is echoed or logged.
"""

from __future__ import annotations

import json
import logging
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, ClassVar, Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ..settings import HttpSettings
from .bounded import BoundedServer, listen
from .health import Health

CONNECTIONS = 16
DEADLINE_S = 10.0
_READ_S = 5.0
_LINE = 4_096

log = logging.getLogger("monitor.service.http")


class HttpService:
    """Serves on a thread of its own between :meth:`start` and :meth:`stop`, or as a context."""

    def __init__(self, settings: HttpSettings, health: Health, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._health = health
        self._registry = registry
        self._server: _Server | None = None
        self.last_url = ""
        """Where it listens or, after :meth:`stop`, did; empty before the first start."""

    @property
    def url(self) -> str:
        """Where it listens, e.g. ``http://127.0.0.1:9464``; empty while it does not."""
        return "" if self._server is None else self.last_url

    def start(self) -> Self:
        """Listen. BadInput where the address is taken or not ours."""
        if not self._settings.enabled:
            return self
        host, port = self._settings.host, self._settings.port
        self._server = listen(lambda: _Server((host, port), self._health, self._registry), host, port, "http.port", 0.2)
        self.last_url = self._server.url
        return self

    def stop(self) -> None:
        """Stop listening; requests in progress end by their deadline."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


class _Server(BoundedServer):
    log = log

    def __init__(self, address: tuple[str, int], health: Health, registry: CollectorRegistry) -> None:
        self.health = health
        self.registry = registry
        super().__init__(address, _Handler, CONNECTIONS, DEADLINE_S)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _READ_S
    server_version = "abusemon"
    sys_version = ""
    _ROUTES: ClassVar[tuple[str, ...]] = ("/healthz", "/readyz", "/metrics")

    def do_GET(self) -> None:
        """Answer one of the three."""
        if len(self.requestline) > _LINE:
            self._answer(414, "text/plain; charset=utf-8", b"the request line is too long\n")
            return
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._health()
        elif path == "/readyz":
            self._ready()
        elif path == "/metrics":
            encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, content_type, encoder(self.server.registry))
        else:
            self._answer(404, "text/plain; charset=utf-8", f"there are {', '.join(self._ROUTES)}\n".encode())

    do_HEAD = do_GET  # noqa: N815 - the name that the standard library looks up

    def _health(self) -> None:
        health = self.server.health
        body = {"alive": health.alive, "silent_s": round(health.silent_s, 3)}
        self._json(200 if health.alive else 503, body)

    def _ready(self) -> None:
        checks = self.server.health.checks()
        ready = all(check.ok for check in checks.values())
        shown = {name: {"ok": check.ok, "reason": check.reason} for name, check in checks.items()}
        self._json(200 if ready else 503, {"ready": ready, "checks": shown})

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(body).encode() + b"\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The status alone: the standard library's page quotes the request."""
        self.close_connection = True
        if self.request_version == "HTTP/0.9":
            return
        self._answer(code, "text/plain; charset=utf-8", f"{code}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a path is the client's text."""
