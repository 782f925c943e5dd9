"""Polars' columns as Arrow arrays, in the caller's thread and mostly without a copy. Knows no field."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa


def to_arrow(series: pl.Series) -> Any:
    """One Arrow array, strings and lists with 64-bit offsets."""
    array = series.to_arrow(compat_level=pl.CompatLevel.oldest())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
