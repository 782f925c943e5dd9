"""``monitor doctor``: tries everything that a run needs and says what to fix. Imports no client library.

A probe of Kafka, Redis, the model or the GPU belongs to the package that holds that library and is handed in;
this module has those that need none, runs them all, and renders what they found.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import typer

from .. import __version__
from ..errors import BadInput, DependencyDown, MonitorError
from ..settings import Settings, load_settings
from .config import ConfigOption, JsonOption

Status = Literal["ok", "warning", "failed", "unreachable"]
_LOOK: dict[Status, tuple[str, str]] = {
    "ok": ("ok", typer.colors.GREEN),
    "warning": ("warning", typer.colors.YELLOW),
    "failed": ("failed", typer.colors.RED),
    "unreachable": ("no answer", typer.colors.RED),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found. ``remedy`` says what to do, and is given with everything but ``ok``.

    ``failed``: there, but not as it must be (exit 1); ``unreachable``: a server that does not answer (exit 3).
    """

    status: Status
    detail: str
    remedy: str = ""
    name: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to try. ``run`` returns a :class:`Finding`, or raises :class:`MonitorError` or ``OSError``.

    ``DependencyDown`` and ``OSError`` count as unreachable, every other ``MonitorError`` as failed.
    """

    name: str
    run: Callable[[], Finding]
    timeout_s: float = 15.0


def run_probes(probes: Sequence[Probe]) -> list[Finding]:
    """Run them one after another, each for at most its time."""
    return [_run(probe) for probe in probes]


def exit_code(findings: Sequence[Finding]) -> int:
    """3 if a server did not answer, else 1 if anything failed, else 0: a warning is no failure."""
    states = {finding.status for finding in findings}
    return 3 if "unreachable" in states else 1 if "failed" in states else 0


def _run(probe: Probe) -> Finding:
    box: list[Finding | BaseException] = []

    def work() -> None:
        try:
            box.append(probe.run())
        except (DependencyDown, OSError) as error:
            box.append(Finding("unreachable", str(error) or type(error).__name__, "check the address and the network"))
        except MonitorError as error:
            box.append(Finding("failed", str(error), "see above"))
        except BaseException as error:  # a defect of the probe: raised again on the caller's thread
            box.append(error)

    begin = time.perf_counter()
    thread = threading.Thread(target=work, name=f"probe-{probe.name}", daemon=True)
    thread.start()
    thread.join(probe.timeout_s)
    seconds = round(time.perf_counter() - begin, 3)
    if not box:
        late = f"no result within {probe.timeout_s:g} s"
        return Finding("unreachable", late, "check the address and the network", probe.name, seconds)
    result = box[0]
    if isinstance(result, BaseException):
        raise result
    return replace(result, name=probe.name, seconds=seconds)


def render(findings: Sequence[Finding], as_json: bool) -> None:
    """Write the findings to stdout."""
    if as_json:
        body = {"exit_code": exit_code(findings), "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(body, indent=2, ensure_ascii=False))
        return
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        word, colour = _LOOK[finding.status]
        typer.echo(f"{typer.style(f'{word:<9}', fg=colour)}  {finding.name:<{width}}  {finding.detail}")
        if finding.remedy and finding.status != "ok":
            typer.echo(f"{'':<9}  {'':<{width}}  to do: {finding.remedy}")


def doctor_command(probes_for: Callable[[Settings], Iterable[Probe]]) -> Callable[..., None]:
    """The command, for ``app.command("doctor")``. ``probes_for`` gives the probes of kafka, redis, model and GPU."""

    def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Try every connection, directory and model that a run needs, and say what to fix.

        Exit 0: all well (warnings allowed); 1: something is not as it must be; 2: unusable settings; 3: no answer.
        """
        try:
            settings = load_settings(config)
        except BadInput as error:
            for problem in error.problems:
                typer.echo(str(problem), err=True)
            raise typer.Exit(2) from None
        findings = run_probes([*local_probes(settings), *probes_for(settings)])
        render(findings, as_json)
        raise typer.Exit(exit_code(findings))

    return doctor


def local_probes(settings: Settings) -> Iterator[Probe]:
    """What can be tried without a client library."""
    yield Probe("packages", _packages)
    yield Probe("settings", lambda: _settings(settings))
    if settings.checkpoint.store == "directory":
        yield Probe("checkpoints", lambda: _directory(settings.checkpoint.path, "checkpoint.path"))
    if settings.source.read == "spool":
        yield Probe("spool", lambda: _directory(settings.ingest.spool, "ingest.spool"))
    if (archive := settings.archive.path) is not None:
        yield Probe("archive", lambda: _directory(archive, "archive.path"))
    if settings.http.enabled:
        yield Probe("http", lambda: _port(settings.http.host, settings.http.port, "http.port"))
    if settings.ingest.enabled:
        yield Probe("ingest", lambda: _port(settings.ingest.host, settings.ingest.port, "ingest.port"))


def _packages() -> Finding:
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(both) == 2:
        detail = "onnxruntime and onnxruntime-gpu are both installed: they overwrite each other's files"
        return Finding("failed", detail, "pip uninstall both, then install this project again")
    if util.find_spec("crc32c") is None:
        detail = "crc32c is missing: Kafka is read 12 times slower (5,900 records a second, not 72,000)"
        return Finding("warning", detail, "pip install crc32c")
    names = ("kafka-python", "polars", "river", "redis", *both)
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    return Finding("ok", f"monitor {__version__}, Python {platform.python_version()}, {versions}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _settings(settings: Settings) -> Finding:
    missing = list(settings.missing_for_run())
    if missing:
        return Finding("failed", "; ".join(f"{f} {m}" for f, m in missing), "see `monitor config check`")
    return Finding("ok", f"hash {settings.hash}")


def _directory(path: Path, setting: str) -> Finding:
    """Make, flush, rename and remove a file, as a checkpoint does."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-", delete=False) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        moved = Path(f"{file.name}.moved")
        os.replace(file.name, moved)
        moved.unlink()
    except OSError as error:
        detail = f"{path} can't be written: {error.strerror or error}"
        return Finding("failed", detail, f"give this user the directory, or set {setting} to another")
    free = os.statvfs(path)
    gigabytes = free.f_bavail * free.f_frsize / 1e9
    if gigabytes < 1:
        return Finding("warning", f"{path} has {gigabytes:.2f} GB left", "make room: state is about 4 KB an account")
    return Finding("ok", f"{path} can be written, {gigabytes:.0f} GB free")


def _port(host: str, port: int, setting: str) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
    except OSError as error:
        detail = f"can't listen on {host}:{port}: {error.strerror or error}"
        return Finding("warning", detail, f"the monitor may be running already; else set {setting}")
    return Finding("ok", f"{host}:{port} is free")


def _connections(settings: Settings) -> Iterator[Probe]:
    from .probes import connections

    return connections(settings)


doctor = doctor_command(_connections)
"""``monitor doctor`` itself."""
