"""The row of an account and day: sums, links as keyed hashes, and the highest opinions of the classifier.

A row is a sum, a set or an extreme of what the day's steps had, so it does not matter how they were put together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import polars as pl

from monitor.campaigns.blob import StepBlob
from monitor.campaigns.kinds import CODE, KINDS, TEMPLATES
from monitor.campaigns.sums import NAMES
from monitor.campaigns.tally import TOTALS

SCORES = (
    "classifier_distillation", "classifier_resale", "classifier_account_farm", "classifier_stolen_key",
    "classifier_evaluation",
)  # fmt: skip
"""Score columns of which the day's highest is kept, in 255ths; null where there was no opinion."""
TEMPLATES_A_DAY, VALUES_A_DAY = 6, 3
"""Links of a kind kept of an account and day, those with the smallest keyed hash. All accounts keep by one rule."""
KIND_BITS = 4
"""Low bits of a link that hold its kind; the others are the keyed hash's upper 60."""
assert len(KINDS) <= 1 << KIND_BITS

SCHEMA: dict[str, pl.DataType] = {
    "account": pl.String(), "tenant": pl.String(), "created_ms": pl.Int64(), "billing": pl.UInt8(),
    "first_ms": pl.Int64(), "last_ms": pl.Int64(), **dict.fromkeys(TOTALS, pl.Int64()),
    **dict.fromkeys(NAMES, pl.Int32()), "links": pl.List(pl.UInt64()), **dict.fromkeys(SCORES, pl.UInt8()),
}  # fmt: skip
"""Columns. Times are ms of event time; totals and sums are of the day; ``links`` are sorted (:func:`key_of`)."""


def key_of(kind: pl.Expr, value: pl.Expr) -> pl.Expr:
    """A link as one number: the upper 60 bits of its keyed hash, then its kind."""
    mask = pl.lit(~((1 << KIND_BITS) - 1) & (1 << 64) - 1, pl.UInt64)
    return (value & mask) | kind.cast(pl.UInt64)


def kind_of(key: pl.Expr) -> pl.Expr:
    """The kind's code of such a number."""
    return (key & pl.lit((1 << KIND_BITS) - 1, pl.UInt64)).cast(pl.UInt8)


def account(columns: Collection[str]) -> pl.Expr:
    """``account`` of rows with these columns."""
    return pl.col("account_id" if "account_id" in columns else "subject").alias("account")


def opinions(columns: Collection[str]) -> list[pl.Expr]:
    """:data:`SCORES` of rows with these columns, in 255ths; null where there is none."""
    return [
        (pl.col(s) * 255).round().cast(pl.UInt8).alias(s) if s in columns else pl.lit(None, pl.UInt8).alias(s)
        for s in SCORES
    ]


def write(rows: pl.DataFrame, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a file whole or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    try:
        rows.write_parquet(
            part, compression="zstd", compression_level=3, statistics=False, metadata=dict(metadata or {})
        )
        part.replace(path)
    except OSError:
        with suppress(OSError):  # on a full disk half a file would only be in the way
            part.unlink(missing_ok=True)
        raise


def of_blob(blob: StepBlob, scores: pl.DataFrame | None) -> pl.DataFrame:
    """The rows of one partition's step. ``scores``: account and the columns of :data:`SCORES`, any rows; or None."""
    index = blob.accounts.select("account").with_row_index("row")
    links = blob.links.select(row=pl.col("account"), key=key_of(pl.col("kind"), pl.col("value")))
    held = links.group_by("row").agg(links=pl.col("key"))
    rows = blob.accounts.with_row_index("row").join(held, on="row", how="left", maintain_order="left")
    if scores is not None and len(scores):
        best = scores.group_by("account").agg(pl.col(SCORES).max())
        rows = rows.join(best.join(index, on="account").drop("account"), on="row", how="left", maintain_order="left")
    none = [pl.lit(None, pl.UInt8).alias(s) for s in SCORES if s not in rows.columns]
    given = rows.with_columns(*none, pl.col("links").fill_null(pl.lit([], pl.List(pl.UInt64))))
    return combined(given.select([*SCHEMA]).cast(pl.Schema(SCHEMA)).lazy())


def combined(rows: pl.LazyFrame) -> pl.DataFrame:
    """Rows of an account made one, in order of account."""
    once = rows.group_by("account").agg(
        pl.col("tenant", "created_ms").min(), pl.col("billing").max(), pl.col("first_ms").min(),
        pl.col("last_ms").max(), pl.col(*TOTALS, *NAMES).sum(), pl.col("links").explode().drop_nulls(),
        pl.col(SCORES).max(),
    )  # fmt: skip
    return once.with_columns(_smallest(pl.col("links"))).select([*SCHEMA]).sort("account").collect(engine="in-memory")


def _smallest(links: pl.Expr) -> pl.Expr:
    """The links that are kept: of each kind those with the smallest hash."""
    kind = kind_of(pl.element())
    limit = pl.when(kind.is_in(sorted(TEMPLATES))).then(TEMPLATES_A_DAY).otherwise(VALUES_A_DAY)
    return links.list.unique().list.sort().list.eval(pl.element().filter(pl.element().cum_count().over(kind) <= limit))


TEMPLATE_CODES = (CODE["template_opening"], CODE["template_closing"])
