"""Signals sent from outside to a real process, and systemd's notify datagrams on a real socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.service import Signals, Systemd

LOOP = """
import sys
from monitor.service.signals import Signals
with Signals() as signals:
    print("up", flush=True)
    while not signals.wait(0.05):
        if signals.take_reload():
            print("reload", flush=True)
    print("draining", flush=True)
    sys.stdin.readline()
    print("drained", flush=True)
"""


@pytest.fixture
def loop() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(loop: subprocess.Popen[str], number: signal.Signals) -> None:
    assert loop.stdout is not None
    loop.send_signal(number)
    assert loop.stdout.readline() == "draining\n"
    out, _ = loop.communicate("go\n", timeout=240)
    assert (out, loop.returncode) == ("drained\n", 0)


def test_the_second_signal_leaves_at_once(loop: subprocess.Popen[str]) -> None:
    assert loop.stdout is not None
    loop.send_signal(signal.SIGTERM)
    assert loop.stdout.readline() == "draining\n"
    loop.send_signal(signal.SIGTERM)
    assert loop.wait(timeout=240) == 128 + signal.SIGTERM
    assert loop.stdout.read() == ""


def test_hangup_reloads_and_goes_on(loop: subprocess.Popen[str]) -> None:
    assert loop.stdout is not None
    for _ in range(2):
        loop.send_signal(signal.SIGHUP)
        assert loop.stdout.readline() == "reload\n"
    assert loop.poll() is None


def test_handlers_come_back_and_stop_can_be_asked_for_inside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert signal.getsignal(signal.SIGTERM) != before
        assert not signals.stopping
        assert not signals.wait(0)
        assert not signals.take_reload()
        signals.stop()
        assert signals.stopping
        assert signals.wait(10)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@abusemon-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if name.startswith("@") else name)
        sock.settimeout(10)
        yield name, sock


def test_systemd_is_told_each_state(manager: tuple[str, socket.socket]) -> None:
    name, sock = manager
    systemd = Systemd({"NOTIFY_SOCKET": name})
    systemd.ready()
    assert sock.recv(1_000) == b"READY=1"
    systemd.reloading()
    assert sock.recv(1_000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    systemd.status("lag 5\nREADY=1")
    assert sock.recv(1_000) == b"STATUS=lag 5\\nREADY=1"
    systemd.stopping()
    assert sock.recv(1_000) == b"STOPPING=1"
    systemd.watchdog()
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(1_000)


def test_the_watchdog_is_fed_at_half_its_time(manager: tuple[str, socket.socket]) -> None:
    name, sock = manager
    now = [0.0]
    env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}
    systemd = Systemd(env, clock=lambda: now[0])
    for step in range(31):
        now[0] = float(step)
        systemd.watchdog()
    sock.setblocking(False)
    fed = []
    while True:
        try:
            fed.append(sock.recv(1_000))
        except BlockingIOError:
            break
    assert fed == [b"WATCHDOG=1"] * 4, "at 0, 10, 20 and 30 s"


def test_a_watchdog_of_another_process_is_not_ours(manager: tuple[str, socket.socket]) -> None:
    name, sock = manager
    Systemd({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}).watchdog()
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(1_000)


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    Systemd({}).ready()
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
