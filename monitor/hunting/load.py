"""The archive as arrays: who there was, what each did in all, and who held which link."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.archive import SCORES, kind_of, scan
from monitor.campaigns.kinds import CODE, COHORT_MS
from monitor.campaigns.sums import NAMES
from monitor.campaigns.tally import TOTALS

I64 = npt.NDArray[np.int64]
_SUMMED = (*TOTALS, *NAMES)


@dataclass(frozen=True, slots=True)
class People:
    """Everybody in the archive, in order of id. ``rows``: one an account (:data:`~monitor.archive.SCHEMA` without
    links; sums as Int64, ``days`` seen). ``tenant`` [accounts] numbers tenants. ``links``: account u32, key i64 (the
    number of a link), sorted by account then key; ``kind`` and ``df`` (tenants that hold it) [keys]."""

    rows: pl.DataFrame
    tenant: I64
    tenants: int
    account: I64
    key: I64
    kind: I64
    df: I64
    days: int

    def __len__(self) -> int:
        return len(self.rows)


def load(path: Path, first: date | None = None, last: date | None = None) -> People:
    """Everything of the days from ``first`` to ``last``. Raises BadInput where there is nothing."""
    names = pl.DataFrame(schema={"account": pl.String(), "id": pl.UInt32()})
    sums, links, days = [], [], 0
    for _, files in scan(path, first, last):
        days += 1
        day = pl.concat([pl.read_parquet(f) for f in files])
        new = day.select("account").unique().join(names, on="account", how="anti").sort("account")
        ids = pl.Series("id", np.arange(len(names), len(names) + len(new), dtype=np.uint32))
        names = pl.concat([names, new.with_columns(ids)])
        day = day.join(names, on="account", how="left", maintain_order="left")
        held = day.select("id", key="links").explode("key", empty_as_null=True).drop_nulls()
        links.append(held.unique() if len(files) > 1 else held)
        sums.append(day.drop("account", "links"))
        if len(links) >= 8:  # most links of a day are those of the day before
            links = [pl.concat(links).unique()]
            sums = [_summed(sums)]
    rows = names.join(_summed(sums), on="id", how="left", maintain_order="left").sort("id")
    return _arrays(rows, pl.concat(links).unique(), days)


def _summed(parts: list[pl.DataFrame]) -> pl.DataFrame:
    days = [p if "days" in p.columns else p.with_columns(days=pl.lit(1, pl.Int32)) for p in parts]
    wide = pl.concat([p.with_columns(pl.col(_SUMMED).cast(pl.Int64)) for p in days], how="diagonal")
    return wide.lazy().group_by("id").agg(
        pl.col("tenant", "created_ms").min(), pl.col("billing").max(), pl.col("first_ms").min(),
        pl.col("last_ms").max(), pl.col(_SUMMED).sum(), pl.col(SCORES).max(), pl.col("days").sum(),
    ).collect(engine="in-memory")  # fmt: skip


def _arrays(rows: pl.DataFrame, links: pl.DataFrame, days: int) -> People:
    tenants, number = np.unique(rows["tenant"].to_numpy(), return_inverse=True)
    tenant = number.astype(np.int64)
    links = pl.concat([links, _cohorts(rows)])
    whose = links.with_columns(tenant=pl.Series(tenant).gather(links["id"]))
    # nine in ten links are one tenant's alone and lead nowhere
    df = whose.lazy().group_by("key").agg(df=pl.col("tenant").n_unique().cast(pl.Int64)).filter(pl.col("df") >= 2)
    table = df.sort("key").with_row_index("number").collect(engine="in-memory")
    held = links.join(table, on="key", how="inner").sort("id", "number")
    kind = table.select(kind_of(pl.col("key")))["key"].to_numpy().astype(np.int64)
    return People(
        rows, tenant, len(tenants), held["id"].to_numpy().astype(np.int64), held["number"].to_numpy().astype(np.int64),
        kind, table["df"].to_numpy().astype(np.int64), days,
    )  # fmt: skip


def _cohorts(rows: pl.DataFrame) -> pl.DataFrame:
    """Creation as two links, on grids half a length apart, as the campaign stage has it."""
    made = rows.filter(pl.col("created_ms").is_not_null(), pl.col("created_ms") >= 0).select("id", "created_ms")
    since = made["created_ms"].to_numpy()
    grids = [((since + g * COHORT_MS // 2) // COHORT_MS * 2 + g).astype(np.uint64) for g in (0, 1)]
    key = np.concatenate(grids) << np.uint64(4) | np.uint64(CODE["creation_cohort"])
    return pl.DataFrame({"id": np.tile(made["id"].to_numpy(), 2), "key": key}).cast({"id": pl.UInt32()})
