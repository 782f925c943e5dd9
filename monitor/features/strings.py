"""Strings as numbers and fixed bytes, in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from monitor.arrow import to_arrow
from monitor.features.blake import blake_rows
from monitor.jit import njit


def coded(values: pl.Series) -> tuple[npt.NDArray[np.int32], list[str]]:
    """A number for each string, -1 for null: int32 [n]; and the different strings by number, as they first occur.

    By Arrow, in the caller's thread. Polars would hand each of its calls to a thread of its own, and that one waits
    for a core: the loop spent 39 % of its time waiting for answers that took 16 %.
    """
    codes, strings = _encoded(values)
    return codes, strings.to_pylist()


def stable_hash(values: pl.Series) -> pl.Series:
    """64-bit BLAKE2b of each string, null kept null: the same in every process and version."""
    return _spread(*_encoded(values))


def hashed(codes: npt.NDArray[np.int32], strings: Sequence[str]) -> pl.Series:
    """:func:`stable_hash` of what is :func:`coded`."""
    return _spread(codes, pa.array(strings, pa.large_string()))


def _encoded(values: pl.Series) -> tuple[npt.NDArray[np.int32], Any]:
    """:func:`coded`, with the strings as they lie in Arrow."""
    encoded = to_arrow(values).dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), encoded.dictionary


def _spread(codes: npt.NDArray[np.int32], strings: Any) -> pl.Series:
    """The hash of the string of each code, null where it is -1."""
    hashes = np.zeros(len(strings) + 1, np.uint64)  # one more, for null
    starts, raw = _arrow_utf8(strings)
    blake_rows(raw, starts, hashes[:-1], np.empty(8, np.uint64), np.empty(16, np.uint64))
    return pl.Series(pa.array(hashes[codes], mask=codes < 0))


def utf8(values: pl.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Where each string begins and the last one ends, int64 [n + 1], and the bytes of all. Null is empty."""
    return _arrow_utf8(to_arrow(values.fill_null("")))


def _arrow_utf8(array: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """:func:`utf8` of a large-string array of Arrow without nulls."""
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets if offsets is not None and offsets.size else bytes(8), np.int64)
    raw = np.frombuffer(data if data is not None and data.size else b"\0", np.uint8)
    return starts[array.offset : array.offset + len(array) + 1], raw


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
