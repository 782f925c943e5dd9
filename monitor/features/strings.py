"""Strings as numbers and fixed bytes, in bulk."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.jit import njit


def stable_hash(values: pl.Series) -> pl.Series:
    """64-bit BLAKE2b of each string, null kept null: the same in every process and version."""
    unique = values.unique().drop_nulls()
    hashes = list(map(_hashed, unique.to_list()))
    return values.replace_strict(unique, pl.Series(hashes, dtype=pl.UInt64), default=None, return_dtype=pl.UInt64)


@lru_cache(1 << 15)
def _hashed(value: str) -> int:
    """Kept for the strings that come again with the next batch: a quarter of the time."""
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little") or 1


def utf8(values: pl.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Where each string begins and the last one ends, int64 [n + 1], and the bytes of all. Null is empty."""
    arrow = values.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = arrow.buffers()
    starts = np.frombuffer(offsets, np.int64)[arrow.offset : arrow.offset + len(values) + 1]
    return starts, np.frombuffer(data if data is not None and data.size else b"\0", np.uint8)


def fixed_bytes(values: pl.Series, width: int) -> npt.NDArray[np.uint8]:
    """UTF-8 of each string in ``width`` bytes, zero-filled; all zeros for a longer one (half an id is no id)."""
    starts, raw = utf8(values)
    out = np.zeros((len(values), width), np.uint8)
    _copy_fixed(starts, raw, out)
    return out


@njit
def _copy_fixed(starts: npt.NDArray[np.int64], raw: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> None:
    for i in range(len(out)):
        length = starts[i + 1] - starts[i]
        if length <= out.shape[1]:
            for j in range(length):
                out[i, j] = raw[starts[i] + j]
