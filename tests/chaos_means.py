"""Means to do harm: a disk that fills up, a Redis that keeps what it answered for, a line that is slow."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import servers

from monitor.source.embedded import HOST, free_ports


class DurableRedis(servers.RedisServer):
    """Redis that has on disk what it answered for."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--appendonly", "yes", "--appendfsync", "always"]


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A small file system of its own in memory; needs root."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


@contextlib.contextmanager
def slowed(to: int | list[int]) -> Iterator[tuple[int, list[float]]]:
    """A port that leads to another, and the delay of what comes back, in seconds, which may be changed. New connections
    lead to the first of ``to``, which may be changed as well."""
    leads = [to] if isinstance(to, int) else to
    port, delay = free_ports(1)[0], [0.0]
    open_sockets: list[socket.socket] = []

    def pump(a: socket.socket, b: socket.socket, back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                if back and delay[0]:
                    time.sleep(delay[0])
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            try:
                there = socket.create_connection((HOST, leads[0]))
            except OSError:  # nobody is there for now
                here.close()
                continue
            open_sockets.extend((here, there))
            threading.Thread(target=pump, args=(here, there, False), daemon=True).start()
            threading.Thread(target=pump, args=(there, here, True), daemon=True).start()

    with socket.create_server((HOST, port)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield port, delay
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for s in open_sockets:
                s.close()
