"""``monitor run`` and ``monitor ingest`` as processes with settings of a test, that can be posted to and killed."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TOKEN = "0123456789abcdef0123456789abcdef"
SECRET = "fedcba9876543210fedcba9876543210"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """One life of a process with a settings file; its port for posting and that for metrics."""

    def __init__(self, tmp_path: Path, arguments: Sequence[str], **settings: Any):
        self.port, self.metrics_port = free_port(), free_port()
        tree = {
            "keys": {"ring": [{"id": "k1", "secret": SECRET}]},
            "ingest": {
                "enabled": True, "port": self.port, "token": TOKEN, "to": "spool", "spool": str(tmp_path / "spool"),
                "partitions": 3,
            },
            "source": {"read": "spool"}, "http": {"port": self.metrics_port}, "log": {"format": "text"},
            "alerts": {"sinks": ["file"], "file": str(tmp_path / "alerts.ndjson")},
            "checkpoint": {"path": str(tmp_path / "state"), "every_s": 0.5},
        } | settings  # fmt: skip
        waits_for = self.port if tree["ingest"]["enabled"] or "run" not in arguments else self.metrics_port
        path = tmp_path / "settings.yaml"
        path.write_text(json.dumps(tree))
        self.log = (tmp_path / "log.txt").open("ab")
        command = [sys.executable, *(str(path) if a == "SETTINGS" else a for a in arguments)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=Path(__file__).parent.parent)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", waits_for), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (tmp_path / "log.txt").read_text()
                time.sleep(0.05)
        raise AssertionError((tmp_path / "log.txt").read_text())

    def post(self, body: bytes, format: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", f"/v1/ingest/{format}", body, {"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rpartition(" ")[2])
        return 0.0

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.log.close()
        return self.process.wait(240)


def wait(condition: Callable[[], bool], process: Process, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it does not get there"
        time.sleep(0.1)
