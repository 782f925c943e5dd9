"""What the commands call: run a simulation into a file or through a producer, truth and context beside it.

Knows no broker: Kafka output goes through a ``send`` callable that the command line hands in, and time on
the wall through a ``sleep`` and a ``now`` that it hands in too.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import zstandard

from monitor.errors import BadInput, Problem

from .scenario import Scenario
from .world import START_TS, Progress, Simulator


class Send(Protocol):
    """A Kafka producer as the simulator needs it; ``timestamp_ms`` is the record's own time (event time)."""

    def __call__(self, key: bytes, value: bytes, timestamp_ms: int) -> object:
        """Hand one record over; may block while the producer's buffer is full."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall's time for pacing: ``now()`` in seconds, ``sleep(seconds)``."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Written:
    """What a run wrote. ``campaigns`` maps each scenario's campaign name to its ``campaign : population``."""

    requests: int
    bytes: int
    accounts: int
    scenario_accounts: int
    first_ts: float
    last_ts: float
    campaigns: dict[str, str]
    requests_by_scenario: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        return asdict(self)


def simulate(
    scenarios: Sequence[str | Scenario],
    out: str | Path,
    *,
    accounts: int = 2000,
    days: float = 3.0,
    seed: int = 1,
    start_ts: float = START_TS,
    heavy_cap: float | None = None,
    context: str | Path | None = None,
    truth: str | Path | None = None,
    prompts: Sequence[str | Path] = (),
    trace: Sequence[str | Path] = (),
    absent_count: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write the log to ``out`` (.ndjson, .gz, .zst or .parquet by its name), context and truth beside it.

    ``context`` and ``truth`` default to ``NAME.context.ndjson`` and ``NAME.truth.ndjson``. Raises ``BadInput``.
    """
    out = Path(out)
    world = build(scenarios, accounts, days, seed, start_ts, heavy_cap=heavy_cap, prompts=prompts, trace=trace,
                  absent_count=absent_count)  # fmt: skip
    stem = out.name.split(".")[0]
    context = Path(context) if context is not None else out.with_name(f"{stem}.context.ndjson")
    truth = Path(truth) if truth is not None else out.with_name(f"{stem}.truth.ndjson")
    written = write_parquet(world, out, progress) if out.suffix == ".parquet" else write_ndjson(world, out, progress)
    write_lines(context, world.context())
    write_lines(truth, world.truth())
    return written


def build(
    scenarios: Sequence[str | Scenario],
    accounts: int,
    days: float,
    seed: int,
    start_ts: float = START_TS,
    *,
    heavy_cap: float | None = None,
    prompts: Sequence[str | Path] = (),
    trace: Sequence[str | Path] = (),
    absent_count: bool = False,
) -> Simulator:
    """A checked :class:`Simulator`. Raises ``BadInput`` with every bad argument and scenario file."""
    problems = [
        Problem("arguments", 0, message, field)
        for field, bad, message in (
            ("accounts", accounts < 10, "at least 10 ordinary accounts are needed"),
            ("days", days <= 0 or days > 3660, "must be over 0 and at most 3660"),
            ("seed", seed < 0, "must be 0 or more"),
        )
        if bad
    ]
    if problems:
        raise BadInput(problems)
    return Simulator(scenarios, accounts, days, seed, start_ts, heavy_cap=heavy_cap, prompts=prompts, trace=trace,
                     absent_count=absent_count)  # fmt: skip


def write_ndjson(world: Simulator, out: Path, progress: Progress | None = None) -> Written:
    """All requests as NDJSON, in order of event time."""
    total, first, last = 0, 0.0, 0.0
    with open_out(out) as file:
        for chunk in world:
            block = chunk.ndjson()
            total += len(block)
            file.write(block)
            first, last = first or float(chunk.event_s[0]), float(chunk.event_s[-1])
            if progress is not None:
                progress(world.share_done(chunk), world.requests)
    return written(world, total, first, last)


def write_parquet(world: Simulator, out: Path, progress: Progress | None = None) -> Written:
    """All requests as Parquet with the columns of contract 1, one row group a chunk."""
    import pyarrow.parquet as pq

    writer, first, last = None, 0.0, 0.0
    try:
        for chunk in world:
            table = chunk.frame.to_arrow()
            writer = writer or pq.ParquetWriter(out, table.schema)
            writer.write_table(table.cast(writer.schema))
            first, last = first or float(chunk.event_s[0]), float(chunk.event_s[-1])
            if progress is not None:
                progress(world.share_done(chunk), world.requests)
    finally:
        if writer is not None:
            writer.close()
    return written(world, out.stat().st_size if out.exists() else 0, first, last)


def produce(
    world: Simulator,
    send: Send,
    clock: Clock | None = None,
    speed: float | None = None,
    progress: Progress | None = None,
) -> Written:
    """Send every request, keyed by account, with its event time as the record's timestamp.

    ``speed`` paces it: that many seconds of event time in one of the wall (None: as fast as it goes).
    """
    begun = clock.now() if clock is not None else 0.0
    total, first, last = 0, 0.0, 0.0
    for chunk in world:
        for key, value, at_ms in chunk.messages():
            first = first or at_ms / 1000
            if clock is not None and speed is not None:
                early = (at_ms / 1000 - first) / speed - (clock.now() - begun)
                if early > 0.02:
                    clock.sleep(early)
            send(key=key, value=value, timestamp_ms=at_ms)
            total += len(value)
        last = float(chunk.event_s[-1])
        if progress is not None:
            progress(world.share_done(chunk), world.requests)
    return written(world, total, first, last)


def written(world: Simulator, size: int, first: float, last: float) -> Written:
    """The summary of a finished run."""
    of = {c.name: int(world.requests_of[c.rows].sum()) for c in world.casts}
    members = sum(len(c.rows) for c in world.casts)
    ratios = {c.name: c.ratio for c in world.casts}
    return Written(world.requests, size, len(world.accounts), members, first, last, ratios, of)


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> int:
    """Objects as NDJSON (context, truth); how many."""
    count = 0
    with open_out(path) as file:
        for line in lines:
            file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            count += 1
    return count


def open_out(path: Path) -> IO[bytes]:
    """A file to write, compressed as its name says. Equal contents give equal files (no time stamp in gzip)."""
    try:
        raw = path.open("wb")
    except OSError as e:
        raise BadInput([Problem(str(path), 0, f"cannot be written: {e.strerror}")]) from e
    if path.suffix == ".gz":
        return io.BufferedWriter(_Gzip(raw))
    if path.suffix == ".zst":
        return zstandard.ZstdCompressor(level=3).stream_writer(raw)
    return raw


class _Gzip(gzip.GzipFile):
    """A gzip stream that closes the file it was given; no name, no time: equal contents, equal files."""

    def __init__(self, raw: IO[bytes]):
        super().__init__(filename="", mode="wb", fileobj=raw, mtime=0)
        self._raw = raw

    def close(self) -> None:
        super().close()
        self._raw.close()
