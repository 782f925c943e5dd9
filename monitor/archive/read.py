"""Reads the archive, and takes an account out of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl

from monitor.errors import BadInput, Problem


def day_folders(path: Path) -> Iterator[tuple[date, Path]]:
    """Days and their folders, in order; what is no day is not ours."""
    for folder in sorted(path.iterdir()) if path.is_dir() else ():
        try:
            yield date.fromisoformat(folder.name), folder
        except ValueError:
            continue


def days_of(path: Path) -> list[date]:
    """Days that the archive holds something of."""
    return [day for day, folder in day_folders(path) if files_of(folder)]


def files_of(folder: Path) -> list[Path]:
    """The files of a day that count: a partition's day, else its steps."""
    whole = {p.stem for p in folder.glob("p*.parquet") if "-" not in p.stem}
    return sorted(p for p in folder.glob("p*.parquet") if "-" not in p.stem or p.stem.split("-")[0] not in whole)


def scan(path: Path, first: date | None = None, last: date | None = None) -> Iterator[tuple[date, list[Path]]]:
    """Files of each day from ``first`` to ``last``. Raises BadInput where there is none."""
    found = False
    for day, folder in day_folders(path):
        if (first is None or day >= first) and (last is None or day <= last) and (files := files_of(folder)):
            found = True
            yield day, files
    if not found:
        why = "holds no day of these: `archive.path` names the folder that `monitor run` and `backtest` write"
        raise BadInput([Problem(str(path), 0, why)])


def forget(path: Path, account: str) -> int:
    """Remove every row of an account; how many there were. A running monitor may be writing: looks until none is
    left."""
    gone = 0
    while True:
        held = 0
        for _, folder in day_folders(path):
            for file in sorted(folder.glob("p*.parquet")):
                held += _without(file, account)
        gone += held
        if not held:
            return gone


def _without(file: Path, account: str) -> int:
    try:
        rows = pl.read_parquet(file)
    except FileNotFoundError:
        return 0  # its day was just put together
    kept = rows.filter(pl.col("account") != account)
    if len(kept) == len(rows):
        return 0
    part = file.with_name(f".{file.name}.part")
    kept.write_parquet(part, compression="zstd", compression_level=3, statistics=False)
    part.replace(file)
    return len(rows) - len(kept)
