"""What the classifier said of accounts: codes in a step's blob, sums of each account, a mean over a group's tenants.

A pool's own reading would need of each account the sums of its attention (293 numbers) and its 73 aggregates, 730 bytes
in half precision, where an opinion takes one for each hypothesis; and there whoever the network attends to most would
speak for all. Of an account the last opinion of each step counts; it read the account's last 32 requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.cut import Cut
from monitor.fields import CLASSIFIED

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

HYPOTHESES: Final = CLASSIFIED
READ: Final = tuple(f"classifier_{name}" for name in HYPOTHESES)
"""Columns of rows with its opinions, 0 to 1, null for none."""
CODES: Final = tuple(f"opinion_{name}" for name in HYPOTHESES)
"""Columns of a blob's accounts: 0 no opinion, else 1 + its probability in :data:`STEPS`-ths. Their means over a group's
tenants go by the same names."""
STATISTICS: Final = (*CODES, "opinion_share")
"""What :func:`statistics` gives of each group, in order."""
STEPS: Final = 250
LEAST_TENANTS: Final = 3
"""Tenants that were read, under which a group has no opinion: neither one nor two speak for it."""
HELD: Final = 254
"""Opinions that a row holds; where one more comes, it is halved first. Even, so that a mean of ones stays one."""

PLACE: Final = {"partition": pl.Int64(), "step": pl.Int64(), "account": pl.String(), "tick": pl.Int64()}
SCHEMA: Final = {**PLACE, **dict.fromkeys(CODES, pl.UInt8())}
"""Opinions that wait for their step to close: one row an account and step, that of its last tick."""
_ROW: Final = np.dtype([("n", "u1", len(HYPOTHESES)), ("sum", "<u2", len(HYPOTHESES))])
WIDTH: Final = _ROW.itemsize
"""Bytes of an account's opinions of one day."""


def of_rows(rows: pl.DataFrame, ticks_a_step: int) -> pl.DataFrame:
    """Opinions (:data:`SCHEMA`) of rows that were read: ``subject``, ``partition``, ``tick`` and :data:`READ`. What is
    scored must be accounts."""
    return latest([
        rows.select(
            pl.col("partition").cast(pl.Int64), step=pl.col("tick") // ticks_a_step, account=pl.col("subject"),
            tick=pl.col("tick"),
            **{code: ((pl.col(read) * STEPS).round() + 1).fill_null(0).cast(pl.UInt8)
               for code, read in zip(CODES, READ, strict=True)},
        )
    ])  # fmt: skip


def latest(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The last opinion of each account and step. An account has one row a tick, so no order of the parts shows."""
    rows = pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)
    ordered = rows.select([*SCHEMA]).sort("partition", "step", "account", "tick")
    return ordered.unique(["partition", "step", "account"], keep="last", maintain_order=True)


def beside(where: pl.DataFrame, opinions: pl.DataFrame) -> pl.DataFrame:
    """:data:`CODES` for the rows of ``where`` (partition, step, account, each once), 0 where there is none."""
    if opinions.is_empty():
        return pl.DataFrame({code: np.zeros(len(where), np.uint8) for code in CODES})
    at = where.select(pl.col("partition", "step").cast(pl.Int64), "account")
    found = at.join(opinions, on=["partition", "step", "account"], how="left", maintain_order="left")
    # by way of arrays: whether a column without nulls has a mask shows in a blob's bytes
    return pl.DataFrame({code: found[code].fill_null(0).to_numpy() for code in CODES})


def added(rows: U8, codes: U8) -> U8:
    """Sums [accounts, WIDTH] with codes [accounts, HYPOTHESES] added."""
    held = np.ascontiguousarray(rows).view(_ROW)[:, 0]
    n, total = held["n"].astype(np.int64), held["sum"].astype(np.int64)
    told = codes > 0
    full = told & (n >= HELD)
    n, total = n >> full, total >> full
    out = np.zeros(len(rows), _ROW)
    out["n"], out["sum"] = n + told, total + np.where(told, codes.astype(np.int64) - 1, 0)
    return out[:, None].view(np.uint8)


def mean(days: Sequence[U8]) -> F64:
    """Mean opinion [accounts, HYPOTHESES] over some days' sums, each [accounts, WIDTH]; NaN where there is none."""
    held = [np.ascontiguousarray(rows).view(_ROW)[:, 0] for rows in days]
    n = np.sum([rows["n"] for rows in held], axis=0, dtype=np.float64)
    total = np.sum([rows["sum"] for rows in held], axis=0, dtype=np.float64)
    return np.asarray(np.where(n > 0, total / np.maximum(n, 1.0) / STEPS, np.nan))


def statistics(by_tenant: Cut, by_group: Cut, own: F64) -> F64:
    """:data:`STATISTICS` [groups, 6] of members' opinions [members, HYPOTHESES]: the mean over tenants of each, NaN
    where fewer than :data:`LEAST_TENANTS` were read, and the share of the tenants that were."""
    of_tenant = by_tenant.mean(own)
    found = np.where(by_group.known(of_tenant) >= LEAST_TENANTS, by_group.mean(of_tenant), np.nan)
    read = by_group.mean(np.asarray((~np.isnan(of_tenant)).any(axis=1), np.float64))
    return np.column_stack([found, read])
