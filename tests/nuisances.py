"""Nuisances of an account in a simulated log: ids, row order, lengths, arrivals. Nothing it says or shares."""

from __future__ import annotations

import numpy as np
import polars as pl

FIRST = 8
"""Requests of an account that are looked at: the same number for all, so that its rate is not a feature."""


def gather(chunks) -> pl.DataFrame:
    """The columns that nuisances need, with the line number in the log."""
    keep = ["account_id", "request_id", "conversation_id", "api_key_id", "org_id", "ts", "completed_at",
            "input_tokens", "output_tokens"]  # fmt: skip
    return pl.concat([c.frame.select(keep) for c in chunks]).with_row_index("line")


def table(log: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Features (accounts, k) of accounts with at least FIRST requests, and their ids."""
    tail = pl.col("request_id").str.extract(r"(\d+)$").cast(pl.UInt64)
    log = log.sort("account_id", "ts", "line").with_columns(
        (tail % 997).alias("rid"), (pl.col("account_id").str.extract(r"(\d+)$").cast(pl.UInt64) % 997).alias("aid"),
        (pl.col("org_id").str.extract(r"(\d+)$").cast(pl.UInt64) % 997).alias("oid"),
        (pl.col("api_key_id").str.extract(r"(\d+)$").cast(pl.UInt64) % 997).alias("kid"),
        pl.col("account_id").str.len_chars().alias("id_length"),
        pl.col("line").cast(pl.Int64).diff().over("account_id").alias("step"),
        (pl.col("ts").rank("ordinal") - pl.col("line").cast(pl.Int64)).cast(pl.Float64).alias("shift"),
        pl.col("ts").diff().over("account_id").alias("gap"),
        (pl.col("ts") * 1000 % 1000).alias("millis"), pl.len().over("account_id").alias("requests"),
    )  # fmt: skip
    first = log.filter(pl.col("requests") >= FIRST).group_by("account_id", maintain_order=True).head(FIRST)
    gap = pl.col("gap").slice(1)
    rows = first.group_by("account_id", maintain_order=True).agg(
        *(pl.col(c).cast(pl.Float64).mean() for c in ("rid", "aid", "oid", "kid", "id_length", "millis")),
        pl.col("input_tokens").cast(pl.Float64).log().mean().alias("in_mean"),
        pl.col("input_tokens").cast(pl.Float64).log().std().alias("in_std"),
        (pl.col("output_tokens").cast(pl.Float64) + 1).log().mean().alias("out_mean"),
        (pl.col("output_tokens").cast(pl.Float64) + 1).log().std().alias("out_std"),
        (gap.std() / gap.mean()).alias("cv"), (gap.median() / gap.mean()).alias("median_gap"),
        (gap.max() / gap.sum()).alias("longest"),
    )  # fmt: skip
    return rows.drop("account_id").to_numpy().astype(np.float64), rows["account_id"].to_list()
