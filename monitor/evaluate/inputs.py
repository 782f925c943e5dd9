"""What an evaluation reads: alerts, truth, and of the log only who called when and how much.

Lines that are no such object are counted, not fatal: the log is the user's. Knows nothing of scoring.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import zstandard

from monitor.errors import BadInput, NothingReadable, Problem

DAY = 86_400.0


class Truth(msgspec.Struct, frozen=True):
    """A line of contract 4."""

    account_id: str
    actor: str
    scenario: str = ""
    campaign: str | None = None
    also: list[str] = []
    first_ts: float = 0.0
    last_ts: float = float("inf")

    @property
    def abusive(self) -> bool:
        """Whether alerting on the account is right."""
        return self.actor != "benign"


class Revision(msgspec.Struct, frozen=True):
    """What scoring needs of a revision of an alert (contract 2)."""

    alert_id: str
    kind: str
    severity: str
    revised_at: float
    revision: int = 1
    state: str = "open"
    mode: str = "alert"
    hypothesis: str = "unknown"
    hypotheses: dict[str, float] = {}
    subject: str = ""
    accounts: list[str] = []
    members: dict[str, Any] = {}
    raised_at: float | None = None
    merged_into: str | None = None
    score: float | None = None
    expected_false_per_week: float | None = None


class _Request(msgspec.Struct):
    account_id: str
    ts: float | str
    input_tokens: float
    output_tokens: float
    completed_at: float | str | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """Requests by account: rows sorted by (account, event time); ``start[i]:start[i+1]`` are account ``i``'s."""

    accounts: list[str]
    start: npt.NDArray[np.int64]
    at: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    account_days: npt.NDArray[np.int64]
    unreadable: int = 0
    weight: npt.NDArray[np.int64] | None = None
    """Requests that each row stands for; None: a row is a request."""

    @property
    def days(self) -> float:
        """Length of the log in days, at least a minute's."""
        return max(float(self.at.max() - self.at.min()) / DAY, 60 / DAY) if len(self.at) else 60 / DAY

    @staticmethod
    def of(accounts: Sequence[str], at: npt.ArrayLike, tokens: npt.ArrayLike, unreadable: int = 0) -> Ledger:
        """From columns of equal length: account, event time (epoch seconds), tokens in and out together."""
        frame = pl.DataFrame({"a": list(accounts), "t": np.asarray(at, np.float64), "k": np.asarray(tokens, np.int64)})
        frame = frame.sort("a", "t")
        runs = frame.group_by("a", maintain_order=True).agg(
            pl.len().alias("n"), (pl.col("t") // DAY).n_unique().alias("days")
        )
        start = np.concatenate([[0], np.cumsum(runs["n"].to_numpy())]).astype(np.int64)
        return Ledger(runs["a"].to_list(), start, frame["t"].to_numpy(), frame["k"].to_numpy(),
                      runs["days"].to_numpy().astype(np.int64), unreadable)  # fmt: skip

    @staticmethod
    def of_days(accounts: list[str], index: npt.ArrayLike, at: npt.ArrayLike, requests: npt.ArrayLike,
                tokens: npt.ArrayLike) -> Ledger:  # fmt: skip
        """From account-days, each once: position of its account in ``accounts``, a time within the day, sums of it."""
        frame = pl.DataFrame({"i": np.asarray(index, np.int64), "t": np.asarray(at, np.float64),
                              "n": np.asarray(requests, np.int64), "k": np.asarray(tokens, np.int64)})  # fmt: skip
        frame = frame.sort("i", "t")
        days = np.bincount(frame["i"].to_numpy(), minlength=len(accounts))
        present = np.flatnonzero(days)
        start = np.concatenate([[0], np.cumsum(days[present])]).astype(np.int64)
        return Ledger([accounts[i] for i in present.tolist()], start, frame["t"].to_numpy(), frame["k"].to_numpy(),
                      days[present].astype(np.int64), 0, frame["n"].to_numpy())  # fmt: skip


def _open(path: Path) -> IO[bytes]:
    try:
        raw = path.open("rb")
    except OSError as e:
        raise BadInput([Problem(str(path), 0, f"can't be read: {e.strerror}")]) from e
    if path.suffix == ".gz":
        return gzip.open(raw)  # type: ignore[return-value]  # a GzipFile is a binary stream
    if path.suffix == ".zst":
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw))
    return raw


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def read_truth(path: str | Path) -> list[Truth]:
    """Truth lines. Raises ``BadInput`` with the line of each one that is not contract 4."""
    return _typed(Path(path), Truth)


def read_alerts(path: str | Path) -> list[Revision]:
    """Alert revisions, in file order. Raises ``BadInput`` with the line of each one that is not contract 2."""
    return _typed(Path(path), Revision)


_Line = TypeVar("_Line")


def _typed(path: Path, kind: type[_Line]) -> list[_Line]:
    decoder, out, problems = msgspec.json.Decoder(kind), [], []
    for number, line in _lines(path):
        try:
            out.append(decoder.decode(line))
        except msgspec.DecodeError as e:
            # msgspec's text names the field and the type, never the value
            problems.append(Problem(str(path), number, str(e)))
    if problems:
        raise BadInput(problems[:50])
    return out


def _epoch(value: float | str) -> float:
    return value if not isinstance(value, str) else datetime.fromisoformat(value).timestamp()


def _parquet(path: Path) -> pl.DataFrame:
    try:
        known = pl.read_parquet_schema(path)
        event = pl.coalesce([c for c in ("completed_at", "ts") if c in known]).cast(pl.Float64)
        both = pl.col("input_tokens") + pl.col("output_tokens")
        return pl.scan_parquet(path).select("account_id", event.alias("at"), both.alias("tokens")).collect()
    except (OSError, pl.exceptions.PolarsError) as e:
        message = f"is no request log in Parquet ({type(e).__name__}); account_id, ts and tokens are needed"
        raise BadInput([Problem(str(path), 0, message)]) from None


def read_log(paths: Sequence[str | Path]) -> Ledger:
    """The ledger of request logs (NDJSON, .gz, .zst, Parquet). Raises ``NothingReadable``."""
    accounts: list[str] = []
    at: list[float] = []
    tokens: list[int] = []
    bad = 0
    decoder = msgspec.json.Decoder(_Request)
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            frame = _parquet(path)
            accounts += frame["account_id"].to_list()
            at += frame["at"].to_list()
            tokens += frame["tokens"].to_list()
            continue
        for _, line in _lines(path):
            try:
                r = decoder.decode(line)
                event = _epoch(r.completed_at if r.completed_at is not None else r.ts)
            except (msgspec.DecodeError, ValueError):
                bad += 1
                continue
            accounts.append(r.account_id)
            at.append(event)
            tokens.append(int(r.input_tokens + r.output_tokens))
    if not accounts:
        raise NothingReadable("no line of the log is a request of contract 1 (account_id, ts and tokens are needed)")
    return Ledger.of(accounts, at, tokens, bad)
