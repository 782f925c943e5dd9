"""Rows as one Parquet file for a notebook: names as the catalogue has them, times and classes in words."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from monitor.alerts.stage import TOTALS
from monitor.errors import BadInput, Problem
from monitor.features.catalogue import ACCOUNT_FEATURES, CLIENT_CLASSES
from monitor.score import SCORE_COLUMNS

from .rows import Rows

KEYS = ("subject", "at", "partition", "tick", "client_class", *TOTALS)
"""Columns before the features: the scored entity; end of its row's tick (UTC, ms); where its traffic lies and the
tick's number; its class of client in words; totals since the account was first seen."""
EVERY = {"tick": None, "hour": 3_600_000, "day": 86_400_000}


def schema() -> dict[str, pl.DataType]:
    """Columns of the file and their types. Null is "not known", never zero."""
    names = [f.name for f in ACCOUNT_FEATURES]
    keys: dict[str, pl.DataType] = {
        "subject": pl.String(), "at": pl.Datetime("ms", "UTC"), "partition": pl.Int32(), "tick": pl.Int64(),
        "client_class": pl.String(), **dict.fromkeys(TOTALS, pl.Int64()),
    }  # fmt: skip
    return keys | dict.fromkeys([*names, *(s for s in SCORE_COLUMNS if s not in names)], pl.Float64())


def export(rows: Rows, out: Path, every: str = "tick") -> int:
    """Write the rows to ``out``, in order of subject and time; how many. ``every`` ``hour`` or ``day``: of each subject
    the last row of each, by event time in UTC. Raises BadInput where ``out`` cannot be written."""
    wanted = schema()
    frames = [frame.with_columns(_keys(rows)) for frame in rows.frames()]
    made = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame(schema=wanted)
    lazy = made.lazy().sort("subject", "tick")
    step = EVERY[every]
    if step is not None:
        slot = pl.col("tick") * rows.meta.tick_ms // step
        lazy = lazy.group_by("subject", slot.alias("slot"), maintain_order=True).last()
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in wanted.items() if name not in made.columns]
    whole = lazy.with_columns(missing).select([*wanted]).cast(pl.Schema(wanted)).collect(engine="in-memory")
    try:
        whole.write_parquet(out, compression="zstd")
    except OSError as error:
        raise BadInput([Problem(str(out), 0, f"can't be written: {error.strerror or error}")]) from None
    return len(whole)


def _keys(rows: Rows) -> list[pl.Expr]:
    end = (pl.col("tick") + 1) * rows.meta.tick_ms
    codes = dict(enumerate(CLIENT_CLASSES))
    words = pl.col("client_class").replace_strict(codes, default=None, return_dtype=pl.String)
    return [end.cast(pl.Datetime("ms", "UTC")).alias("at"), words.alias("client_class")]
