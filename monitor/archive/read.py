"""Reads the archive, and takes an account out of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl

from monitor.errors import BadInput, Problem

from .reads import LAYOUT, layout_of
from .rows import write


def day_folders(path: Path) -> Iterator[tuple[date, Path]]:
    """Days and their folders, in order; what is no day is not ours."""
    for folder in sorted(path.iterdir()) if path.is_dir() else ():
        try:
            yield date.fromisoformat(folder.name), folder
        except ValueError:
            continue


def days_of(path: Path, kind: str = "p") -> list[date]:
    """Days that the archive holds something of; ``kind`` as of :func:`files_of`."""
    return [day for day, folder in day_folders(path) if files_of(folder, kind)]


def files_of(folder: Path, kind: str = "p") -> list[Path]:
    """The files of a day that count: a partition's day, else its steps. ``kind``: ``p`` daily rows, ``r`` what the
    classifier read."""
    found = sorted(folder.glob(f"{kind}*.parquet"))
    whole = {p.stem for p in found if "-" not in p.stem}
    return [p for p in found if "-" not in p.stem or p.stem.split("-")[0] not in whole]


def scan(
    path: Path, first: date | None = None, last: date | None = None, kind: str = "p"
) -> Iterator[tuple[date, list[Path]]]:
    """Files of each day from ``first`` to ``last``. Raises BadInput where there is none."""
    found = False
    for day, folder in day_folders(path):
        if (first is None or day >= first) and (last is None or day <= last) and (files := files_of(folder, kind)):
            found = True
            yield day, files
    if not found:
        why = "holds no day of these: `archive.path` names the folder that `monitor run` and `backtest` write"
        if kind == "r":
            why += ", with `archive.reads: true`"
        raise BadInput([Problem(str(path), 0, why)])


def forget(path: Path, account: str) -> int:
    """Remove every row of an account; how many there were. A running monitor may be writing: looks until none is
    left."""
    gone = 0
    while True:
        held = 0
        for _, folder in day_folders(path):
            for file in sorted(folder.glob("[pr]*.parquet")):
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
    layout = layout_of(file)
    write(kept, file, {LAYOUT: layout} if layout else None)
    return len(rows) - len(kept)
