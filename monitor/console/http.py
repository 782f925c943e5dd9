"""HTTP/1.1 on asyncio, as much of it as gateways and browsers need, and bounds on everything that a client chooses.

Bounded: connections, the head of a request, its body, the time to send either, the time a connection may be idle.
Nothing of a request is logged. One request at a time on a connection; what arrives meanwhile waits in the socket.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

HEAD_BYTES = 16_384
BODY_BYTES = 65_536
CONNECTIONS = 1_024
IDLE_S = 75.0
SEND_S = 10.0
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PHRASE = {s.value: s.phrase for s in HTTPStatus}

log = logging.getLogger("monitor.console.http")


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``parts``: the path's segments, percent-decoded; ``headers``: lower-case names."""

    method: str
    path: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    def form(self) -> dict[str, str]:
        """Fields of a form; the last of a name counts. Raises BadRequest for another kind of body."""
        if self.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            raise BadRequest(415, "send a form")
        try:
            return dict(parse_qsl(self.body.decode(), keep_blank_values=True, max_num_fields=50, errors="strict"))
        except ValueError:
            raise BadRequest(400, "the form can't be read") from None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. ``headers`` are added to those that every answer has."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = field(default=())


class BadRequest(Exception):
    """A request that gets an error and nothing else. ``close``: the rest of the connection makes no sense."""

    def __init__(self, status: int, said: str, *, close: bool = False):
        super().__init__(said)
        self.status = status
        self.close = close


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """Listens and answers by ``handler``; anything that it raises is a 500 without a word about why."""

    def __init__(self, handler: Handler, host: str, port: int):
        self._handler = handler
        self._address = host, port
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, float] = {}
        self._reaper: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen; where, as a URL. Raises OSError."""
        host, port = self._address
        self._server = await asyncio.start_server(self._connected, host.strip("[]"), port, limit=HEAD_BYTES)
        self._reaper = asyncio.create_task(self._reap())
        name, number = self._server.sockets[0].getsockname()[:2]
        return f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        if self._reaper is not None:
            self._reaper.cancel()
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _reap(self) -> None:
        """Close connections whose time is over: one look a second for all, no timer for each request."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for writer in [w for w, until in self._open.items() if until < now]:
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS:
            writer.transport.abort()
            return
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            log.debug("a connection ended early")
        finally:
            self._open.pop(writer, None)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read and answer one request; whether the connection goes on."""
        now = asyncio.get_running_loop().time
        self._open[writer] = now() + IDLE_S
        method, keep = "GET", False
        try:
            try:
                first = await reader.readexactly(1)
            except asyncio.IncompleteReadError:
                return False
            self._open[writer] = now() + SEND_S
            try:
                head = first + await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                raise BadRequest(431, "the head of the request is too long", close=True) from None
            request, length, keep = _read_head(head)
            method = request.method
            if length:
                body = await reader.readexactly(length)
                request = Request(method, request.path, request.parts, request.query, request.headers, body)
            self._open[writer] = now() + IDLE_S
            response = await self._handler(request)
        except BadRequest as error:
            response = Response(error.status, f"{error}\n".encode())
            keep = keep and not error.close
        except asyncio.IncompleteReadError:
            return False
        except Exception:
            log.exception("a request failed")
            response = Response(500, b"it failed here: see the log\n")
        writer.write(_written(response, method == "HEAD", keep))
        if writer.transport.get_write_buffer_size():
            await writer.drain()
        return keep


def _read_head(head: bytes) -> tuple[Request, int, bool]:
    """The request without its body, the body's length, and whether the connection is kept."""
    try:
        line, *rest = head[:-4].decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
    except ValueError:
        raise BadRequest(400, "this is not HTTP", close=True) from None
    if version not in ("HTTP/1.1", "HTTP/1.0") or not _TOKEN.fullmatch(method) or not target.startswith("/"):
        raise BadRequest(400, "this is not HTTP/1.1", close=True)
    headers: dict[str, str] = {}
    for entry in rest:
        name, colon, value = entry.partition(":")
        name = name.lower()
        if not colon or not _TOKEN.fullmatch(name) or (name in headers and name in _ONCE):
            raise BadRequest(400, "a header is malformed or there twice", close=True)
        headers[name] = value.strip(" \t")
    if "transfer-encoding" in headers:
        raise BadRequest(501, "send the body with its Content-Length", close=True)
    size = headers.get("content-length", "0")
    if not (size.isascii() and size.isdigit()):
        raise BadRequest(400, "Content-Length is no number", close=True)
    if int(size) > BODY_BYTES:
        raise BadRequest(413, f"a body has at most {BODY_BYTES} bytes", close=True)
    path, _, query = target.partition("?")
    try:
        parts = tuple(unquote(part, errors="strict") for part in path.strip("/").split("/")) if path != "/" else ()
        pairs = dict(parse_qsl(query, max_num_fields=50, errors="strict")) if query else {}
    except ValueError:
        raise BadRequest(400, "the path is not UTF-8") from None
    asked = headers.get("connection", "").lower()
    keep = asked != "close" and (version == "HTTP/1.1" or asked == "keep-alive")
    return Request(method, path, parts, pairs, headers), int(size), keep


_ONCE = frozenset({"content-length", "host", "authorization", "cookie", "transfer-encoding", "content-type", "origin"})


def _written(response: Response, head: bool, keep: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {_PHRASE.get(response.status, '')}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "X-Content-Type-Options: nosniff",
    ]
    if not keep:
        lines.append("Connection: close")
    if not any(name == "Cache-Control" for name, _ in response.headers):
        lines.append("Cache-Control: no-store")
    lines += [f"{name}: {value}" for name, value in response.headers]
    text = "\r\n".join(lines).encode("latin-1", "replace")
    return text + b"\r\n\r\n" + (b"" if head else response.body)
