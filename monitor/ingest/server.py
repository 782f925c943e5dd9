"""``POST /v1/ingest/{format}``: a bearer token, limits, and an answer that is only given when the rows are safe.

202 accepted (with counts), 400 unreadable, 401 no token or another, 404 no such format, 411 no length, 413 too long,
415 a coding that is not known, 429 too many at a time, 503 the target cannot take it: the last two say ``Retry-After``.
Nothing of a request is echoed or logged. It speaks HTTP: what leaves the host belongs behind a proxy with TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

import zstandard

from monitor.errors import BadInput, DependencyDown, Problem, SinkBusy
from monitor.ingest.intake import Intake, Receipt
from monitor.service.bounded import BoundedServer, listen
from monitor.settings import IngestSettings
from monitor.telemetry import Telemetry

DEADLINE_S = 60.0
"""Longest life of a connection: a body at 300 kB/s fits."""
_READ_S = 10.0
_LINE = 4_096
_CHUNK = 1 << 16
_LINGER_S, _LINGER_BYTES = 1.0, 1 << 22
_PATH = re.compile(r"^/v1/ingest/([a-z0-9_-]{1,64})/?$")

log = logging.getLogger("monitor.ingest")


class IngestServer:
    """Listens on threads of its own between :meth:`start` and :meth:`stop`. ``clock`` gives epoch seconds."""

    def __init__(
        self,
        settings: IngestSettings,
        intake: Intake,
        telemetry: Telemetry,
        *,
        max_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ):
        if settings.token is None:
            message = "is needed: a file with a token, e.g. from `openssl rand -hex 32`"
            raise BadInput([Problem("settings", 0, message, "ingest.token_file")])
        self._settings = settings
        self._intake = intake
        self._telemetry = telemetry
        self._clock = clock
        self._server: _Server | None = None
        self.max_bytes = max_bytes or settings.max_body_bytes

    @property
    def url(self) -> str:
        """Where it listens; empty while it does not."""
        return "" if self._server is None else self._server.url

    def start(self) -> None:
        """Listen. BadInput where the address is taken or not ours."""
        s = self._settings
        assert s.token is not None
        make = partial(_Server, (s.host, s.port), s, self._intake, self._telemetry, self._clock, self.max_bytes)
        self._server = listen(make, s.host, s.port, "ingest.port", 0.1)

    def stop(self, drain_s: float = 10.0) -> None:
        """Take no more; bodies that are being worked on get their answer, for at most ``drain_s``."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.drain(drain_s)


class _Server(BoundedServer):
    log = log

    def __init__(
        self, address: tuple[str, int], settings: IngestSettings, intake: Intake, telemetry: Telemetry,
        clock: Callable[[], float], max_bytes: int,
    ):  # fmt: skip
        assert settings.token is not None
        self.token = hashlib.sha256(settings.token.get_secret_value().encode()).digest()
        self.settings, self.intake, self.telemetry, self.clock = settings, intake, telemetry, clock
        self.max_bytes = max_bytes
        self.working = threading.BoundedSemaphore(settings.max_requests)
        super().__init__(address, _Handler, settings.max_requests * 2 + 8, DEADLINE_S)


