"""Headless Chromium, driven over pipes by its DevTools protocol: no driver and no library is needed.

Raises :class:`servers.Unavailable` where Chromium is not installed (Debian's package ``chromium``).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import servers

WAIT_S = 180.0


class Chromium:
    """One browser with one page. ``console`` collects what pages complain about, such as a refused policy."""

    def __init__(self, width: int = 1_280, height: int = 900, dark: bool = False):
        self._size = width, height
        self._dark = dark
        self._ids = itertools.count(1)
        self._home = Path(tempfile.mkdtemp(prefix="monitor-chromium-"))
        self._events: list[dict[str, Any]] = []
        self._rest = b""
        self.console: list[str] = []

    def __enter__(self) -> Self:
        program = shutil.which("chromium")
        if program is None:
            raise servers.Unavailable("the console is tested in a browser: apt-get install chromium")
        out, self._write = os.pipe()
        self._read, back = os.pipe()
        # The browser reads on 3 and writes on 4; the shell puts them there, whatever their numbers are here.
        command = [
            "bash", "-c", f'exec "$@" 3<&{out} 4>&{back}', "bash", program, "--headless=new", "--no-sandbox",
            "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage",
            "--remote-debugging-pipe", f"--user-data-dir={self._home}",
            f"--window-size={self._size[0]},{self._size[1]}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            pass_fds=(out, back),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(out)
        os.close(back)
        servers.VERSIONS["Chromium"] = str(self._call("Browser.getVersion")["product"])
        pages = self._call("Target.getTargets")["targetInfos"]
        target = next(p["targetId"] for p in pages if p["type"] == "page")
        self._session: str | None = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        if self._dark:
            self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._write)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        shutil.rmtree(self._home, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to the page."""
        return self._call(method, self._session, **params)

    def goto(self, url: str) -> None:
        """Load an address and wait for it."""
        self._events.clear()
        answer = self.call("Page.navigate", url=url)
        assert not answer.get("errorText"), answer
        self.loaded()

    def loaded(self) -> None:
        """Wait until a page has loaded since the last :meth:`goto`, click or key."""
        end = time.monotonic() + WAIT_S
        while not any(e["method"] == "Page.loadEventFired" for e in self._events):
            self._receive(end)
        self._events.clear()

    def js(self, expression: str) -> Any:
        """The value of an expression; DevTools may run it where the page's own policy lets no script run."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def key(self, name: str, code: int, *, shift: bool = False) -> None:
        """Press and release a key."""
        text = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code,
                      modifiers=8 if shift else 0, **(text if kind == "keyDown" else {}))  # fmt: skip

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6_000), "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method: str, session: str | None = None, /, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + WAIT_S
        while True:
            answer = self._receive(end)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "Chromium has ended"
            self._rest += chunk
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self._events.append(message)
            if message["method"] == "Log.entryAdded":
                self.console.append(str(message["params"]["entry"]["text"]))
        return message
