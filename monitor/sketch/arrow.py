"""Between Polars and the kernels: strings as their Arrow buffers, arrays of numbers as columns. Knows no field."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from monitor.arrow import to_arrow
from monitor.siphash import U8Array, U64Array

from .kernel import Texts

Bools = npt.NDArray[np.bool_]


def large_texts(series: pl.Series) -> Texts:
    """Strings as their Arrow buffers, without a copy of the text; nulls are empty rows that are not valid."""
    return arrow_texts(to_arrow(series.cast(pl.String)))


def arrow_texts(array: Any) -> Texts:
    """:func:`large_texts` of a large-string array of Arrow."""
    n = len(array)
    _, offsets, data = array.buffers()
    at = np.frombuffer(offsets, np.int64)[array.offset : array.offset + n + 1] if n else np.zeros(1, np.int64)
    valid = array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
    # numpy marks what it takes from Arrow as read-only, for which numba would compile every kernel a second time
    size = 0 if data is None else data.size
    view = np.empty(0, np.uint8)
    if size:
        view = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(data.address))
    return Texts(view, at.copy(), valid, owner=array)


def hash_series(name: str, hashes: U64Array) -> pl.Series:
    """Hashes as a column, 0 as null."""
    hashes = np.ascontiguousarray(hashes)
    return pl.Series(name, pa.array(hashes, mask=hashes == 0))


def array_series(name: str, rows: U8Array, valid: Bools) -> pl.Series:
    """One fixed-size array a row (n, width), null where not ``valid``."""
    values = pa.array(np.ascontiguousarray(rows).reshape(-1))
    return pl.Series(name, pa.FixedSizeListArray.from_arrays(values, rows.shape[1], mask=pa.array(~valid)))