class _Refusal(Exception):
    def __init__(self, status: int, outcome: str, message: str, retry_s: float | None = None):
        super().__init__(message)
        self.status, self.outcome, self.message, self.retry_s = status, outcome, message, retry_s


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _READ_S
    server_version = "abusemon"
    sys_version = ""

    def do_POST(self) -> None:
        """Take a body over."""
        count = self.server.telemetry.ingest
        try:
            receipt = self._take()
        except _Refusal as no:
            count.labels(no.outcome).inc()
            headers = {"Retry-After": str(max(1, round(no.retry_s)))} if no.retry_s is not None else {}
            if no.status == 401:
                headers["WWW-Authenticate"] = "Bearer"
            self._answer(no.status, {"error": no.message}, headers)
            self._linger()
            return
        events = self.server.telemetry.ingest_events
        for outcome in ("accepted", "rejected", "ignored"):
            events.labels(outcome).inc(getattr(receipt, outcome))
        for reason, number in receipt.rejects.items():
            self.server.telemetry.rejects.labels(reason).inc(number)
        count.labels("unreadable" if receipt.unreadable else "accepted").inc()
        said: dict[str, Any] = {"accepted": receipt.accepted, "rejected": receipt.rejected, "ignored": receipt.ignored}
        if receipt.rejects:
            said["reasons"] = dict(sorted(receipt.rejects.items()))
        self._answer(400 if receipt.unreadable else 202, said, {})

    def do_GET(self) -> None:
        """Say what there is."""
        self._answer(405, {"error": "POST /v1/ingest/{format}"}, {"Allow": "POST"})

    do_HEAD = do_GET  # noqa: N815 - the name that the standard library looks up

    def _take(self) -> Receipt:
        if len(self.requestline) > _LINE:
            raise _Refusal(414, "bad_request", "the request line is too long")
        given = self.headers.get("Authorization", "")
        scheme, _, token = given.partition(" ")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        # Digests of equal length, compared in constant time: neither length nor prefix of the token shows.
        if not hmac.compare_digest(digest, self.server.token) or scheme.lower() != "bearer":
            raise _Refusal(401, "unauthorised", "give the token: Authorization: Bearer ...")
        path = _PATH.match(self.path.partition("?")[0])
        if path is None or path[1] not in self.server.intake.names:
            names = ", ".join(self.server.intake.names)
            raise _Refusal(404, "bad_request", f"POST /v1/ingest/{{format}}, with one of {names}")
        if not self.server.working.acquire(blocking=False):
            raise _Refusal(429, "busy", "too many bodies at a time: try again", 1.0)
        try:
            body = self._body()
            return self.server.intake.take(path[1], body, round(self.server.clock() * 1000))
        except (SinkBusy, DependencyDown) as busy:
            log.warning("a body was not taken: %s", busy)
            raise _Refusal(
                503, "unavailable", "cannot be stored now: try again", getattr(busy, "retry_after_s", 5.0)
            ) from None
        finally:
            self.server.working.release()

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal() or len(length) > 12:
            raise _Refusal(411, "bad_request", "give Content-Length: chunked bodies are not read")
        if int(length) > self.server.max_bytes:
            raise _Refusal(413, "oversize", f"longer than {self.server.max_bytes} bytes: send smaller batches")
        raw = self.rfile.read(int(length))
        if len(raw) < int(length):
            raise _Refusal(400, "bad_request", "the body ended early")
        coding = self.headers.get("Content-Encoding", "identity").strip().lower()
        try:
            return inflate(raw, coding, self.server.max_bytes)
        except OverflowError:
            message = f"longer than {self.server.max_bytes} bytes when decompressed: send smaller batches"
            raise _Refusal(413, "oversize", message) from None
        except LookupError:
            raise _Refusal(415, "bad_request", "Content-Encoding: gzip, deflate, zstd or none") from None
        except ValueError:
            raise _Refusal(400, "bad_request", "the body is not what its Content-Encoding says") from None

    def _linger(self) -> None:
        """Read on for a little: closing on a client that still sends would reset the connection, answer and all."""
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_S)
            left = _LINGER_BYTES
            while left > 0 and (part := self.connection.recv(min(left, _CHUNK))):
                left -= len(part)
        except OSError:
            return

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        data = json.dumps(body).encode() + b"\n"
        kind = "application/json"
        if self.headers is not None and "protobuf" in self.headers.get("Content-Type", "") and status < 300:
            data, kind = b"", "application/x-protobuf"  # an OTLP exporter wants an ExportTraceServiceResponse: empty
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The status alone: the standard library's page quotes the request."""
        self.close_connection = True
        if self.request_version == "HTTP/0.9":
            return
        self.headers = getattr(self, "headers", None)  # type: ignore[assignment]  # not read yet where the line was bad
        self._answer(code, {"error": str(code)}, {})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a path is the client's text."""


def inflate(raw: bytes, coding: str, max_bytes: int) -> bytes:
    """A body without its content coding. OverflowError over ``max_bytes``, LookupError for an unknown coding,
    ValueError for a corrupt body."""
    if coding in ("", "identity"):
        return raw
    try:
        if coding in ("gzip", "x-gzip", "deflate"):
            made = zlib.decompressobj(31 if "gzip" in coding else 15)
            out = made.decompress(raw, max_bytes + 1)
            whole = made.eof
        elif coding == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(raw) as reader:
                parts = bytearray()
                while len(parts) <= max_bytes and (part := reader.read(_CHUNK)):
                    parts += part
            out, whole = bytes(parts), True
        else:
            raise LookupError(coding)
    except (zlib.error, zstandard.ZstdError) as error:
        raise ValueError("corrupt") from error
    if len(out) > max_bytes:
        raise OverflowError
    if not whole:
        raise ValueError("cut off")
    return out
