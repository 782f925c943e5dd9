"""Writes the archive: a file for each partition's step, and one for its day once the day is over. Keeps no state.

``<path>/2026-11-25/p3-002900123.parquet`` is a step, ``p3.parquet`` a day that is complete. What is written is a
function of the blob, and a file appears whole, so doing it again after a restart changes nothing; steps of a day that
is complete are left alone.

Whatever befalls the folder, detection goes on: a step that can't be written is said, counted and not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from shutil import rmtree

import polars as pl

from monitor.campaigns.blob import StepBlob
from monitor.pieces import few

from .read import day_folders
from .reads import Reads
from .rows import SCHEMA, SCORES, account, combined, of_blob, opinions, write

_WAITING = {"partition": pl.Int32(), "t_ms": pl.Int64(), "account": pl.String(), **dict.fromkeys(SCORES, pl.UInt8())}


class Archive:
    """``path``: the folder, shared by replicas. ``days`` are kept, counted in event time. ``told`` hears after each
    writing how many blobs were lost, and why the last of them was (0 and "": all is written). ``reads``: what keeps
    also what the classifier read."""

    def __init__(
        self, path: Path, step_ms: int, days: int = 90, told: Callable[[int, str], None] = lambda lost, why: None,
        reads: Reads | None = None,
    ):  # fmt: skip
        self._path, self._step_ms, self._days, self.told, self._reads = path, step_ms, days, told, reads
        self._scores = pl.DataFrame(schema=_WAITING)

    def scored(self, rows: pl.DataFrame) -> None:
        """Remember the classifier's opinions, and what it read where that is kept, until their step closes. A restart
        loses those of one step at most: the next row of an account carries the opinion that stands. Never raises for
        what is wrong with the folder."""
        if self._reads is not None:
            try:
                self._reads.take(rows)
            except OSError as error:
                self._reads.drop()
                self.told(1, self._unwritten(error))
        if not set(SCORES) & set(rows.columns):
            return
        made = rows.lazy().select(
            "partition", "t_ms", account(rows.columns), *opinions(rows.columns)
        ).filter(pl.any_horizontal(pl.col(SCORES).is_not_null())).collect(engine="in-memory")  # fmt: skip
        if len(made):
            self._scores = few(pl.concat([self._scores, made]))

    def put(self, blobs: Sequence[StepBlob]) -> None:
        """Write steps that closed. Never raises for what is wrong with the folder or its files."""
        lost, why = 0, ""
        if self._reads is not None:
            try:  # before the days that these steps end are put together
                self._reads.put({b.partition: b.step for b in sorted(blobs, key=lambda b: b.step)})
            except OSError as error:
                why = self._unwritten(error)
        for blob in blobs:
            try:
                if damaged := self._one(blob):
                    lost += len(damaged)
                    why = f"archive.path: damaged and set aside: {damaged[-1]}"
            except OSError as error:
                lost += 1
                why = self._unwritten(error)
        self.told(max(lost, bool(why)), why)
        # those of these steps stay: the same call may come again
        begins = {b.partition: b.step * self._step_ms for b in sorted(blobs, key=lambda b: -b.step)}
        for partition, begin in begins.items():
            over = (pl.col("partition") == partition) & (pl.col("t_ms") < begin)
            self._scores = self._scores.filter(~over)

    def _unwritten(self, error: OSError) -> str:
        return f"archive.path {self._path} can't be written: {error.strerror}"

    def _one(self, blob: StepBlob) -> list[Path]:
        """Write a step; those of days before that turned out to be damaged."""
        day = datetime.fromtimestamp(blob.step * self._step_ms / 1000, UTC).date()
        folder = self._path / day.isoformat()
        path = folder / f"p{blob.partition}-{blob.step:09d}.parquet"
        if path.exists() or (folder / f"p{blob.partition}.parquet").exists():
            return []
        folder.mkdir(parents=True, exist_ok=True)
        damaged = self._close(blob.partition, before=day)
        end = (blob.step + 1) * self._step_ms
        write(of_blob(blob, self._scores.filter(pl.col("partition") == blob.partition, pl.col("t_ms") < end)), path)
        return damaged

    def _close(self, partition: int, before: date) -> list[Path]:
        """Days of this partition that are over become one file each; days past their life go."""
        damaged: list[Path] = []
        for day, folder in day_folders(self._path):
            if day <= before - timedelta(days=self._days):
                rmtree(folder, ignore_errors=True)
            elif day < before:
                if self._reads is not None:
                    self._reads.close(folder, partition)
                steps = sorted(folder.glob(f"p{partition}-*.parquet"))
                damaged += (bad := [step for step in steps if not _readable(step)])
                steps = [step for step in steps if step not in bad]
                for step in bad:
                    step.rename(step.with_suffix(".damaged"))
                if steps:
                    # a day in which another release came in has steps without the newer sums
                    read = pl.scan_parquet(steps, schema=SCHEMA, missing_columns="insert", extra_columns="ignore")
                    write(combined(read), folder / f"p{partition}.parquet")
                    for step in steps:
                        step.unlink(missing_ok=True)
        return damaged


def _readable(step: Path) -> bool:
    try:
        pl.read_parquet_schema(step)
    except pl.exceptions.PolarsError:
        return False
    return True
