"""What the classifier read of each account last, day by day: what a model that comes later is asked about.

A row is the set of vectors (:mod:`monitor.vectors`: quantised numbers, no text, no hash), the features beside it, and
what the model of that day said of them. ``<path>/2026-11-25/r3-002900123-0.parquet`` is a piece of a partition's step,
``r3.parquet`` a day that is complete: each account's last row of it. A piece written again after a restart changes
nothing of that. What is held when a monitor is killed is lost: an account's next reading of the day takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from monitor.pieces import few
from monitor.records import REQUEST_SET

from .rows import SCORES, account, opinions, write

LAYOUT = "request_set_layout"
"""Key of a file's metadata: the hash of the layout of its vectors."""
SPILL_ROWS = 32_768
"""Rows held until their step closes, 60 MB of them. More are written as pieces before."""


class Reads:
    """``features``: the columns kept beside the set; ``layout``: the hash of its vectors' layout."""

    def __init__(self, path: Path, step_ms: int, features: Sequence[str], layout: str):
        self._path, self._step_ms, self._layout = path, step_ms, layout
        self._features = tuple(features)
        self._held: list[pl.DataFrame] = []
        # a row is of the tick that ends at its time
        self._step = ((pl.col("t_ms") - 1) // step_ms).alias("step")

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a file."""
        features = dict.fromkeys(self._features, pl.Float32())
        return {"account": pl.String(), "t_ms": pl.Int64(), REQUEST_SET: pl.Binary(), **features,
                **dict.fromkeys(SCORES, pl.UInt8())}  # fmt: skip

    def take(self, rows: pl.DataFrame) -> None:
        """Remember those of these rows that have a set. Raises OSError where there are many, and no room for them."""
        due = rows.filter(pl.col(REQUEST_SET).is_not_null())
        if due.is_empty():
            return
        known = [f for f in self._features if f in rows.columns]
        none = [pl.lit(None, pl.Float32).alias(f) for f in self._features if f not in rows.columns]
        self._held.append(due.select(
            "partition", self._step, account(rows.columns), "t_ms", REQUEST_SET,
            pl.col(known).cast(pl.Float32), *none, *opinions(rows.columns),
        ).select("partition", "step", *self.schema))  # fmt: skip
        if sum(map(len, self._held)) > SPILL_ROWS:
            held = _last(pl.concat(self._held), "partition", "step", "account")
            self._held = [held]
            if len(held) > SPILL_ROWS // 2:
                self._write(held)
                self._held = []

    def put(self, closed: Mapping[int, int]) -> None:
        """Write what is held of the steps that have closed: of each partition until this one. Raises OSError."""
        if not self._held:
            return
        held = pl.concat(self._held)
        due = pl.col("step") <= pl.col("partition").replace_strict(closed, default=-1, return_dtype=pl.Int64)
        self._write(_last(held.filter(due), "partition", "step", "account"))
        self._held = [few(held.filter(~due))]

    def drop(self) -> None:
        """Let go of what can't be written."""
        self._held = []

    def close(self, folder: Path, partition: int) -> None:
        """Make one file of a day that is over. Raises OSError."""
        whole = folder / f"r{partition}.parquet"
        pieces = sorted(folder.glob(f"r{partition}-*.parquet"))
        ours = [piece for piece in pieces if layout_of(piece) == self._layout]
        if ours and not whole.exists():  # else it was killed before the pieces went
            read = pl.scan_parquet(ours, schema=self.schema, missing_columns="insert", extra_columns="ignore")
            read = read.with_row_index("at")
            # which rows are the last ones is told by two narrow columns: the sets of the others are never all here
            keys = read.select("account", "t_ms", "at").collect(engine="in-memory")
            last = _last(keys, "account")["at"]
            kept = read.filter(pl.col("at").is_in(last.implode())).drop("at").collect(engine="streaming")
            write(kept.sort("account"), whole, {LAYOUT: self._layout})
        for piece in pieces:
            piece.unlink(missing_ok=True)

    def _write(self, rows: pl.DataFrame) -> None:
        for (partition, step), part in rows.group_by("partition", "step", maintain_order=True):
            assert isinstance(partition, int)
            assert isinstance(step, int)
            day = datetime.fromtimestamp(step * self._step_ms / 1000, UTC).date()
            folder = self._path / day.isoformat()
            if (folder / f"r{partition}.parquet").exists():  # read again after a restart
                continue
            folder.mkdir(parents=True, exist_ok=True)
            piece = sum(1 for _ in folder.glob(f"r{partition}-{step:09d}-*.parquet"))
            path = folder / f"r{partition}-{step:09d}-{piece}.parquet"
            write(part.select(*self.schema), path, {LAYOUT: self._layout})


def layout_of(path: Path) -> str | None:
    """The hash of the layout that a file's sets were written in; None where it can't be told."""
    try:
        found: str | None = pl.read_parquet_metadata(path).get(LAYOUT)
    except pl.exceptions.PolarsError:
        return None
    return found


def _last(rows: pl.DataFrame, *of: str) -> pl.DataFrame:
    """The row of each that is the last by time, of several at one time the last written."""
    return rows.sort("t_ms", maintain_order=True).unique(of, keep="last", maintain_order=True)
