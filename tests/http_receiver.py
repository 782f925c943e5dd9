"""A real HTTP server for webhook tests: keeps what it got and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Got(NamedTuple):
    """One request: path, headers by lower-case name, body, and the status it was answered with."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int


class Receiver:
    """``answer(n)`` gives the status (and headers) of the n-th request; bodies are kept in order of arrival."""

    def __init__(self, answer: Callable[[int], tuple[int, dict[str, str]]] = lambda n: (200, {}), port: int = 0):
        self.got: list[Got] = []
        self.answer = answer
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.arrived:
                    status, headers = receiver.answer(len(receiver.got))
                    receiver.got.append(Got(self.path, {k.lower(): v for k, v in self.headers.items()}, body, status))
                    receiver.arrived.notify_all()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?team=abuse"

    def bodies(self) -> list[bytes]:
        """What was answered with 2xx."""
        return [got.body for got in self.got if 200 <= got.status < 300]

    def wait(self, count: int, timeout_s: float = 120.0) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.got) >= count, timeout_s), f"{len(self.got)} of {count}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
