"""`monitor serve` on a thread of the test's own, by real sockets; and one request at a time to it."""

from __future__ import annotations

import asyncio
import http.client
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from monitor.console import Console
from monitor.settings import Settings

TOKEN = "token-of-the-analysts-0123456789abcdef"
GATEWAY = "token-of-the-gateways-0123456789abcdef"


def settings(redis_url: str, **console: Any) -> Settings:
    """Settings for a server on a free port, with both tokens unless told otherwise."""
    return Settings.model_validate(
        {
            "redis": {"url": redis_url, "socket_timeout_s": 3},
            "evidence": {"viewer_url": "https://logs.example/r/{request_id}", "signing_key": "s" * 32},
            "console": {"port": 0, "token": TOKEN, "gateway_token": GATEWAY, **console},
        }
    )


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        return self.body.decode()


class Serving:
    """Serves inside a ``with``; ``session`` is the cookie after :meth:`sign_in`."""

    def __init__(self, given: Settings):
        self.settings = given
        self._loop = asyncio.new_event_loop()
        self.session = ""
        self.url = ""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._console = self._wait(self._make())
        self.url = self._wait(self._console.start())
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._wait(self._console.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _make(self) -> Console:
        return Console(self.settings)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def ask(self, path: str, method: str = "GET", body: bytes | str | None = None, **headers: str) -> Answer:
        """One request; a header's underscores are dashes. The session's cookie goes along."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.session and "Cookie" not in given:
            given["Cookie"] = self.session
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        connection.request(method, path, body=body, headers=given)
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        """A form, as a browser sends it from this site."""
        return self.ask(path, "POST", urlencode(fields), **{
            "Content_Type": "application/x-www-form-urlencoded", "Origin": self.url, "Sec_Fetch_Site": "same-origin",
            **headers})  # fmt: skip

    def sign_in(self, name: str = "Mia", token: str = TOKEN) -> Answer:
        """The form of /login; keeps the session."""
        answer = self.post("/login", {"name": name, "token": token, "after": "/"})
        self.session = answer.headers.get("set-cookie", "").partition(";")[0]
        return answer


def bearer(token: str) -> dict[str, str]:
    """The header of a program."""
    return {"Authorization": f"Bearer {token}"}
