"""Bytes from one array to another, for kernels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit

U8 = npt.NDArray[np.uint8]


@njit
def copy(data: U8, i: int, end: int, out: U8, o: int) -> int:
    """``data[i:end]`` to ``out[o:]``; where it ends there.

    A slice would first ask whether the two overlap, and make room for a copy. With signed places each byte would be
    asked whether its place counts from the end, and they went one by one: 2.3 us for a value of 1.7 KB, 0.08 so.
    """
    to, at = np.uint64(o), np.uint64(i)
    for j in range(np.uint64(end - i)):
        out[to + j] = data[at + j]
    return o + end - i
