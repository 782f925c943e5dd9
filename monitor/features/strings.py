"""Strings as numbers and fixed bytes, in bulk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from monitor.arrow import to_arrow
from monitor.jit import njit


def coded(values: pl.Series) -> tuple[npt.NDArray[np.int32], list[str]]:
    """A number for each string, -1 for null: int32 [n]; and the different strings by number, as they first occur.

    By Arrow, in the caller's thread. Polars would hand each of its calls to a thread of its own, and that one waits
    for a core: the loop spent 39 % of its time waiting for answers that took 16 %.
    """
    encoded = to_arrow(values).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes, encoded.dictionary.to_pylist()


def stable_hash(values: pl.Series) -> pl.Series:
    """64-bit BLAKE2b of each string, null kept null: the same in every process and version."""
    return hashed(*coded(values))


def hashed(codes: npt.NDArray[np.int32], strings: Sequence[str]) -> pl.Series:
    """:func:`stable_hash` of what is :func:`coded`."""
    hashes = np.array([*map(_hashed, strings), 0], np.uint64)
    return pl.Series(pa.array(hashes[codes], mask=codes < 0))


@lru_cache(1 << 15)
def _hashed(value: str) -> int:
    """Kept for the strings that come again with the next batch: a quarter of the time."""
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little") or 1


def utf8(values: pl.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Where each string begins and the last one ends, int64 [n + 1], and the bytes of all. Null is empty."""
    arrow = to_arrow(values.fill_null(""))
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
