"""The archive for a hunt: who there was and what each did in all, held; who had which link, read when it is asked for.

Links are nine tenths of the archive and most of them lead nowhere, so they stay on disk. A hunt asks for the links of
few accounts and for the holders of few links: each question reads one column of every file and keeps what it asked
for. Memory goes with accounts and with what is found, not with days.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.archive import SCORES, kind_of, scan
from monitor.campaigns.features import RATES
from monitor.campaigns.kinds import CODE, COHORT_MS

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
_SUMMED = sorted({"requests", "output_tokens", "log_in", "log_out"}.union(*RATES.values()))
"""Totals and sums that a hunt reads."""
_DAYS_AT_ONCE = 4
_BITS_A_KEY = 4
_LEAST_BITS, _MOST_BITS = 16, 27


@dataclass(frozen=True, slots=True)
class Links:
    """Who holds which of some links. ``account`` i64, ``key`` i64 (number of a link), sorted by account then key;
    ``kind`` and ``df`` (tenants that hold it) [keys]. A link of one tenant alone is not among them."""

    account: I64
    key: I64
    kind: I64
    df: I64


@dataclass(slots=True)
class People:
    """Everybody in the archive. ``rows``: one an account, in order of first day and id (account, tenant, times in ms,
    the sums of shape, scores, ``days`` seen). ``tenant`` [accounts] numbers tenants."""

    rows: pl.DataFrame
    tenant: I64
    tenants: int
    days: int
    _files: list[tuple[Path, U32]]
    _asked: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    _held: list[tuple[U32, U64]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def links_of(self, member: Mask) -> Links:
        """Every link that some ``member`` [accounts] holds, with all of its holders."""
        keys = np.unique(np.concatenate([v[member[a]] for a, v in self._each()]))
        new = np.setdiff1d(keys, self._asked, assume_unique=True)
        if len(new):
            known = _Known(new)
            for account, value in self._each():
                at = known.where(value)
                self._held.append((account[at], value[at]))
            self._asked = np.union1d(self._asked, new)
        return self._numbered(keys)

    def _numbered(self, keys: U64) -> Links:
        pairs = pl.concat([pl.DataFrame({"id": a, "key": v}) for a, v in self._held]).unique()
        self._held = [(pairs["id"].to_numpy(), pairs["key"].to_numpy())]
        whose = pairs.filter(_Known(keys).where(pairs["key"].to_numpy()))
        whose = whose.with_columns(tenant=self.tenant[whose["id"].to_numpy()])
        df = whose.lazy().group_by("key").agg(df=pl.col("tenant").n_unique().cast(pl.Int64)).filter(pl.col("df") >= 2)
        table = df.sort("key").with_row_index("number").collect(engine="in-memory")
        held = whose.join(table, on="key", how="inner").sort("id", "number")
        kind = table.select(kind_of(pl.col("key")))["key"].to_numpy().astype(np.int64)
        return Links(
            held["id"].to_numpy().astype(np.int64), held["number"].to_numpy().astype(np.int64), kind,
            table["df"].to_numpy().astype(np.int64),
        )  # fmt: skip

    def _each(self) -> Iterator[tuple[U32, U64]]:
        """Accounts and the links that they hold, a file at a time, and what their creation says."""
        for path, ids in self._files:
            links = pl.read_parquet(path, columns=["links"])["links"]
            account = np.repeat(ids, links.list.len().to_numpy())
            yield account, links.explode(keep_nulls=False, empty_as_null=False).to_numpy()
        yield _cohorts(self.rows)


class _Known:
    """Membership in a set of links: a table of bits says for nearly all others that they are none of it."""

    def __init__(self, keys: U64):
        self._keys = keys
        bits = min(max(len(keys).bit_length() + _BITS_A_KEY, _LEAST_BITS), _MOST_BITS)
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, np.bool_)
        self._maybe[self._place(keys)] = True

    def _place(self, keys: U64) -> I64:
        # the lowest bits are the kind; the upper ones are a keyed hash, but a cohort's are a small number
        return ((keys * np.uint64(0x9E3779B97F4A7C15)) >> self._shift).astype(np.int64)

    def where(self, values: U64) -> Mask:
        """Which of ``values`` are in the set."""
        found = self._maybe[self._place(values)]
        at = np.flatnonzero(found)
        near = np.minimum(np.searchsorted(self._keys, values[at]), max(len(self._keys) - 1, 0))
        found[at] = self._keys[near] == values[at] if len(self._keys) else False
        return found


def load(path: Path, first: date | None = None, last: date | None = None) -> People:
    """Everybody of the days from ``first`` to ``last``. Raises BadInput where there is nothing."""
    names = pl.DataFrame(schema={"account": pl.String(), "id": pl.UInt32()})
    columns = ["account", "tenant", "created_ms", "first_ms", "last_ms", *_SUMMED, *SCORES]
    sums: list[pl.DataFrame] = []
    places: list[tuple[Path, U32]] = []
    days = 0
    for _, files in scan(path, first, last):
        days += 1
        parts = [pl.read_parquet(f, columns=columns) for f in files]
        day = pl.concat(parts)
        new = day.select("account").unique().join(names, on="account", how="anti").sort("account")
        ids = pl.Series("id", np.arange(len(names), len(names) + len(new), dtype=np.uint32))
        names = pl.concat([names, new.with_columns(ids)])
        numbered = day.join(names, on="account", how="left", maintain_order="left")
        every, begin = numbered["id"].to_numpy(), 0
        for file, part in zip(files, parts, strict=True):
            places.append((file, every[begin : begin + len(part)]))
            begin += len(part)
        sums.append(numbered.drop("account"))
        if len(sums) > _DAYS_AT_ONCE:
            sums = [_summed(sums)]
    rows = names.join(_summed(sums), on="id", how="left", maintain_order="left").sort("id")
    tenants, number = np.unique(rows["tenant"].to_numpy(), return_inverse=True)
    return People(rows, number.astype(np.int64), len(tenants), days, places)


def _summed(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    days = [p if "days" in p.columns else p.with_columns(days=pl.lit(1, pl.Int32)) for p in parts]
    wide = pl.concat([p.with_columns(pl.col(_SUMMED).cast(pl.Int64)) for p in days], how="diagonal")
    return wide.lazy().group_by("id").agg(
        pl.col("tenant", "created_ms", "first_ms").min(), pl.col("last_ms").max(), pl.col(_SUMMED).sum(),
        pl.col(SCORES).max(), pl.col("days").sum(),
    ).collect(engine="in-memory")  # fmt: skip


def _cohorts(rows: pl.DataFrame) -> tuple[U32, U64]:
    """Creation as two links, on grids half a length apart, as the campaign stage has it."""
    made = rows.filter(pl.col("created_ms").is_not_null(), pl.col("created_ms") >= 0).select("id", "created_ms")
    since = made["created_ms"].to_numpy()
    grids = [((since + g * COHORT_MS // 2) // COHORT_MS * 2 + g).astype(np.uint64) for g in (0, 1)]
    key = np.concatenate(grids) << np.uint64(4) | np.uint64(CODE["creation_cohort"])
    return np.tile(made["id"].to_numpy(), 2), key
