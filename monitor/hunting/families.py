"""Families of templates over the archive: which prompts unrelated tenants share, since when, and by which clients.

A template is a keyed hash of how prompts begin or end once what varies is masked. Of most there is one holder, and they
are most of the archive: a first pass counts holdings in a table of counters by hash (which only ever says too many), a
second one reads those of a family that may be large enough. Memory goes with families, not with days.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.archive import kind_of, scan
from monitor.campaigns.kinds import CODE, KINDS, TEMPLATES

_COUNTERS = 24
"""Counters as a power of two: 32 MB, for some ten million templates."""
_MOST = np.iinfo(np.uint16).max
_MIX = np.uint64(0x9E3779B97F4A7C15)
_DAY_MS = 86_400_000.0
_DAYS_AT_ONCE = 4
_COLUMNS = ("account", "tenant", "created_ms", "first_ms", "n_text", "n_harvest", "links")
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Family:
    """A template that several tenants share. ``template``: its keyed hash; ``clients``: client builds of those that
    name one; ``first`` and ``last``: days on which it was seen; ``harvest``: of the prompts of its accounts on these
    days the share that asks for reasoning, grades or makes data (None: no prompts); ``age_days``: median age of the
    accounts when they first sent it (None: not known)."""

    kind: str
    template: str
    tenants: int
    accounts: int
    clients: int
    first: date
    last: date
    days: int
    harvest: float | None
    age_days: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"first": self.first.isoformat(), "last": self.last.isoformat()}


def families(path: Path, first: date | None = None, last: date | None = None, least: int = 3) -> list[Family]:
    """Families of ``least`` tenants and more in the archive's days from ``first`` to ``last``; most tenants first.

    Raises BadInput where there is no such day.
    """
    counted = np.zeros(1 << _COUNTERS, np.uint16)
    for _, file in _files(path, first, last):
        held = pl.read_parquet(file, columns=["links"]).select(key=pl.col("links").explode(empty_as_null=False))
        place = _place(held.filter(_is_template())["key"].to_numpy())
        at, times = np.unique(place, return_counts=True)
        counted[at] = np.minimum(counted[at] + times.astype(np.int64), _MOST).astype(np.uint16)
    holders: list[pl.DataFrame] = []
    seen: list[pl.DataFrame] = []
    clients: list[pl.DataFrame] = []
    for day, file in _files(path, first, last):
        rows = pl.read_parquet(file, columns=list(_COLUMNS)).with_row_index("row")
        links = rows.select("row", key=pl.col("links")).explode("key", empty_as_null=False)
        mine = links.filter(_is_template())
        mine = mine.filter(pl.Series(counted[_place(mine["key"].to_numpy())] >= least, dtype=pl.Boolean))
        held = mine.join(rows.drop("links"), on="row", how="inner")
        age = (pl.col("first_ms") - pl.col("created_ms")) / _DAY_MS
        known = pl.col("created_ms").is_not_null() & (pl.col("created_ms") >= 0)
        holders.append(held.select("key", "tenant", "account", age=pl.when(known).then(age)))
        seen.append(held.group_by("key").agg(pl.col("n_text", "n_harvest").cast(pl.Int64).sum(), day=pl.lit(day)))
        builds = links.filter(kind_of(pl.col("key")) == CODE["client_build"]).select("row", client="key")
        clients.append(mine.join(builds, on="row", how="inner").select("key", "client").unique())
        if len(holders) > _DAYS_AT_ONCE:  # days are in order: the first age is the youngest
            holders = [pl.concat(holders).unique(["key", "account"], keep="first", maintain_order=True)]
            clients = [pl.concat(clients).unique()]
    return _made(pl.concat(holders), pl.concat(seen), pl.concat(clients), least)


def _made(holders: pl.DataFrame, seen: pl.DataFrame, clients: pl.DataFrame, least: int) -> list[Family]:
    once = holders.unique(["key", "account"], keep="first", maintain_order=True)
    who = once.group_by("key").agg(
        tenants=pl.col("tenant").n_unique(), accounts=pl.len(), age=pl.col("age").median().round(1)
    ).filter(pl.col("tenants") >= least)  # fmt: skip
    when = seen.group_by("key").agg(
        pl.col("n_text", "n_harvest").sum(), first=pl.col("day").min(), last=pl.col("day").max(),
        days=pl.col("day").n_unique(),
    )  # fmt: skip
    with_clients = who.join(when, on="key", how="inner").join(
        clients.group_by("key").agg(clients=pl.col("client").n_unique()), on="key", how="left"
    )
    table = with_clients.with_columns(kind=kind_of(pl.col("key"))).sort("tenants", "key", descending=[True, False])
    return [
        Family(
            KINDS[row["kind"]].name, f"{row['key'] >> 4:015x}", row["tenants"], row["accounts"], row["clients"] or 0,
            row["first"], row["last"], row["days"],
            round(row["n_harvest"] / row["n_text"], 3) if row["n_text"] else None, row["age"],
        )
        for row in table.iter_rows(named=True)
    ]  # fmt: skip


def _files(path: Path, first: date | None, last: date | None) -> Iterator[tuple[date, Path]]:
    for day, files in scan(path, first, last):
        for file in files:
            yield day, file


def _is_template() -> pl.Expr:
    return kind_of(pl.col("key")).is_in(sorted(TEMPLATES))


def _place(keys: U64) -> npt.NDArray[np.int64]:
    return ((keys * _MIX) >> np.uint64(64 - _COUNTERS)).astype(np.int64)
